package lb

import "github.com/lateen-mesh/lateen/proxy/endpoint"

// localities chooses a locality by weight, then an endpoint of it by the policy.
type localities struct {
	parts []part
	total uint64
}

// byLocality makes the picker of one share. A locality's weight shrinks with its
// availability once over-provisioning no longer covers what is missing.
func (p Policy) byLocality(hosts []*endpoint.Endpoint, s *Set, all []*endpoint.Endpoint) picker {
	order, groups := byKey(hosts)
	_, whole := byKey(all)
	factor := uint64(s.OverProvisioning)
	if factor == 0 {
		factor = 140
	}
	l := &localities{}
	for _, key := range order {
		weight := uint64(s.LocalityWeights[key]) * ability(len(groups[key]), len(whole[key]), factor)
		if weight == 0 {
			continue
		}
		l.total += weight
		l.parts = append(l.parts, part{upTo: l.total, picker: p.flat(groups[key])})
	}
	if len(l.parts) == 0 {
		return nil
	}
	return l
}

func byKey(hosts []*endpoint.Endpoint) (order []LocalityKey, groups map[LocalityKey][]*endpoint.Endpoint) {
	groups = map[LocalityKey][]*endpoint.Endpoint{}
	for _, e := range hosts {
		key := LocalityKey{e.Priority, e.Locality}
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], e)
	}
	return order, groups
}

func (l *localities) pick(x *Context, attempt int) *endpoint.Endpoint {
	n := x.random() % l.total
	for i := range l.parts {
		if n < l.parts[i].upTo {
			return l.parts[i].picker.pick(x, attempt)
		}
	}
	return l.parts[len(l.parts)-1].picker.pick(x, attempt)
}
