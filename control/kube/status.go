package kube

import (
	"context"
	"encoding/json"
	"maps"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/lateen-mesh/lateen/control/config"
)

// What keeps a custom object out of force is said in its own status too, where that is
// asked for, in the form that the original has for it: the condition Reconciled is False,
// with the reason as its message, and validationMessages have the code of it. All control
// planes of a mesh would write the same, so that none of them need be the one that writes.

// A documentStatus is what is read of the status of a custom object.
type documentStatus struct {
	Conditions []condition `json:"conditions,omitempty"`
}

// A condition is one entry of status.conditions.
type condition struct {
	Type               string `json:"type"`
	Status             string `json:"status"`
	Reason             string `json:"reason,omitempty"`
	Message            string `json:"message"`
	LastTransitionTime string `json:"lastTransitionTime,omitempty"`
}

// A validationMessage is one entry of status.validationMessages.
type validationMessage struct {
	Type             messageType `json:"type"`
	Level            string      `json:"level"`
	DocumentationURL string      `json:"documentationUrl"`
}

type messageType struct {
	Name string `json:"name"`
	Code string `json:"code"`
}

const (
	reconciled = "Reconciled"
	isFalse    = "False"
	maxStatus  = 4096 // characters of a message
)

// said is what the status says is wrong.
func (s documentStatus) said() string {
	for _, c := range s.Conditions {
		if c.Type == reconciled && c.Status == isFalse {
			return c.Message
		}
	}
	return ""
}

// due is what a status should say of these problems; "" where they keep nothing out.
func due(problems []config.Problem) string {
	var texts []string
	for _, p := range problems {
		if p.Severity == config.Error {
			texts = append(texts, strings.TrimPrefix(p.Field+": "+p.Message, ": "))
		}
	}
	text := strings.Join(texts, "; ")
	return strings.ToValidUTF8(text[:min(len(text), maxStatus)], "")
}

// written is a status as it goes out. Lists are replaced whole, so that an empty one
// takes back what was said.
func written(text string, now time.Time) ([]byte, error) {
	conditions, found := []condition{}, []validationMessage{}
	if text != "" {
		conditions = append(conditions, condition{Type: reconciled, Status: isFalse, Reason: "Invalid", Message: text,
			LastTransitionTime: now.UTC().Format(time.RFC3339)})
		found = append(found, validationMessage{Type: messageType{"SchemaValidationError", "IST0106"}, Level: "ERROR",
			DocumentationURL: "https://istio.io/latest/docs/reference/config/analysis/ist0106/"})
	}
	return json.Marshal(map[string]any{"status": map[string]any{"conditions": conditions, "validationMessages": found}})
}

// A statement is what is to be said of an object.
type statement struct {
	reading reading
	text    string
}

// tell has a status say what is wrong unless it does; s.mu is held. What was told once is
// not told again: somebody else may know better.
func (s *Source) tell(r reading, j judged, e *entry) {
	text := due(j.problems)
	if !s.options.WriteStatus || text == j.said {
		e.told = nil
		return
	}
	if _, custom := r.example.(*document); !custom || e.told != nil && *e.told == text {
		return
	}
	e.told = &text
	s.untold[j.key] = statement{r, text}
	signal(s.telling)
}

// How fast statuses are written: each write is an event for everybody who watches.
const (
	tellPerSecond = 10
	tellBurst     = 20
	tellAgain     = time.Second
)

// tellAll writes statuses as they come.
func (s *Source) tellAll(ctx context.Context) {
	if !s.options.WriteStatus {
		return
	}
	rate := flowcontrol.NewTokenBucketRateLimiter(tellPerSecond, tellBurst)
	for {
		select {
		case <-s.telling:
		case <-ctx.Done():
			return
		}
		for key, what := range s.takeUntold() {
			if rate.Wait(ctx) != nil {
				return
			}
			switch err := s.write(ctx, key, what); {
			case err == nil, apierrors.IsNotFound(err), ctx.Err() != nil:
			case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
				s.log.Warn("status cannot be written", "object", key, "error", err)
			default: // the API is away
				s.retell(key, what)
				sleep(ctx, tellAgain)
			}
		}
	}
}

func (s *Source) takeUntold() map[config.Key]statement {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := maps.Clone(s.untold)
	clear(s.untold)
	return all
}

// retell puts back what could not be said, unless there is something newer to say.
func (s *Source) retell(key config.Key, what statement) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, newer := s.untold[key]; !newer {
		s.untold[key] = what
	}
	signal(s.telling)
}

func (s *Source) write(ctx context.Context, key config.Key, what statement) error {
	client, err := s.client.rest(what.reading)
	if err != nil {
		return err
	}
	patch, err := written(what.text, time.Now())
	if err != nil {
		return err
	}
	return client.Patch(types.MergePatchType).Namespace(key.Namespace).Resource(what.reading.resource).Name(key.Name).
		SubResource("status").Body(patch).Do(ctx).Error()
}
