package kube

import (
	"context"
	"log/slog"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"github.com/lateen-mesh/lateen/control/config"
)

// A shelf is what is known of the objects of one kind: the store that the kind's
// Reflector writes to, and nobody else meanwhile. Its fields are guarded by the source's
// mutex.
type shelf struct {
	source   *Source
	kind     config.Kind
	isCustom bool
	reading  reading
	listed   bool
	objects  map[config.Key]*entry
}

// An entry is one object of the API.
type entry struct {
	uid      types.UID
	version  string         // its resourceVersion: with the uid it tells whether anything is new
	good     *config.Config // in force, nil if nothing is; the guard of a policy that was never good
	stale    bool           // good is older than the object, which is broken
	problems []config.Problem
	told     *string // what its status was last made to say
}

// A judged object is one as the Reflector gave it and what became of it.
type judged struct {
	key      config.Key
	uid      types.UID
	version  string
	config   *config.Config
	problems []config.Problem
	said     string // by its status
}

var _ cache.TransformingStore = (*shelf)(nil)

// Add takes a new object.
func (s *shelf) Add(object any) error { return s.Update(object) }

// Update takes an object that has changed.
func (s *shelf) Update(object any) error {
	j, isNew := s.judge(object)
	if !isNew {
		return nil
	}
	s.source.mu.Lock()
	defer s.source.mu.Unlock()
	if s.settle(j) {
		s.source.announce(s.objects[j.key].problems)
	}
	signal(s.source.wake)
	return nil
}

// Delete takes an object away.
func (s *shelf) Delete(object any) error {
	key, ok := s.key(object)
	if !ok {
		return nil
	}
	s.source.mu.Lock()
	defer s.source.mu.Unlock()
	s.remove(key)
	signal(s.source.wake)
	return nil
}

// Replace takes everything that there is. It is one change, however long the API was away.
func (s *shelf) Replace(list []any, _ string) error {
	there := make(map[config.Key]bool, len(list))
	var changes []judged
	for i, object := range list {
		if key, ok := s.key(object); ok {
			there[key] = true
		}
		if j, isNew := s.judge(object); isNew {
			changes = append(changes, j)
		}
		list[i] = nil // large ones need not wait for the last
	}
	s.source.mu.Lock()
	defer s.source.mu.Unlock()
	for key := range s.objects {
		if !there[key] {
			s.remove(key)
		}
	}
	told := 0
	for _, j := range changes {
		if s.settle(j) {
			if told++; told <= maxTold {
				s.source.announce(s.objects[j.key].problems)
			}
		}
	}
	if told > maxTold {
		s.source.log.Error("more objects have problems: status shows them", "kind", s.kind, "objects", told, "logged", maxTold)
	}
	s.listed = true
	signal(s.source.wake)
	return nil
}

// Resync has nothing to do.
func (s *shelf) Resync() error { return nil }

// Transformer lets the Reflector judge objects while it gathers a list, so that it never
// holds all of them whole.
func (s *shelf) Transformer() cache.TransformFunc {
	return func(object any) (any, error) {
		if j, isNew := s.judge(object); isNew {
			return &j, nil
		}
		return object, nil
	}
}

func (s *shelf) key(object any) (config.Key, bool) {
	switch o := object.(type) {
	case *judged:
		return o.key, true
	case metav1.Object:
		return config.Key{Kind: s.kind, Namespace: o.GetNamespace(), Name: o.GetName()}, true
	}
	return config.Key{}, false
}

// judge makes the object's Config unless the object is known as it is.
func (s *shelf) judge(object any) (judged, bool) {
	if j, done := object.(*judged); done {
		return *j, true
	}
	o, ok := object.(metav1.Object)
	if !ok {
		return judged{}, false
	}
	key, _ := s.key(object)
	j := judged{key: key, uid: o.GetUID(), version: o.GetResourceVersion()}
	s.source.mu.Lock()
	e := s.objects[key]
	known := e != nil && e.version != "" && e.uid == j.uid && e.version == j.version
	s.source.mu.Unlock()
	if known {
		return j, false
	}
	if d, custom := object.(*document); custom {
		j.said = d.Status.said()
	}
	j.config, j.problems = s.reading.config(o)
	return j, true
}

// maxTold is of how many objects of one list problems are logged.
const maxTold = 100

// settle decides what is in force of an object: what it says now, or its last good state
// where that is broken. It reports whether there are other problems than before.
func (s *shelf) settle(j judged) (news bool) {
	e := s.objects[j.key]
	if e == nil {
		e = &entry{}
		s.objects[j.key] = e
		s.count("add")
	} else {
		s.count("update")
	}
	another := e.uid != j.uid // of the same name
	broken := config.HasErrors(j.problems)
	before := e.good
	switch {
	case j.config != nil && before != nil && before.Equal(j.config):
	case broken && !another && before != nil && !before.Guard:
	default:
		e.good = j.config
	}
	if e.good != nil && e.good.Guard {
		j.problems = append(slices.Clip(j.problems), e.good.Guarded())
	}
	news = len(j.problems) > 0 && !slices.Equal(e.problems, j.problems)
	s.source.tell(s.reading, j, e)
	e.uid, e.version, e.problems, e.stale = j.uid, j.version, j.problems, broken && e.good != nil && !e.good.Guard
	if e.good != before {
		s.source.pending[j.key] = e.good
	}
	return news
}

func (s *shelf) remove(key config.Key) {
	e := s.objects[key]
	if e == nil {
		return
	}
	if e.good != nil {
		s.source.pending[key] = nil
	}
	delete(s.objects, key)
	s.count("delete")
}

func (s *shelf) count(event string) {
	if s.source.options.Event != nil {
		s.source.options.Event(s.kind, s.isCustom, event)
	}
}

// announce logs what is wrong with an object that has just come.
func (s *Source) announce(problems []config.Problem) {
	for _, p := range problems {
		level, attrs := slog.LevelError, []any{}
		if p.Severity == config.Warning {
			level = slog.LevelWarn
		}
		if p.Hint != "" {
			attrs = append(attrs, "hint", p.Hint)
		}
		s.log.Log(context.Background(), level, p.Error(), attrs...)
	}
}
