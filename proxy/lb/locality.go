package lb

import "github.com/lateen-mesh/lateen/proxy/endpoint"

// localities chooses a locality by weight, then an endpoint of it by the policy.
type localities struct {
	order *schedule[picker]
}

// byLocality makes the picker of hosts, some of all those of a priority. A locality's
// weight shrinks with its availability once over-provisioning no longer covers what is
// missing. It is nil when no locality has any weight.
func (b *balancer) byLocality(hosts, all []*endpoint.Endpoint) picker {
	order, groups := byKey(hosts)
	_, whole := byKey(all)
	var weights []float64
	var pickers []picker
	for _, key := range order {
		counted := 0
		for _, e := range whole[key] {
			if e.Counts() {
				counted++
			}
		}
		if counted == 0 {
			continue
		}
		part := min(1, float64(b.set.factor())/100*float64(len(groups[key]))/float64(counted))
		if w := float64(b.set.LocalityWeights[key]) * part; w > 0 {
			weights, pickers = append(weights, w), append(pickers, b.flat(groups[key]))
		}
	}
	if len(pickers) == 0 {
		return nil
	}
	return &localities{newSchedule(pickers, func(i int, _ picker) float64 { return weights[i] })}
}

func byKey(hosts []*endpoint.Endpoint) (order []LocalityKey, groups map[LocalityKey][]*endpoint.Endpoint) {
	groups = map[LocalityKey][]*endpoint.Endpoint{}
	for _, e := range hosts {
		key := LocalityKey{e.Priority.Load(), e.Locality}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], e)
	}
	return order, groups
}

func (l *localities) pick(x *Context, attempt int) *endpoint.Endpoint {
	return l.order.next().pick(x, attempt)
}
