package lb

import (
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// zones is zone aware routing: as much traffic stays in the proxy's own locality as its
// endpoints there are of all, compared with the proxies there, and the rest goes where
// others have too few of them.
type zones struct {
	policy Policy
	stats  *Stats
	// localFails: the proxies' own cluster is not healthy enough to compare with.
	localFails bool
	direct     bool    // everything stays
	sampled    uint64  // part that stays, of 10,000
	residual   []int64 // what each locality can take of the rest, summed up

	healthy, degraded []group // the own locality first
}

// group is a locality with its picker.
type group struct {
	hosts  []*endpoint.Endpoint
	picker *lazy
	build  func([]*endpoint.Endpoint) picker
}

func (g *group) get() picker { return g.picker.get(func() picker { return g.build(g.hosts) }) }

// newZones is nil where there is nothing to choose.
func newZones(p Policy, s *Set, h *members) *zones {
	if len(s.Local) == 0 || p.Zone.Enabled == 0 {
		return nil
	}
	z := &zones{policy: p, stats: s.Stats}
	flat := (&balancer{policy: p, set: *s}).flat
	order := localitiesOf(h.all, s.Here)
	z.healthy, z.degraded = groups(order, h.healthy, flat), groups(order, h.degraded, flat)
	healthyLocal, locals := splitLocal(s)
	z.localFails = weakLocal(s)
	s.Stats.count(func(s *Stats) *stats.Counter { return s.recalculated })
	switch {
	case len(order) < 2:
		return nil
	case locals[s.Here] == 0:
		s.Stats.count(func(s *Stats) *stats.Counter { return s.localNotOK })
		return nil
	case uint64(len(h.healthy)) < p.Zone.MinSize:
		s.Stats.count(func(s *Stats) *stats.Counter { return s.zoneTooSmall })
		return nil
	}
	z.compare(order, locals, healthyLocal, s.Here)
	return z
}

// localitiesOf lists the localities of hosts, here first if it is among them.
func localitiesOf(list []*endpoint.Endpoint, here endpoint.Locality) (order []endpoint.Locality) {
	seen := map[endpoint.Locality]bool{}
	for _, e := range list {
		if !seen[e.Locality] {
			seen[e.Locality] = true
			if e.Locality == here {
				order = append([]endpoint.Locality{here}, order...)
			} else {
				order = append(order, e.Locality)
			}
		}
	}
	return order
}

func groups(order []endpoint.Locality, list []*endpoint.Endpoint, build func([]*endpoint.Endpoint) picker) []group {
	out := make([]group, len(order))
	for i := range out {
		out[i] = group{picker: new(lazy), build: build}
	}
	for _, e := range list {
		for i, l := range order {
			if l == e.Locality {
				out[i].hosts = append(out[i].hosts, e)
			}
		}
	}
	return out
}

// splitLocal counts the healthy proxies of each locality, and of all.
func splitLocal(s *Set) (total float64, by map[endpoint.Locality]float64) {
	by = map[endpoint.Locality]float64{}
	for _, e := range s.Local {
		if e.Priority.Load() == 0 && e.State() == endpoint.Healthy {
			by[e.Locality]++
			total++
		}
	}
	return total, by
}

// weakLocal reports that the proxies' own cluster panics.
func weakLocal(s *Set) bool {
	var own []*endpoint.Endpoint
	for _, e := range s.Local {
		if e.Priority.Load() == 0 {
			own = append(own, e)
		}
	}
	prios := byPriority(own)
	if len(prios) == 0 {
		return true
	}
	h := measure(&prios[0].members, s.factor(), false)
	return h.weak(s.PanicThreshold)
}

// compare finds how much stays and where the rest can go.
func (z *zones) compare(order []endpoint.Locality, locals map[endpoint.Locality]float64, localTotal float64, here endpoint.Locality) {
	var total float64
	sizes := make([]float64, len(order))
	for i := range z.healthy {
		for _, e := range z.healthy[i].hosts {
			if z.policy.Zone.ByWeight {
				sizes[i] += float64(e.Weight.Load())
			} else {
				sizes[i]++
			}
		}
		total += sizes[i]
	}
	percent := func(n, of float64) int64 {
		if of == 0 {
			return 0
		}
		return int64(10000 * n / of)
	}
	own := order[0] == here
	up, down := percent(sizes[0], total), percent(locals[here], localTotal)
	if own && up > 0 && (up >= down || z.policy.Zone.Direct && uint64(len(z.healthy[0].hosts)) >= z.policy.Zone.DirectSize) {
		z.direct = true
		return
	}
	if own && down > 0 {
		z.sampled = uint64(up * 10000 / down)
	}
	z.residual = make([]int64, len(order))
	var sum int64
	for i, l := range order {
		if !own || i > 0 {
			sum += max(0, percent(sizes[i], total)-percent(locals[l], localTotal))
		}
		z.residual[i] = sum
	}
}

// choose is the picker of the chosen locality; chosen is false when this pick does not
// look at zones.
func (z *zones) choose(x *Context, degraded bool) (k picker, chosen bool) {
	if p := z.policy.Zone.Enabled; p < 100 && float64(x.random()%10000) >= p*100 {
		return nil, false
	}
	if z.localFails {
		z.stats.count(func(s *Stats) *stats.Counter { return s.localNotOK })
		return nil, z.policy.Zone.FailOnPanic
	}
	list := z.healthy
	if degraded {
		list = z.degraded
	}
	return list[z.which(x)].get(), true
}

func (z *zones) which(x *Context) int {
	if z.direct {
		z.stats.count(func(s *Stats) *stats.Counter { return s.zoneDirect })
		return 0
	}
	if x.random()%10000 < z.sampled {
		z.stats.count(func(s *Stats) *stats.Counter { return s.zoneSampled })
		return 0
	}
	z.stats.count(func(s *Stats) *stats.Counter { return s.zoneCross })
	n := len(z.residual)
	if z.residual[n-1] == 0 { // rounding left no room anywhere
		z.stats.count(func(s *Stats) *stats.Counter { return s.zoneNoCapacity })
		return int(x.random() % uint64(n))
	}
	threshold := int64(x.random() % uint64(z.residual[n-1]))
	i := 0
	for threshold >= z.residual[i] {
		i++
	}
	return i
}
