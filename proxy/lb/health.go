package lb

import "github.com/lateen-mesh/lateen/proxy/endpoint"

// health is what the endpoints of one priority can carry.
type health struct {
	all, healthy, degraded, excluded int
	healthyShare, degradedShare      uint32 // percent, with over-provisioning, at most 100
}

// measure counts endpoints, or their weights, of one priority.
func measure(m *members, factor uint32, weighted bool) health {
	h := health{all: len(m.all), healthy: len(m.healthy), degraded: len(m.degraded)}
	for _, e := range m.all {
		if !e.Counts() {
			h.excluded++
		}
	}
	total, good, worse := uint64(h.all-h.excluded), uint64(h.healthy), uint64(h.degraded)
	if weighted {
		total, good, worse = weigh(m.all, (*endpoint.Endpoint).Counts), weigh(m.healthy, nil), weigh(m.degraded, nil)
	}
	if total > 0 {
		h.healthyShare = uint32(min(100, uint64(factor)*good/total))
		h.degradedShare = uint32(min(100, uint64(factor)*worse/total))
	}
	return h
}

func weigh(list []*endpoint.Endpoint, counts func(*endpoint.Endpoint) bool) uint64 {
	var sum uint64
	for _, e := range list {
		if counts == nil || counts(e) {
			sum += uint64(e.Weight.Load())
		}
	}
	return sum
}

// available is what all priorities without those of a mask can carry, at most 100.
func available(list []health, without uint64) uint32 {
	var sum uint32
	for i := range list {
		if !masked(without, i) {
			sum = min(100, sum+list[i].healthyShare+list[i].degradedShare)
		}
	}
	return sum
}

func masked(mask uint64, i int) bool { return i < 64 && mask&(1<<i) != 0 }

// weak reports that too few endpoints of the priority can take traffic.
func (h *health) weak(threshold uint32) bool {
	counted := h.all - h.excluded
	percent := 0
	if counted > 0 {
		percent = 100*h.healthy/counted + 100*h.degraded/counted
	}
	return percent < int(min(threshold, 100))
}

// A load is how 100 % of the traffic fall on priorities: on their healthy and on their
// degraded endpoints.
type load struct{ healthy, degraded []uint32 }

// loads distributes the traffic as Envoy does: each priority takes what its available
// endpoints can carry, healthy ones of all priorities before degraded ones. Too little in
// total makes weak priorities panic; when all do, the number of endpoints decides.
func loads(list []health, threshold uint32) (l load, panics []bool) {
	l, panics = load{make([]uint32, len(list)), make([]uint32, len(list))}, make([]bool, len(list))
	if len(list) == 0 {
		return l, panics
	}
	sum := available(list, 0)
	if threshold == 0 && sum == 0 { // nobody, and no panic: the first one finds nobody
		l.healthy[0] = 100
		return l, panics
	}
	all := true
	for i := range list {
		panics[i] = sum < 100 && list[i].weak(threshold)
		all = all && panics[i]
	}
	if all {
		l.byNumber(list)
		return l, panics
	}
	l.distribute(list, 0, sum)
	return l, panics
}

// without are the loads when some priorities are left out, false when nothing would be left.
func without(list []health, mask uint64) (load, bool) {
	sum := available(list, mask)
	if sum == 0 {
		return load{}, false
	}
	l := load{make([]uint32, len(list)), make([]uint32, len(list))}
	l.distribute(list, mask, sum)
	return l, true
}

func (l *load) distribute(list []health, mask uint64, sum uint32) {
	if sum == 0 {
		return
	}
	left, first := uint32(100), (*uint32)(nil)
	take := func(to *uint32, share uint32) {
		*to = min(left, share*100/sum)
		left -= *to
		if first == nil && share > 0 {
			first = to
		}
	}
	for i := range list {
		if !masked(mask, i) {
			take(&l.healthy[i], list[i].healthyShare)
		}
	}
	for i := range list {
		if !masked(mask, i) {
			take(&l.degraded[i], list[i].degradedShare)
		}
	}
	if first != nil {
		*first += left // what rounding left over
	}
}

// byNumber is the load when every priority panics.
func (l *load) byNumber(list []health) {
	total, left, first := 0, uint32(100), -1
	for i := range list {
		total += list[i].all
	}
	if total == 0 {
		return
	}
	for i := range list {
		l.healthy[i] = uint32(100 * list[i].all / total)
		left -= l.healthy[i]
		if first < 0 && list[i].all > 0 {
			first = i
		}
	}
	l.healthy[first] += left
}

// choose finds the priority for a number; ok is false when nothing has any load.
func (l *load) choose(n uint64) (priority int, degraded, ok bool) {
	at, upTo := uint32(n%100), uint32(0)
	for i, share := range l.healthy {
		if upTo += share; at < upTo {
			return i, false, true
		}
	}
	for i, share := range l.degraded {
		if upTo += share; at < upTo {
			return i, true, true
		}
	}
	return 0, false, false
}
