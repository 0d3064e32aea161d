package stats

import (
	"regexp"
	"sort"
)

// A Query says which stats a page shows.
type Query struct {
	Filter   *regexp.Regexp // nil: all; matches anywhere in the name
	Invert   bool           // show what Filter does not match
	UsedOnly bool           // only stats that were written since the start
	Type     Type
	Buckets  BucketMode
	// Texts shows Prometheus the texts, as gauges whose value is a label.
	Texts bool
}

// A Type selects stats by kind.
type Type uint8

// The kinds of stats.
const (
	All Type = iota
	Counters
	Gauges
	Histograms
	TextReadouts
)

func (q Query) shows(name string, used bool) bool {
	if q.UsedOnly && !used {
		return false
	}
	return q.Filter == nil || q.Filter.MatchString(name) != q.Invert
}

// view is the sorted extract that a page prints.
type view struct {
	texts      []*Text
	counters   []*Counter
	gauges     []*Gauge
	histograms []*Histogram
}

func (s *Store) view(q Query) view {
	s.mu.Lock()
	sources := s.sources
	s.mu.Unlock()
	for _, f := range sources {
		f()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var v view
	if q.Type == All || q.Type == TextReadouts {
		v.texts = sorted(s.texts, func(t *Text) bool { return q.shows(t.name, t.used()) })
	}
	if q.Type == All || q.Type == Counters {
		v.counters = sorted(s.counters, func(c *Counter) bool { return q.shows(c.name, c.Value() > 0) })
	}
	if q.Type == All || q.Type == Gauges {
		v.gauges = s.shownGauges(q)
	}
	if q.Type == All || q.Type == Histograms {
		v.histograms = sorted(s.histograms, func(h *Histogram) bool { return q.shows(h.name, h.used()) })
	}
	return v
}

// shownGauges are those that are written and those that are computed. s.mu is held.
func (s *Store) shownGauges(q Query) []*Gauge {
	list := kept(s.gauges, func(g *Gauge) bool { return q.shows(g.name, g.used.Load()) })
	for name, read := range s.computed {
		if q.shows(name, true) {
			g := &Gauge{name: name}
			g.v.Store(read())
			list = append(list, g)
		}
	}
	return sortNamed(list)
}

func sorted[T interface{ Name() string }](m map[string]T, keep func(T) bool) []T {
	return sortNamed(kept(m, keep))
}

func kept[T any](m map[string]T, keep func(T) bool) []T {
	var list []T
	for _, x := range m {
		if keep(x) {
			list = append(list, x)
		}
	}
	return list
}

func sortNamed[T interface{ Name() string }](list []T) []T {
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	return list
}
