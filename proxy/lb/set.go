package lb

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// A Policy says how an endpoint of a group is chosen.
type Policy struct {
	Kind Kind
	// Choices is how many endpoints least request compares, 2 by default.
	Choices uint32
	// ActiveBias is least request's active_request_bias for unequal weights, 1 by default.
	ActiveBias float64
	// MinRing and MaxRing bound the ring of ring hash: 1024 and 8 Mi by default.
	MinRing, MaxRing uint64
	// Table is Maglev's table size, a prime, 65537 by default.
	Table uint64
	// HashHostname hashes the host name instead of the address (use_hostname_for_hashing).
	HashHostname bool
}

// A Kind is a load balancing policy.
type Kind uint8

// The policies.
const (
	RoundRobin Kind = iota
	LeastRequest
	Random
	RingHash
	Maglev
)

// A Set is what a Balancer chooses among.
type Set struct {
	Endpoints []*endpoint.Endpoint // of all priorities and localities
	// LocalityWeights are in force when not nil (locality_weighted_lb_config); a
	// locality without weight gets no traffic.
	LocalityWeights map[LocalityKey]uint32
	// PanicThreshold is the percentage of available endpoints below which all are used
	// (healthy_panic_threshold); 0 is never.
	PanicThreshold uint32
	// OverProvisioning is in percent, 140 by default.
	OverProvisioning uint32
}

// A LocalityKey is a locality at a priority.
type LocalityKey struct {
	Priority uint32
	Locality endpoint.Locality
}

// New returns a Balancer over what the set is now.
func New(p Policy, s Set) Balancer { return newBalancer(p, s) }

func newBalancer(p Policy, s Set) *balancer {
	b := &balancer{policy: p, set: s, hashed: p.Kind == RingHash || p.Kind == Maglev}
	prios := priorities(&s)
	for _, share := range shares(prios, &s) {
		group := share.hosts(&prios[share.priority])
		b.add(share.load, p.group(group, &s, prios[share.priority].all))
	}
	return b
}

// balancer is the top of the choice: which priority, and whether its healthy,
// degraded or all endpoints.
type balancer struct {
	policy Policy
	set    Set
	parts  []part
	total  uint64
	hashed bool

	mu   sync.Mutex
	less map[uint64]*balancer // by the priorities that are left out, made on first use
}

type part struct {
	upTo   uint64
	picker picker
}

// A picker chooses within one group. It never returns nil.
type picker interface {
	pick(x *Context, attempt int) *endpoint.Endpoint
}

func (b *balancer) add(load uint64, p picker) {
	if load == 0 || p == nil {
		return
	}
	b.total += load
	b.parts = append(b.parts, part{upTo: b.total, picker: p})
}

// Pick implements Balancer. An endpoint to be avoided is asked for again, as often
// as the context allows.
func (b *balancer) Pick(x *Context) *endpoint.Endpoint {
	if x.Without != 0 {
		b = b.without(x.Without)
	}
	if len(b.parts) == 0 {
		return nil
	}
	attempts := max(1, x.Attempts)
	for i := 0; ; i++ {
		e := b.part(x).pick(x, i)
		if i+1 >= attempts || !x.avoids(e) {
			return e
		}
	}
}

// maxLess bounds the balancers that are kept without some priorities.
const maxLess = 64

// without is the balancer that leaves out priorities; b itself when none would be left.
func (b *balancer) without(priorities uint64) *balancer {
	b.mu.Lock()
	defer b.mu.Unlock()
	if l := b.less[priorities]; l != nil {
		return l
	}
	s := b.set
	s.Endpoints = nil
	for _, e := range b.set.Endpoints {
		if e.Priority >= 64 || priorities&(1<<e.Priority) == 0 {
			s.Endpoints = append(s.Endpoints, e)
		}
	}
	l := newBalancer(b.policy, s)
	if len(l.parts) == 0 {
		l = b
	}
	if b.less == nil || len(b.less) >= maxLess {
		b.less = map[uint64]*balancer{}
	}
	b.less[priorities] = l
	return l
}

func (b *balancer) part(x *Context) picker {
	if len(b.parts) == 1 {
		return b.parts[0].picker
	}
	n := x.Hash
	if !b.hashed || !x.HasHash {
		n = x.random()
	}
	n %= b.total
	for i := range b.parts {
		if n < b.parts[i].upTo {
			return b.parts[i].picker
		}
	}
	return b.parts[len(b.parts)-1].picker
}

func (x *Context) avoids(e *endpoint.Endpoint) bool {
	return slices.Contains(x.Avoid, e)
}

func (x *Context) random() uint64 {
	if x.Random != nil {
		return x.Random()
	}
	return rand.Uint64()
}

