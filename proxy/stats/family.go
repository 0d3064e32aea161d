package stats

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// namespace is where metrics live whose labels are given, not cut out of their names: so
// Envoy's custom namespaces are printed. Prometheus does not see it, nor "envoy_".
const namespace = "istiocustom."

// A Family is a metric whose series are told apart by labels that are given with each of
// them. It is safe for concurrent use. Its series are bounded: beyond Limit the label that
// has the most values takes Other in place of new ones. A series that rests for as long as
// the store's Idle is forgotten; who keeps what Counter, Gauge or Histogram returned asks
// again when Scope.Forgotten has changed.
type Family struct {
	name   string
	labels []string
	store  *Store
	limit  int
	full   func(label string, values int)

	mu     sync.Mutex
	series map[string]*rest // by name, those that were made
	values []map[string]int // how many series have a value, of each label
	burst  int              // the label that exploded, -1 for none
}

// A rest is how long a series has had the same value.
type rest struct {
	labels []string // their values
	value  uint64
	since  time.Time
}

// Other is the value that stands for all further ones of a label that has too many.
const Other = "other"

// Family returns the metric with labels of these names, which has at most limit series.
// full is told once when they are used up, with the label that has the most values and how
// many; it may be nil. A metric whose label sets differ is one Family for each of them; who
// asks for the same labels gets the same Family, with what its first owner has said.
func (s *Store) Family(name string, labels []string, limit int, full func(label string, values int)) *Family {
	id := name + "\x00" + strings.Join(labels, "\x00")
	s.given.mu.Lock()
	defer s.given.mu.Unlock()
	if f := s.given.families[id]; f != nil {
		return f
	}
	if s.given.families == nil {
		s.given.families = map[string]*Family{}
	}
	f := &Family{name: name, labels: slices.Clone(labels), store: s, limit: limit, full: full,
		series: map[string]*rest{}, values: make([]map[string]int, len(labels)), burst: -1}
	for i := range f.values {
		f.values[i] = map[string]int{}
	}
	s.given.families[id] = f
	s.mu.Lock()
	defer s.mu.Unlock()
	s.families = append(s.families, f)
	return f
}

// Counter returns the counter with values for the labels, made on first use; nil when the
// store rejects it. It is a look-up: whoever counts often keeps what it returns.
func (f *Family) Counter(values []string) *Counter {
	return f.store.Scope("").Counter(f.register(values))
}

// Gauge is Counter for a gauge.
func (f *Family) Gauge(values []string) *Gauge { return f.store.Scope("").Gauge(f.register(values)) }

// Histogram is Counter for a histogram.
func (f *Family) Histogram(values []string) *Histogram {
	return f.store.Scope("").Histogram(f.register(values))
}

// register returns the full name of one series, which the store knows the labels of from now on.
func (f *Family) register(values []string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := f.join(values)
	if f.series[name] == nil && len(f.series) >= f.limit {
		values = f.bound(values)
		name = f.join(values)
	}
	if f.series[name] != nil {
		return name
	}
	f.series[name] = &rest{labels: slices.Clone(values), since: time.Now()}
	for i, v := range values {
		f.values[i][v]++
	}
	pairs := make([]string, 0, 2*len(values))
	for i, v := range values {
		pairs = append(pairs, f.labels[i], v)
	}
	f.store.give(name, tagged{name: f.name, tags: pairs})
	return name
}

// bound gives the labels that exploded the value that stands for all: the one with the
// most values, and those with at least half as many, which go with it. f.mu is held.
func (f *Family) bound(values []string) []string {
	if f.burst < 0 {
		for i := range f.values {
			if f.burst < 0 || len(f.values[i]) > len(f.values[f.burst]) {
				f.burst = i
			}
		}
		if f.full != nil && f.burst >= 0 {
			f.full(f.labels[f.burst], len(f.values[f.burst]))
		}
	}
	if f.burst < 0 {
		return values
	}
	values = slices.Clone(values)
	for i := range values {
		if 2*len(f.values[i]) >= len(f.values[f.burst]) {
			values[i] = Other
		}
	}
	if f.series[f.join(values)] == nil && len(f.series) >= 2*f.limit { // other labels explode as well
		for i := range values {
			values[i] = Other
		}
	}
	return values
}

// expire forgets the series that have not changed for as long as the store's Idle. Who
// keeps one learns of it by Scope.Forgotten, and asks for it again.
func (f *Family) expire() {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	gone := 0
	for name, r := range f.series {
		if n, busy := f.store.total(name); busy || n != r.value {
			r.value, r.since = n, now
			continue
		}
		if now.Sub(r.since) < f.store.options.Idle {
			continue
		}
		delete(f.series, name)
		for i, v := range r.labels {
			if f.values[i][v]--; f.values[i][v] == 0 {
				delete(f.values[i], v)
			}
		}
		f.store.remove(name)
		gone++
	}
	if gone > 0 {
		f.store.forgotten.Add(1)
		if len(f.series) < f.limit/2 {
			f.burst = -1 // there is room again
		}
	}
}

// total is how much a stat has counted. A gauge that is not zero is busy, whatever it does.
func (s *Store) total(name string) (n uint64, busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.counters[name]; c != nil {
		n += c.Value()
	}
	if h := s.histograms[name]; h != nil {
		n += h.Count()
	}
	g := s.gauges[name]
	return n, g != nil && g.Value() != 0
}

// remove forgets one stat.
func (s *Store) remove(name string) {
	s.mu.Lock()
	delete(s.counters, name)
	delete(s.gauges, name)
	delete(s.histograms, name)
	s.mu.Unlock()
	s.given.mu.Lock()
	defer s.given.mu.Unlock()
	delete(s.given.of, name)
}

func (f *Family) join(values []string) string {
	var b strings.Builder
	b.WriteString(namespace)
	b.WriteString(f.name)
	for i, v := range values {
		b.WriteByte('.')
		b.WriteString(f.labels[i])
		b.WriteByte('.')
		b.WriteString(v)
	}
	return b.String()
}

// given are the labels of series by their full names, and the families that gave them.
type given struct {
	mu       sync.Mutex
	of       map[string]tagged
	families map[string]*Family
}

func (s *Store) give(name string, t tagged) {
	s.given.mu.Lock()
	defer s.given.mu.Unlock()
	if s.given.of == nil {
		s.given.of = map[string]tagged{}
	}
	s.given.of[name] = t
}

// identify is what Prometheus sees of a stat: its name and its labels.
func (s *Store) identify(name string) (family string, tags []string) {
	if strings.HasPrefix(name, namespace) {
		s.given.mu.Lock()
		t, ok := s.given.of[name]
		s.given.mu.Unlock()
		if ok {
			return sanitize(t.name), t.tags
		}
	}
	t := extract(s.options.Tags, name)
	return "envoy_" + sanitize(t.name), t.tags
}
