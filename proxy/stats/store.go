package stats

import "sync"

// A Store owns the stats of one proxy. It is safe for concurrent use.
type Store struct {
	mu         sync.Mutex
	counters   map[string]*Counter
	gauges     map[string]*Gauge
	histograms map[string]*Histogram
}

// NewStore returns an empty Store.
func NewStore() *Store {
	return &Store{counters: map[string]*Counter{}, gauges: map[string]*Gauge{}, histograms: map[string]*Histogram{}}
}

// Scope returns the scope with the given prefix, which may be empty.
func (s *Store) Scope(prefix string) *Scope { return &Scope{store: s, prefix: prefix} }

// A Scope is a prefix of names within a Store.
type Scope struct {
	store  *Store
	prefix string
}

// Scope returns the scope below this one: names get "prefix." in front.
func (s *Scope) Scope(prefix string) *Scope {
	return &Scope{store: s.store, prefix: s.prefix + prefix + "."}
}

// Counter returns the counter of that name, made on first use.
func (s *Scope) Counter(name string) *Counter {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	full := s.prefix + name
	c := s.store.counters[full]
	if c == nil {
		c = &Counter{name: full}
		s.store.counters[full] = c
	}
	return c
}

// Gauge returns the gauge of that name, made on first use.
func (s *Scope) Gauge(name string) *Gauge {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	full := s.prefix + name
	g := s.store.gauges[full]
	if g == nil {
		g = &Gauge{name: full}
		s.store.gauges[full] = g
	}
	return g
}

// Histogram returns the histogram of that name, made on first use.
func (s *Scope) Histogram(name string) *Histogram {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	full := s.prefix + name
	h := s.store.histograms[full]
	if h == nil {
		h = &Histogram{name: full}
		s.store.histograms[full] = h
	}
	return h
}
