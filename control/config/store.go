package config

import (
	"maps"
	"sync"
	"sync/atomic"
)

// A Store keeps the Set in force and moves it from one generation to the next.
// Its methods may be called from any goroutine.
type Store struct {
	current atomic.Pointer[Set]

	mu       sync.Mutex // held while the next Set is made
	watchers map[chan struct{}]struct{}
}

// NewStore returns a store with an empty set of generation 0.
func NewStore() *Store {
	s := &Store{watchers: map[chan struct{}]struct{}{}}
	s.current.Store(NewSet(0, nil))
	return s
}

// Current returns the set in force; it never blocks and never returns nil.
func (s *Store) Current() *Set { return s.current.Load() }

// Apply makes one generation of a group of changes and returns it: deletes
// first, then upserts; of two upserts with one key the last wins. A group that
// changes nothing returns the current set.
func (s *Store) Apply(upserts []*Config, deletes []Key) *Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	prev := s.Current()
	objects := maps.Clone(prev.objects)
	changed := map[Kind]bool{}
	for _, k := range deletes {
		if _, ok := objects[k]; ok {
			delete(objects, k)
			changed[k.Kind] = true
		}
	}
	for _, o := range upserts {
		if objects[o.Key] != o {
			objects[o.Key] = o
			changed[o.Kind] = true
		}
	}
	if len(changed) == 0 {
		return prev
	}
	next := newSet(prev.generation+1, objects, prev, changed)
	s.current.Store(next)
	for w := range s.watchers {
		select {
		case w <- struct{}{}:
		default: // a signal is already waiting; it stands for this change too
		}
	}
	return next
}

// Watch returns a channel that receives a signal after each new generation.
// Signals that nobody has received yet are merged into one, so a slow reader
// never holds up Apply: on a signal call Current. stop ends the watch; the
// channel is not closed.
func (s *Store) Watch() (changed <-chan struct{}, stop func()) {
	w := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watchers[w] = struct{}{}
	return w, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watchers, w)
	}
}
