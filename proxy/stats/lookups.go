package stats

import (
	"fmt"
	"io"
	"sort"
	"sync/atomic"
)

// mostLookups is how many names are remembered.
const mostLookups = 1000

// lookups count how often stats are looked up by name, which a proxy must not do with
// every request. Those of Store.mu.
type lookups struct {
	total atomic.Uint64
	names map[string]uint64 // nil while nobody asked for them
}

func (l *lookups) note(name string) {
	l.total.Add(1)
	if l.names == nil {
		return
	}
	if _, known := l.names[name]; known || len(l.names) < mostLookups {
		l.names[name]++
	}
}

// TrackLookups begins or ends to remember the names that are looked up.
func (s *Store) TrackLookups(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case !on:
		s.lookups.names = nil
	case s.lookups.names == nil:
		s.lookups.names = map[string]uint64{}
	}
}

// Lookups is how many there were.
func (s *Store) Lookups() int64 {
	return int64(s.lookups.total.Load())
}

// ClearLookups forgets all look-ups so far.
func (s *Store) ClearLookups() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lookups.total.Store(0)
	if s.lookups.names != nil {
		s.lookups.names = map[string]uint64{}
	}
}

// WriteLookups prints the names looked up since TrackLookups, the most frequent last, and
// how many look-ups there were.
func (s *Store) WriteLookups(w io.Writer) error {
	s.mu.Lock()
	total, tracked := s.lookups.total.Load(), s.lookups.names != nil
	type entry struct {
		name string
		n    uint64
	}
	var list []entry
	for name, n := range s.lookups.names {
		list = append(list, entry{name, n})
	}
	s.mu.Unlock()
	if !tracked {
		_, err := fmt.Fprintf(w, "Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n\ntotal: %d\n", total)
		return err
	}
	sort.Slice(list, func(i, j int) bool {
		return list[i].n < list[j].n || list[i].n == list[j].n && list[i].name < list[j].name
	})
	if _, err := io.WriteString(w, "   Count Lookup\n"); err != nil {
		return err
	}
	for _, e := range list {
		if _, err := fmt.Fprintf(w, "%8d %s\n", e.n, e.name); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\ntotal: %d\n", total)
	return err
}
