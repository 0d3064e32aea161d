package lb

import (
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// Subsets are the settings of a balancer by metadata (lb_subset_config).
type Subsets struct {
	Selectors []Selector
	Fallback  Fallback
	Default   map[string]any // of DefaultSubset
	// ByLocality keeps the weights of localities within a subset, ScaleLocality lessens
	// them by the part of a locality's endpoints that are in it.
	ByLocality, ScaleLocality bool
	// PanicAny chooses among all endpoints when the fallback finds none.
	PanicAny bool
	// ListAsAny matches any element of an endpoint's list.
	ListAsAny bool
	// FallbackList tries the alternatives that the metadata of a route list.
	FallbackList bool
	// Redundant criteria are passed over (allow_redundant_keys).
	Redundant bool
}

// A Selector makes a subset of the endpoints that agree in the values of Keys.
type Selector struct {
	Keys         []string // sorted
	Single       bool     // single_host_per_subset
	Fallback     Fallback
	FallbackKeys []string // of KeysSubset
}

// A Fallback says what is chosen where no subset matches.
type Fallback uint8

// The fallbacks.
const (
	Undefined     Fallback = iota // of a selector: that of the cluster
	NoEndpoint                    // none
	AnyEndpoint                   // among all
	DefaultSubset                 // among those of Subsets.Default
	KeysSubset                    // by fewer keys
)

// NewSubsets returns a Balancer over what the set is now, by metadata; within a subset
// the policy holds.
func NewSubsets(p Policy, c *Subsets, s Set) Balancer {
	b := &subsets{config: c, policy: p, set: s}
	b.all.once = sync.OnceValue(func() *balancer { return newBalancer(p, s) })
	b.standard.once = sync.OnceValue(func() *balancer { return b.over(b.having(c.Default)) })
	return b
}

// subsets is a balancer by metadata.
type subsets struct {
	config *Subsets
	policy Policy
	set    Set

	all, standard struct{ once func() *balancer }
	known         known
	mu            sync.Mutex
	built         atomic.Pointer[map[string]*subset]
}

// subset is the endpoints of one selector and one tuple of values.
type subset struct {
	hosts  []*endpoint.Endpoint
	single bool
	once   sync.Once
	inner  *balancer
}

// index finds subsets by the criteria that choose them. Its first use builds it.
func (b *subsets) index() map[string]*subset {
	if m := b.built.Load(); m != nil {
		return *m
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.built.Load(); m != nil {
		return *m
	}
	m := map[string]*subset{}
	duplicates := 0
	for i := range b.config.Selectors {
		sel := &b.config.Selectors[i]
		for _, e := range b.set.Endpoints {
			for _, id := range b.ids(sel.Keys, e.Metadata.Load()["envoy.lb"]) {
				s := m[id]
				if s == nil {
					s = &subset{single: sel.Single}
					m[id] = s
				}
				if s.single && len(s.hosts) > 0 {
					duplicates++
					continue
				}
				s.hosts = append(s.hosts, e)
			}
		}
	}
	b.set.Stats.subsets(m, b.config.shared(), duplicates)
	b.built.Store(&m)
	return m
}

// shared is how many sets there are beside those of the selectors: all endpoints and the
// default subset, if anything falls back to them.
func (c *Subsets) shared() (n int) {
	uses := func(f Fallback) bool {
		return c.Fallback == f || slices.ContainsFunc(c.Selectors, func(s Selector) bool { return s.Fallback == f })
	}
	if uses(AnyEndpoint) || c.PanicAny {
		n++
	}
	if uses(DefaultSubset) {
		n++
	}
	return n
}

// ids are those of the criteria that choose an endpoint with that metadata by keys; more
// than one where a list stands for each of its elements.
func (b *subsets) ids(keys []string, metadata map[string]any) []string {
	ids := []string{""}
	for _, k := range keys {
		v, ok := metadata[k]
		if !ok {
			return nil
		}
		values := []any{v}
		if list, ok := v.([]any); ok && b.config.ListAsAny {
			values = list
		}
		var next []string
		for _, id := range ids {
			for _, one := range values {
				next = append(next, id+pairID(k, one))
			}
		}
		if ids = next; len(ids) > maxCombinations {
			return ids[:maxCombinations]
		}
	}
	return ids
}

// maxCombinations bounds the subsets of one endpoint by one selector.
const maxCombinations = 256

// having are the endpoints with metadata.
func (b *subsets) having(metadata map[string]any) (list []*endpoint.Endpoint) {
	want := newCriteria(metadata, false)
	for _, e := range b.set.Endpoints {
		if slices.Contains(b.ids(want.keys, e.Metadata.Load()["envoy.lb"]), want.id) {
			list = append(list, e)
		}
	}
	return list
}

// over is the policy's balancer over some of the endpoints.
func (b *subsets) over(hosts []*endpoint.Endpoint) *balancer {
	s := b.set
	s.Endpoints, s.LocalityWeights = hosts, nil
	if b.config.ByLocality {
		s.LocalityWeights = b.set.LocalityWeights
		if b.config.ScaleLocality {
			s.LocalityWeights = b.scaled(hosts)
		}
	}
	return newBalancer(b.policy, s)
}

// scaled are the weights of localities, less where fewer of their endpoints are chosen.
func (b *subsets) scaled(hosts []*endpoint.Endpoint) map[LocalityKey]uint32 {
	_, whole := byKey(b.set.Endpoints)
	_, chosen := byKey(hosts)
	out := map[LocalityKey]uint32{}
	for key, w := range b.set.LocalityWeights {
		if w > 0 && len(whole[key]) > 0 {
			part := float64(len(chosen[key])) / float64(len(whole[key]))
			out[key] = uint32(math.Max(1, math.Round(float64(w)*part)))
		}
	}
	return out
}

// A chooser is how an endpoint of a balancer is taken: any, or in one priority.
type chooser func(*balancer) *endpoint.Endpoint

// Pick implements Balancer.
func (b *subsets) Pick(x *Context) *endpoint.Endpoint {
	return b.choose(x, func(in *balancer) *endpoint.Endpoint { return in.Pick(x) })
}

func (b *subsets) health() []health { return b.all.once().health() }

func (b *subsets) pickIn(x *Context, priority int, degraded bool) *endpoint.Endpoint {
	return b.choose(x, func(in *balancer) *endpoint.Endpoint { return in.pickIn(x, priority, degraded) })
}

func (b *subsets) choose(x *Context, take chooser) *endpoint.Endpoint {
	var c *criteria
	if x.Match != nil {
		c = b.known.get(x.Match, b.config.FallbackList)
	}
	if c == nil || c.fallbacks == nil {
		return b.iterate(c, take, 0)
	}
	for _, alternative := range c.fallbacks {
		if e := b.iterate(alternative, take, 0); e != nil {
			return e
		}
	}
	return nil
}

// iterate looks for the subset of the criteria, then falls back as their selector says,
// or the cluster.
func (b *subsets) iterate(c *criteria, take chooser, depth int) *endpoint.Endpoint {
	if c != nil {
		if b.config.Redundant {
			c = b.relevant(c)
		}
		if s := b.index()[c.id]; s != nil && c.id != "" {
			b.set.Stats.count(func(s *Stats) *stats.Counter { return s.subsetsSelected })
			return b.in(s, take)
		}
		if sel := b.selector(c); sel != nil && sel.Fallback != Undefined {
			return b.bySelector(sel, c, take, depth)
		}
	}
	return b.fallback(take)
}

func (b *subsets) in(s *subset, take chooser) *endpoint.Endpoint {
	if s.single {
		return s.hosts[0]
	}
	s.once.Do(func() { s.inner = b.over(s.hosts) })
	return take(s.inner)
}

// selector is the one with exactly the keys of the criteria.
func (b *subsets) selector(c *criteria) *Selector {
	for i := range b.config.Selectors {
		if sel := &b.config.Selectors[i]; slices.Equal(sel.Keys, c.keys) {
			return sel
		}
	}
	return nil
}

// relevant leaves out what the selector with the most keys does not look at.
func (b *subsets) relevant(c *criteria) *criteria {
	var best *Selector
	for i := range b.config.Selectors {
		sel := &b.config.Selectors[i]
		covered := !slices.ContainsFunc(sel.Keys, func(k string) bool { _, there := c.source[k]; return !there })
		if covered && (best == nil || len(sel.Keys) > len(best.Keys)) {
			best = sel
		}
	}
	if best == nil || len(best.Keys) == len(c.keys) {
		return c
	}
	return c.only(best.Keys)
}

func (b *subsets) bySelector(sel *Selector, c *criteria, take chooser, depth int) *endpoint.Endpoint {
	switch sel.Fallback {
	case AnyEndpoint:
		return take(b.all.once())
	case DefaultSubset:
		return take(b.standard.once())
	case KeysSubset:
		if depth < len(b.config.Selectors) { // fewer keys each time: it ends
			return b.iterate(c.only(sel.FallbackKeys), take, depth+1)
		}
	}
	return nil
}

// fallback is what the cluster says.
func (b *subsets) fallback(take chooser) *endpoint.Endpoint {
	var e *endpoint.Endpoint
	switch b.config.Fallback {
	case AnyEndpoint:
		e = take(b.all.once())
	case DefaultSubset:
		e = take(b.standard.once())
	default:
		return nil
	}
	if e != nil {
		b.set.Stats.count(func(s *Stats) *stats.Counter { return s.subsetsFallback })
		return e
	}
	if b.config.PanicAny {
		if e = take(b.all.once()); e != nil {
			b.set.Stats.count(func(s *Stats) *stats.Counter { return s.subsetsPanic })
		}
	}
	return e
}

// subsets notes which subsets there are now.
func (s *Stats) subsets(now map[string]*subset, shared, duplicates int) {
	if s == nil {
		return
	}
	s.Open()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.known == nil {
		s.subsetsCreated.Add(uint64(shared))
	}
	for id := range now {
		if !s.known[id] {
			s.subsetsCreated.Inc()
		}
	}
	for id := range s.known {
		if now[id] == nil {
			s.subsetsRemoved.Inc()
		}
	}
	s.known = make(map[string]bool, len(now))
	for id := range now {
		s.known[strings.Clone(id)] = true
	}
	s.subsetsActive.Set(int64(len(now) + shared))
	s.scope.Gauge("lb_subsets_single_host_per_subset_duplicate").Set(int64(duplicates))
}
