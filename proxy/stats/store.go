package stats

import (
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
)

// Options are what the bootstrap's stats_config decides; see Compile. The zero
// value accepts every stat and extracts Envoy's default tags.
type Options struct {
	// Accept reports whether a stat of that full name is kept; nil keeps all.
	Accept func(name string) bool
	// Tags are the extractors in the order of the printed tags; nil is Envoy's default set.
	Tags []Tag
	// Buckets are the Prometheus bucket limits by stat name, first match wins; where
	// none matches Envoy's default limits are used.
	Buckets []Buckets
}

// A Store owns the stats of one proxy. It is safe for concurrent use.
type Store struct {
	options Options

	mu         sync.Mutex
	counters   map[string]*Counter
	gauges     map[string]*Gauge
	histograms map[string]*Histogram
	sources    []func()
	claims     map[string]int // owners of what is below a prefix

	forgotten atomic.Uint64
}

// NewStore returns an empty Store with the zero Options.
func NewStore() *Store { return New(Options{}) }

// New returns an empty Store.
func New(o Options) *Store {
	if o.Tags == nil {
		o.Tags = DefaultTags()
	}
	return &Store{options: o, counters: map[string]*Counter{}, gauges: map[string]*Gauge{}, histograms: map[string]*Histogram{},
		claims: map[string]int{}}
}

// Scope returns the scope with the given prefix, which may be empty.
func (s *Store) Scope(prefix string) *Scope { return &Scope{store: s, prefix: prefix} }

// Before registers a function that runs before every reading of the whole store; it
// sets gauges whose value is only worth computing when somebody looks (memory, uptime).
func (s *Store) Before(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sources = append(s.sources, f)
}

// Forget drops every stat whose name begins with prefix and with none of but: names
// hold dots, and the prefix of "a.b" begins with that of "a". Whoever still holds a stat
// may go on updating it; nobody sees it any more.
func (s *Store) Forget(prefix string, but ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	goes := func(name string) bool {
		return strings.HasPrefix(name, prefix) && !slices.ContainsFunc(but, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	drop(s.counters, goes)
	drop(s.gauges, goes)
	drop(s.histograms, goes)
	s.forgotten.Add(1)
}

// Forgotten is how often stats were forgotten. Who keeps stats of something that may go
// and come back finds them again when it has changed.
func (s *Scope) Forgotten() uint64 { return s.store.forgotten.Load() }

// Claim makes the caller an owner of the stats of the scope and below. When the last
// owner has called release they are forgotten, but for those of owners below.
func (s *Scope) Claim() (release func()) {
	st := s.store
	st.mu.Lock()
	defer st.mu.Unlock()
	st.claims[s.prefix]++
	return sync.OnceFunc(func() { st.release(s.prefix) })
}

func (s *Store) release(prefix string) {
	s.mu.Lock()
	s.claims[prefix]--
	if s.claims[prefix] > 0 {
		s.mu.Unlock()
		return
	}
	delete(s.claims, prefix)
	var others []string
	for p := range s.claims {
		if strings.HasPrefix(p, prefix) {
			others = append(others, p)
		}
	}
	s.mu.Unlock()
	s.Forget(prefix, others...)
}

func drop[T any](m map[string]T, goes func(name string) bool) {
	for name := range m {
		if goes(name) {
			delete(m, name)
		}
	}
}

// ResetCounters sets every counter to zero.
func (s *Store) ResetCounters() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.counters {
		c.v.Store(0)
	}
}

func (s *Store) accepts(name string) bool { return s.options.Accept == nil || s.options.Accept(name) }

// A Scope is a prefix of names within a Store.
type Scope struct {
	store  *Store
	prefix string
}

// Scope returns the scope below this one: names get "prefix." in front.
func (s *Scope) Scope(prefix string) *Scope {
	return &Scope{store: s.store, prefix: s.prefix + prefix + "."}
}

// Counter returns the counter of that name, made on first use; nil when the store
// rejects it.
func (s *Scope) Counter(name string) *Counter {
	return find(s, s.store.counters, name, func(full string) *Counter { return &Counter{name: full} })
}

// Gauge returns the gauge of that name, made on first use; nil when the store rejects it.
func (s *Scope) Gauge(name string) *Gauge {
	return find(s, s.store.gauges, name, func(full string) *Gauge { return &Gauge{name: full} })
}

// Histogram returns the histogram of that name, made on first use; nil when the
// store rejects it.
func (s *Scope) Histogram(name string) *Histogram {
	return find(s, s.store.histograms, name, func(full string) *Histogram { return &Histogram{name: full} })
}

func find[T any](s *Scope, m map[string]*T, name string, make func(string) *T) *T {
	full := s.prefix + name
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if v := m[full]; v != nil {
		return v
	}
	if !s.store.accepts(full) {
		return nil
	}
	v := make(full)
	m[full] = v
	return v
}

// A Query says which stats a page shows.
type Query struct {
	Filter   *regexp.Regexp // nil: all; matches anywhere in the name
	Invert   bool           // show what Filter does not match
	UsedOnly bool           // only stats that were written since the start
	Type     Type
	Buckets  BucketMode
}

// A Type selects stats by kind.
type Type uint8

// The kinds of stats.
const (
	All Type = iota
	Counters
	Gauges
	Histograms
	TextReadouts // none exist here
)

func (q Query) shows(name string, used bool) bool {
	if q.UsedOnly && !used {
		return false
	}
	return q.Filter == nil || q.Filter.MatchString(name) != q.Invert
}

// view is the sorted extract that a page prints.
type view struct {
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
	if q.Type == All || q.Type == Counters {
		v.counters = sorted(s.counters, func(c *Counter) bool { return q.shows(c.name, c.Value() > 0) })
	}
	if q.Type == All || q.Type == Gauges {
		v.gauges = sorted(s.gauges, func(g *Gauge) bool { return q.shows(g.name, g.used.Load()) })
	}
	if q.Type == All || q.Type == Histograms {
		v.histograms = sorted(s.histograms, func(h *Histogram) bool { return q.shows(h.name, h.used()) })
	}
	return v
}

func sorted[T interface{ Name() string }](m map[string]T, keep func(T) bool) []T {
	var list []T
	for _, x := range m {
		if keep(x) {
			list = append(list, x)
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Name() < list[j].Name() })
	return list
}
