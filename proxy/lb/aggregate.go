package lb

import "github.com/lateen-mesh/lateen/proxy/endpoint"

// NewAggregate returns a Balancer over others, whose priorities follow each other: those of
// the first, then those of the second. How far one spills over into the next is decided
// over all of them, the endpoint by the part that owns the priority.
func NewAggregate(panicThreshold uint32, parts []Balancer) Balancer {
	a := &aggregate{}
	for _, p := range parts {
		for i, h := range p.health() {
			if h.all == 0 {
				continue
			}
			a.list = append(a.list, h)
			a.owners = append(a.owners, owner{p, i})
		}
	}
	a.load, _ = loads(a.list, panicThreshold)
	return a
}

type aggregate struct {
	list   []health
	owners []owner
	load   load
}

// owner is whose a priority is.
type owner struct {
	part     Balancer
	priority int
}

// Pick implements Balancer.
func (a *aggregate) Pick(x *Context) *endpoint.Endpoint {
	l := &a.load
	if x.Without != 0 {
		if less, ok := without(a.list, x.Without); ok {
			l = &less
		}
	}
	i, degraded, ok := l.choose(x.random())
	if !ok {
		return nil
	}
	e := a.pickIn(x, i, degraded)
	x.Priority = i
	return e
}

func (a *aggregate) health() []health { return a.list }

func (a *aggregate) pickIn(x *Context, i int, degraded bool) *endpoint.Endpoint {
	if i >= len(a.owners) {
		return nil
	}
	o := a.owners[i]
	return o.part.pickIn(x, o.priority, degraded)
}
