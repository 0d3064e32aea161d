package stats

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Options are what the bootstrap's stats_config decides; see Compile. The zero
// value accepts every stat and extracts Envoy's default tags.
type Options struct {
	// Accept reports whether a stat of that full name is kept; nil keeps all.
	Accept func(name string) bool
	// Tags are the extractors in the order of the printed tags; nil is Envoy's default set.
	Tags []Tag
	// Asked reports whether a stat that Accept refuses is kept for those who ask the proxy
	// itself; Prometheus does not see it. nil keeps none.
	Asked func(name string) bool
	// Buckets are the Prometheus bucket limits by stat name, first match wins; where
	// none matches Envoy's default limits are used.
	Buckets []Buckets
	// Idle is how long a series of a Family may rest until it is forgotten; 0 is an hour.
	Idle time.Duration
}

// A Store owns the stats of one proxy. It is safe for concurrent use.
type Store struct {
	options Options

	mu         sync.Mutex
	counters   map[string]*Counter
	gauges     map[string]*Gauge
	histograms map[string]*Histogram
	texts      map[string]*Text
	computed   map[string]func() int64 // gauges that nobody writes
	families   []*Family
	sources    []func()
	lookups    lookups
	claims     map[string]int // owners of what is below a prefix

	forgotten atomic.Uint64
	given     given
}

// NewStore returns an empty Store with the zero Options.
func NewStore() *Store { return New(Options{}) }

// New returns an empty Store.
func New(o Options) *Store {
	if o.Tags == nil {
		o.Tags = DefaultTags()
	}
	if o.Idle == 0 {
		o.Idle = time.Hour
	}
	return &Store{options: o, counters: map[string]*Counter{}, gauges: map[string]*Gauge{}, histograms: map[string]*Histogram{},
		texts: map[string]*Text{}, computed: map[string]func() int64{}, claims: map[string]int{}}
}

// Scope returns the scope with the given prefix, which may be empty. In prefixes, "://",
// ":/" and ":" become "_", as in Envoy: they hold addresses and names of clusters.
func (s *Store) Scope(prefix string) *Scope { return &Scope{store: s, prefix: clean(prefix)} }

func clean(prefix string) string {
	if strings.IndexByte(prefix, ':') < 0 {
		return prefix
	}
	return strings.NewReplacer("://", "_", ":/", "_", ":", "_").Replace(prefix)
}

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
	prefix = clean(prefix)
	s.mu.Lock()
	defer s.mu.Unlock()
	goes := func(name string) bool {
		return strings.HasPrefix(name, prefix) && !slices.ContainsFunc(but, func(p string) bool { return strings.HasPrefix(name, p) })
	}
	drop(s.counters, goes)
	drop(s.gauges, goes)
	drop(s.histograms, goes)
	drop(s.texts, goes)
	drop(s.computed, goes)
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

func (s *Store) accepts(name string) bool {
	return s.options.Accept == nil || s.options.Accept(name) || s.options.Asked != nil && s.options.Asked(name)
}

// scraped reports whether Prometheus sees a stat that is kept.
func (s *Store) scraped(name string) bool {
	return s.options.Asked == nil || !s.options.Asked(name) || s.options.Accept(name)
}

// A Scope is a prefix of names within a Store.
type Scope struct {
	store  *Store
	prefix string
}

// Scope returns the scope below this one: names get "prefix." in front.
func (s *Scope) Scope(prefix string) *Scope {
	return &Scope{store: s.store, prefix: s.prefix + clean(prefix) + "."}
}

// Counter returns the counter of that name, made on first use; nil when the store
// rejects it.
func (s *Scope) Counter(name string) *Counter {
	return find(s, s.store.counters, name, func(full string) *Counter { return &Counter{name: full} })
}

// Gauge returns the gauge of that name, made on first use; nil when the store rejects it.
// Of a computed one it is what it was at that moment.
func (s *Scope) Gauge(name string) *Gauge {
	if g := s.computed(name); g != nil {
		return g
	}
	return find(s, s.store.gauges, name, func(full string) *Gauge { return &Gauge{name: full} })
}

// Histogram returns the histogram of that name, made on first use; nil when the
// store rejects it.
func (s *Scope) Histogram(name string) *Histogram {
	return find(s, s.store.histograms, name, func(full string) *Histogram { return &Histogram{name: full} })
}

// Text returns the text of that name, made on first use; nil when the store rejects it.
func (s *Scope) Text(name string) *Text {
	return find(s, s.store.texts, name, func(full string) *Text { return &Text{name: full} })
}

// Computed makes a gauge whose value is what read returns when somebody looks. read may
// be called from any goroutine; it must not make or find stats.
func (s *Scope) Computed(name string, read func() int64) {
	full := s.prefix + name
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if s.store.accepts(full) {
		s.store.computed[full] = read
	}
}

func (s *Scope) computed(name string) *Gauge {
	full := s.prefix + name
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if read := s.store.computed[full]; read != nil {
		g := &Gauge{name: full}
		g.v.Store(read())
		return g
	}
	return nil
}

func find[T any](s *Scope, m map[string]*T, name string, make func(string) *T) *T {
	full := s.prefix + name
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.lookups.note(full)
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