// priority is the endpoints of one priority by their state.
type priority struct {
	all, healthy, degraded []*endpoint.Endpoint
}

func priorities(s *Set) []priority {
	var list []priority
	for _, e := range s.Endpoints {
		for int(e.Priority) >= len(list) {
			list = append(list, priority{})
		}
		p := &list[e.Priority]
		p.all = append(p.all, e)
		switch e.Unhealthy.Load() {
		case 0:
			p.healthy = append(p.healthy, e)
		case endpoint.Degraded:
			p.degraded = append(p.degraded, e)
		}
	}
	return list
}

// A share is a part of the traffic, in percent, for one state of one priority.
type share struct {
	priority int
	load     uint64
	hosts    func(*priority) []*endpoint.Endpoint
}

func healthyHosts(p *priority) []*endpoint.Endpoint  { return p.healthy }
func degradedHosts(p *priority) []*endpoint.Endpoint { return p.degraded }
func allHosts(p *priority) []*endpoint.Endpoint      { return p.all }

// shares distributes 100 % as Envoy does: each priority takes what its available
// endpoints can carry with over-provisioning, healthy ones of all priorities before
// degraded ones; too little in total makes weak priorities panic.
func shares(prios []priority, s *Set) []share {
	factor := uint64(s.OverProvisioning)
	if factor == 0 {
		factor = 140
	}
	var available uint64
	for i := range prios {
		p := &prios[i]
		available += ability(len(p.healthy), len(p.all), factor) + ability(len(p.degraded), len(p.all), factor)
	}
	available = min(100, available)
	panics := make([]bool, len(prios))
	calm := available == 100
	for i := range prios {
		panics[i] = available < 100 && prios[i].weak(s.PanicThreshold)
		calm = calm || !panics[i]
	}
	if !calm {
		return panicShares(prios)
	}
	return calmShares(prios, panics, available, factor)
}

// calmShares also holds priorities that panic alone: they get their share, over all
// of their endpoints.
func calmShares(prios []priority, panics []bool, available, factor uint64) []share {
	if available == 0 {
		return nil
	}
	var list []share
	left := uint64(100)
	take := func(i, n int, hosts func(*priority) []*endpoint.Endpoint) {
		load := min(left, ability(n, len(prios[i].all), factor)*100/available)
		left -= load
		if panics[i] {
			hosts = allHosts
		}
		if load > 0 {
			list = append(list, share{i, load, hosts})
		}
	}
	for i := range prios {
		take(i, len(prios[i].healthy), healthyHosts)
	}
	for i := range prios {
		take(i, len(prios[i].degraded), degradedHosts)
	}
	if len(list) > 0 {
		list[0].load += left // what rounding left over
	}
	return list
}

// panicShares is for a set in which every priority panics: by number of endpoints.
func panicShares(prios []priority) []share {
	var list []share
	for i := range prios {
		list = append(list, share{i, uint64(len(prios[i].all)), allHosts})
	}
	return list
}

func ability(n, all int, factor uint64) uint64 {
	if all == 0 {
		return 0
	}
	return min(100, factor*uint64(n)/uint64(all))
}

func (p *priority) weak(threshold uint32) bool {
	percent := 0
	if len(p.all) > 0 {
		percent = 100 * (len(p.healthy) + len(p.degraded)) / len(p.all)
	}
	return percent < int(min(threshold, 100))
}

// group makes the picker of one share; all are the priority's endpoints of any state.
func (p Policy) group(hosts []*endpoint.Endpoint, s *Set, all []*endpoint.Endpoint) picker {
	if len(hosts) == 0 {
		return nil
	}
	if s.LocalityWeights == nil {
		return p.flat(hosts)
	}
	return p.byLocality(hosts, s, all)
}

func (p Policy) flat(hosts []*endpoint.Endpoint) picker {
	if len(hosts) == 1 {
		return only{hosts[0]}
	}
	switch p.Kind {
	case LeastRequest:
		return newLeastRequest(p, hosts)
	case Random:
		return random(hosts)
	case RingHash:
		return newRing(p, hosts)
	case Maglev:
		return newMaglev(p, hosts)
	default:
		return newRoundRobin(hosts)
	}
}

type only struct{ e *endpoint.Endpoint }

func (o only) pick(*Context, int) *endpoint.Endpoint { return o.e }

// random chooses uniformly: Envoy's RANDOM knows no weights.
type random []*endpoint.Endpoint

func (r random) pick(x *Context, _ int) *endpoint.Endpoint { return r[x.random()%uint64(len(r))] }

// String names the policy as lb_policy does.
func (k Kind) String() string {
	names := [...]string{"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"}
	if int(k) >= len(names) {
		return fmt.Sprintf("Kind(%d)", k)
	}
	return names[k]
}
