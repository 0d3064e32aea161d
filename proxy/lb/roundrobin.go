package lb

import (
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// roundRobin takes endpoints of equal weight in turn, beginning anywhere so that many
// proxies do not begin at the same one.
type roundRobin struct {
	hosts []*endpoint.Endpoint
	next  atomic.Uint64
}

func newRoundRobin(p Policy, hosts []*endpoint.Endpoint) picker {
	if !equalWeights(hosts) || p.SlowStart.any(hosts) {
		return weighted{newSchedule(hosts, func(_ int, e *endpoint.Endpoint) float64 {
			return p.SlowStart.apply(float64(e.Weight.Load()), e)
		})}
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
		if e.Weight.Load() != hosts[0].Weight.Load() {
			return false
		}
	}
	return true
}

// any reports that one of the hosts is still new.
func (s *SlowStart) any(hosts []*endpoint.Endpoint) bool {
	if s.Window == 0 {
		return false
	}
	now := time.Now().UnixNano()
	for _, e := range hosts {
		if now-e.HealthySince.Load() < int64(s.Window) {
			return true
		}
	}
	return false
}

// apply lessens the weight of an endpoint that is still new.
func (s *SlowStart) apply(weight float64, e *endpoint.Endpoint) float64 {
	if s.Window == 0 {
		return weight
	}
	age := time.Duration(time.Now().UnixNano() - e.HealthySince.Load())
	if age >= s.Window {
		return weight
	}
	part := float64(max(age, time.Millisecond)) / float64(s.Window)
	if s.Aggression > 0 && s.Aggression != 1 {
		part = math.Pow(part, 1/s.Aggression)
	}
	return weight * max(part, s.Least)
}

// leastRequest compares a few random endpoints of equal weight, or all of them, and
// takes the least busy.
type leastRequest struct {
	hosts   []*endpoint.Endpoint
	choices int
}

func newLeastRequest(p Policy, hosts []*endpoint.Endpoint) picker {
	if equalWeights(hosts) && !p.SlowStart.any(hosts) {
		if p.FullScan {
			return fullScan(hosts)
		}
		return &leastRequest{hosts: hosts, choices: int(max(p.Choices, 2))}
	}
	bias := p.ActiveBias
	if bias == 0 {
		bias = 1
	}
	return weighted{newSchedule(hosts, func(_ int, e *endpoint.Endpoint) float64 {
		w := float64(e.Weight.Load()) / math.Pow(float64(max(e.Active.Load(), 0)+1), bias)
		return p.SlowStart.apply(w, e)
	})}
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

// fullScan takes one of the least busy at random.
type fullScan []*endpoint.Endpoint

func (f fullScan) pick(x *Context, _ int) *endpoint.Endpoint {
	best, least, ties := f[0], f[0].Active.Load(), uint64(1)
	for _, e := range f[1:] {
		switch n := e.Active.Load(); {
		case n < least:
			best, least, ties = e, n, 1
		case n == least:
			if ties++; x.random()%ties == 0 {
				best = e
			}
		}
	}
	return best
}

// weighted is a schedule of endpoints.
type weighted struct{ order *schedule[*endpoint.Endpoint] }

func (w weighted) pick(*Context, int) *endpoint.Endpoint { return w.order.next() }

// schedule takes things of unequal weight earliest deadline first: the deadline of one
// moves on by the inverse of its weight at the time it is taken.
type schedule[T any] struct {
	weight func(i int, v T) float64

	mu    sync.Mutex
	heap  []entry[T]
	order uint64
}

type entry[T any] struct {
	deadline float64
	order    uint64 // first come first served among equals
	i        int
	v        T
}

func newSchedule[T any](list []T, weight func(int, T) float64) *schedule[T] {
	s := &schedule[T]{weight: weight}
	for i, v := range list {
		s.order++
		s.heap = append(s.heap, entry[T]{1 / weight(i, v), s.order, i, v})
	}
	for i := len(s.heap)/2 - 1; i >= 0; i-- {
		s.down(i)
	}
	for range rand.IntN(len(list)) { // begin at a random point of the cycle
		s.next()
	}
	return s
}

func (s *schedule[T]) next() T {
	s.mu.Lock()
	defer s.mu.Unlock()
	top := &s.heap[0]
	v := top.v
	s.order++
	top.deadline, top.order = top.deadline+1/s.weight(top.i, v), s.order
	s.down(0)
	return v
}

func (s *schedule[T]) less(i, j int) bool {
	a, b := &s.heap[i], &s.heap[j]
	return a.deadline < b.deadline || a.deadline == b.deadline && a.order < b.order
}

func (s *schedule[T]) down(i int) {
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
