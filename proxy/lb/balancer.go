package lb

import (
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// New returns a Balancer over what the set is now.
func New(p Policy, s Set) Balancer { return newBalancer(p, s) }

func newBalancer(p Policy, s Set) *balancer {
	return &balancer{policy: p, set: s, hashed: p.Kind == RingHash || p.Kind == Maglev}
}

// balancer is the choice of a priority, and whether of its healthy, its degraded or all
// endpoints.
type balancer struct {
	policy Policy
	set    Set
	hashed bool

	mu    sync.Mutex
	built atomic.Pointer[state]
}

// state is what the first pick builds.
type state struct {
	prios  []priority
	health []health
	load   load
	panics []bool
}

// members are endpoints by their state.
type members struct{ all, healthy, degraded []*endpoint.Endpoint }

// priority is one of them with the pickers that have been used.
type priority struct {
	members
	zones *zones // nil: no zone aware routing

	flatAll, flatHealthy, flatDegraded lazy
	byHealthy, byDegraded              lazy // by the weights of localities
}

// A picker chooses within one group. It never returns nil.
type picker interface {
	pick(x *Context, attempt int) *endpoint.Endpoint
}

// lazy is a picker that is made on first use.
type lazy struct {
	once   sync.Once
	picker picker
}

func (l *lazy) get(build func() picker) picker {
	l.once.Do(func() { l.picker = build() })
	return l.picker
}

func (b *balancer) state() *state {
	if s := b.built.Load(); s != nil {
		return s
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.built.Load(); s != nil {
		return s
	}
	s := &state{prios: byPriority(b.set.Endpoints)}
	for i := range s.prios {
		s.health = append(s.health, measure(&s.prios[i].members, b.set.factor(), b.set.WeightedHealth))
	}
	s.load, s.panics = loads(s.health, b.set.PanicThreshold)
	if len(s.prios) > 0 && b.policy.Locality == ZoneAware && !b.hashed { // of the first priority only
		s.prios[0].zones = newZones(b.policy, &b.set, &s.prios[0].members)
	}
	b.built.Store(s)
	return s
}

func (s *Set) factor() uint32 {
	if s.OverProvisioning == 0 {
		return 140
	}
	return s.OverProvisioning
}

// byPriority sorts endpoints by priority and state.
func byPriority(list []*endpoint.Endpoint) []priority {
	var prios []priority
	for _, e := range list {
		i := int(e.Priority.Load()) // once: it may change
		if i >= len(prios) {
			prios = append(prios, make([]priority, i+1-len(prios))...)
		}
		p := &prios[i]
		p.all = append(p.all, e)
		switch e.State() {
		case endpoint.Healthy:
			p.healthy = append(p.healthy, e)
		case endpoint.Worse:
			p.degraded = append(p.degraded, e)
		}
	}
	for i := range prios {
		if p := &prios[i]; len(p.healthy) == len(p.all) { // the usual case: keep one
			p.healthy = p.all
		}
	}
	return prios
}

// Pick implements Balancer. An endpoint to be avoided is asked for again, as often as the
// context allows.
func (b *balancer) Pick(x *Context) *endpoint.Endpoint {
	s := b.state()
	l := &s.load
	if x.Without != 0 {
		if less, ok := without(s.health, x.Without); ok {
			l = &less
		}
	}
	if b.hashed { // one priority for all attempts, by the hash
		if !x.HasHash {
			h := x.random()
			return b.repeat(x, func(i int) *endpoint.Endpoint { return b.once(s, l, x, i, h) })
		}
		return b.repeat(x, func(i int) *endpoint.Endpoint { return b.once(s, l, x, i, x.Hash) })
	}
	return b.repeat(x, func(i int) *endpoint.Endpoint { return b.once(s, l, x, i, x.random()) })
}

// repeat asks for another endpoint while the last one is to be avoided.
func (b *balancer) repeat(x *Context, once func(int) *endpoint.Endpoint) *endpoint.Endpoint {
	if len(x.Avoid) == 0 && x.Omit == nil {
		return once(0)
	}
	attempts := max(1, x.Attempts) + 1
	for i := 0; ; i++ {
		e := once(i)
		if e == nil || i+1 >= attempts || !x.avoids(e) {
			return e
		}
	}
}

// once makes one choice; n decides on the priority and is the hash of hashed policies.
func (b *balancer) once(s *state, l *load, x *Context, attempt int, n uint64) *endpoint.Endpoint {
	i, degraded, ok := l.choose(n)
	if !ok {
		if len(s.prios) == 0 && b.set.PanicThreshold > 0 { // nobody at all is a panic, too
			b.set.Stats.count(func(s *Stats) *stats.Counter { return s.healthyPanic })
		}
		return nil
	}
	x.Priority = i
	return b.within(s, x, i, degraded, attempt, n)
}

func (b *balancer) within(s *state, x *Context, i int, degraded bool, attempt int, n uint64) *endpoint.Endpoint {
	p := &s.prios[i]
	var k picker
	switch {
	case s.panics[i]:
		b.set.Stats.count(func(s *Stats) *stats.Counter { return s.healthyPanic })
		if b.policy.Zone.FailOnPanic {
			return nil
		}
		k = p.flatAll.get(func() picker { return b.flat(p.all) })
	default:
		k = b.calm(p, x, degraded)
	}
	if k == nil {
		return nil
	}
	if b.hashed {
		return k.(hashPicker).at(n, attempt)
	}
	return k.pick(x, attempt)
}

// calm is the picker of a priority that does not panic.
func (b *balancer) calm(p *priority, x *Context, degraded bool) picker {
	if b.policy.Locality == ByWeight && len(b.set.LocalityWeights) > 0 && !b.hashed {
		if k := b.weighted(p, degraded); k != nil {
			return k
		}
	}
	if p.zones != nil {
		if k, chosen := p.zones.choose(x, degraded); chosen {
			return k
		}
	}
	// Consistent hashing knows no degraded endpoints.
	if degraded && !b.hashed {
		return p.flatDegraded.get(func() picker { return b.flat(p.degraded) })
	}
	return p.flatHealthy.get(func() picker { return b.flat(p.healthy) })
}

func (b *balancer) weighted(p *priority, degraded bool) picker {
	if degraded {
		return p.byDegraded.get(func() picker { return b.byLocality(p.degraded, p.all) })
	}
	return p.byHealthy.get(func() picker { return b.byLocality(p.healthy, p.all) })
}

// health and pickIn implement Balancer.
func (b *balancer) health() []health { return b.state().health }

func (b *balancer) pickIn(x *Context, i int, degraded bool) *endpoint.Endpoint {
	s := b.state()
	if i >= len(s.prios) {
		return nil
	}
	h := x.Hash
	if !b.hashed || !x.HasHash {
		h = x.random()
	}
	return b.repeat(x, func(attempt int) *endpoint.Endpoint { return b.within(s, x, i, degraded, attempt, h) })
}

func (x *Context) avoids(e *endpoint.Endpoint) bool {
	return slices.Contains(x.Avoid, e) || x.Omit != nil && x.Omit(e)
}

func (x *Context) random() uint64 {
	if x.Random != nil {
		return x.Random()
	}
	return rand.Uint64()
}

// flat is the policy's picker over hosts, nil when there are none.
func (b *balancer) flat(hosts []*endpoint.Endpoint) picker {
	p := b.policy
	switch {
	case len(hosts) == 0:
		return nil
	case b.hashed:
		return b.hashing(hosts)
	case len(hosts) == 1:
		return only{hosts[0]}
	}
	switch p.Kind {
	case LeastRequest:
		return newLeastRequest(p, hosts)
	case Random:
		return random(hosts)
	default:
		return newRoundRobin(p, hosts)
	}
}

type only struct{ e *endpoint.Endpoint }

func (o only) pick(*Context, int) *endpoint.Endpoint { return o.e }

// random chooses uniformly: Envoy's RANDOM knows no weights.
type random []*endpoint.Endpoint

func (r random) pick(x *Context, _ int) *endpoint.Endpoint { return r[x.random()%uint64(len(r))] }
