package route

import (
	"errors"
	"fmt"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
)

// Mutations are changes of a head that are made one after the other, each of what the
// ones before it have left.
type Mutations []mutation

// A mutation removes the header of a name, or all whose names match, or edits one.
type mutation struct {
	remove  string        // "": not this
	matches *match.String // nil: not this
	edit    HeaderEdit
}

// NewMutations compiles a list of HeaderMutations; field names it in errors.
func NewMutations(field string, list []*mutationv3.HeaderMutation) (Mutations, error) {
	return compileAll(field, list, newMutation)
}

func newMutation(m *mutationv3.HeaderMutation) (out mutation, err error) {
	switch a := m.GetAction().(type) {
	case *mutationv3.HeaderMutation_Remove:
		if out.remove = strings.ToLower(a.Remove); out.remove == "" {
			err = errors.New("remove: must not be empty")
		}
	case *mutationv3.HeaderMutation_Append:
		if out.edit, err = newEdit(a.Append); err != nil {
			err = fmt.Errorf("append %q: %w", a.Append.GetHeader().GetKey(), err)
		}
	case *mutationv3.HeaderMutation_RemoveOnMatch_:
		text, problem := match.NewString(a.RemoveOnMatch.GetKeyMatcher())
		if problem != nil {
			return out, fmt.Errorf("remove_on_match.key_matcher: %w", problem)
		}
		out.matches = &text
	default:
		err = errors.New("action: not set")
	}
	return out, err
}

// Apply changes the fields of h; values are made of the record of s. What a format makes
// must be able to stand in a head, or it is left out.
func (ms Mutations) Apply(h *http.Headers, s *http.Stream) {
	ms.ApplyRecord(h, s, format.Of(s))
}

// Detached is Apply for the goroutine that moves a body, which does not own what the stream
// keeps: values live by themselves.
func (ms Mutations) Detached(h *http.Headers, s *http.Stream) { ms.ApplyRecord(h, nil, format.Of(s)) }

// ApplyRecord is Apply for a record other than that of the stream as it is; without a
// stream values live by themselves.
func (ms Mutations) ApplyRecord(h *http.Headers, s *http.Stream, rec format.Record) {
	for i := range ms {
		m := &ms[i]
		switch {
		case m.remove != "":
			h.Remove(m.remove)
		case m.matches != nil:
			removeMatching(h, m.matches)
		default:
			m.edit.applyTo(h, s, rec)
		}
	}
}

func removeMatching(h *http.Headers, name *match.String) {
	kept := h.Fields[:0]
	var few [64]byte
	for _, f := range h.Fields {
		if !name.Match(lowerInto(few[:0], f.Name)) {
			kept = append(kept, f)
		}
	}
	h.Fields = kept
}

// applyTo makes one edit.
func (e *HeaderEdit) applyTo(h *http.Headers, s *http.Stream, rec format.Record) {
	v := e.valueOf(h, s, rec)
	if v == nil || e.Value.format != nil && !sendable(v) {
		return
	}
	if e.overwrites() {
		e.set(h, v)
		return
	}
	e.addTo(h, v)
}
