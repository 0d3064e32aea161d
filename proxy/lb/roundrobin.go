package lb

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// roundRobin takes endpoints of equal weight in turn, beginning anywhere so that many
// proxies do not begin at the same one.
type roundRobin struct {
	hosts []*endpoint.Endpoint
	next  atomic.Uint64
}

func newRoundRobin(hosts []*endpoint.Endpoint) picker {
	if !equalWeights(hosts) {
		return newSchedule(hosts, func(e *endpoint.Endpoint) float64 { return float64(e.Weight) })
	}
	r := &roundRobin{hosts: hosts}
	r.next.Store(rand.Uint64N(uint64(len(hosts))))
	return r
}

func (r *roundRobin) pick(*Context, int) *endpoint.Endpoint {
	return r.hosts[r.next.Add(1)%uint64(len(r.hosts))]
}

func equalWeights(hosts []*endpoint.Endpoint) bool {
	for _, e := range hosts {
		if e.Weight != hosts[0].Weight {
			return false
		}
	}
	return true
}

// leastRequest compares a few random endpoints of equal weight and takes the least busy.
type leastRequest struct {
	hosts   []*endpoint.Endpoint
	choices int
}

func newLeastRequest(p Policy, hosts []*endpoint.Endpoint) picker {
	if !equalWeights(hosts) {
		bias := p.ActiveBias
		if bias == 0 {
			bias = 1
		}
		return newSchedule(hosts, func(e *endpoint.Endpoint) float64 {
			return float64(e.Weight) / math.Pow(float64(max(e.Active.Load(), 0)+1), bias)
		})
	}
	return &leastRequest{hosts: hosts, choices: int(max(p.Choices, 2))}
}

func (l *leastRequest) pick(x *Context, _ int) *endpoint.Endpoint {
	best := l.hosts[x.random()%uint64(len(l.hosts))]
	for i := 1; i < l.choices; i++ {
		if e := l.hosts[x.random()%uint64(len(l.hosts))]; e.Active.Load() < best.Active.Load() {
			best = e
		}
	}
	return best
}

// schedule takes endpoints of unequal weight earliest deadline first: the deadline of
// an endpoint moves on by the inverse of its weight at the time it is taken.
type schedule struct {
	mu     sync.Mutex
	weight func(*endpoint.Endpoint) float64
	heap   []entry
	order  uint64
}

type entry struct {
	deadline float64
	order    uint64 // first come first served among equals
	e        *endpoint.Endpoint
}

func newSchedule(hosts []*endpoint.Endpoint, weight func(*endpoint.Endpoint) float64) *schedule {
	s := &schedule{weight: weight}
	for _, e := range hosts {
		s.order++
		s.heap = append(s.heap, entry{1 / weight(e), s.order, e})
	}
	for i := len(s.heap)/2 - 1; i >= 0; i-- {
		s.down(i)
	}
	// Begin at a random point of the cycle.
	for range rand.IntN(len(hosts)) {
		s.pick(nil, 0)
	}
	return s
}

func (s *schedule) pick(*Context, int) *endpoint.Endpoint {
	s.mu.Lock()
	defer s.mu.Unlock()
	top := &s.heap[0]
	e := top.e
	s.order++
	top.deadline, top.order = top.deadline+1/s.weight(e), s.order
	s.down(0)
	return e
}

func (s *schedule) less(i, j int) bool {
	a, b := &s.heap[i], &s.heap[j]
	return a.deadline < b.deadline || a.deadline == b.deadline && a.order < b.order
}

func (s *schedule) down(i int) {
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(s.heap); child++ {
			if s.less(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		s.heap[i], s.heap[least] = s.heap[least], s.heap[i]
		i = least
	}
}
