package registry

import (
	"maps"
	"reflect"
	"slices"
)

// A Difference is what tells a Registry from an older one.
type Difference struct {
	// Services reports that more differs than Endpoints says.
	Services bool
	// Endpoints are hosts of services that differ in nothing but the endpoints that proxies
	// are told of by themselves (EDS), sorted.
	Endpoints []string
}

// Since compares the registry with an older one. What both were made from is not looked
// at again.
func (r *Registry) Since(old *Registry) Difference {
	if old == nil || len(r.services) != len(old.services) {
		return Difference{Services: true}
	}
	var d Difference
	for i, s := range r.services {
		before := old.services[i]
		if !(r.copied(s, old, before) || sameService(s, before)) {
			return Difference{Services: true}
		}
		mine, others := r.endpoints[s], old.endpoints[before]
		switch {
		case sameEndpoints(mine, others):
		case s.Resolution != ClientSideLB || s.Headless || !slices.Equal(accounts(mine), accounts(others)):
			return Difference{Services: true} // these endpoints stand in other resources too
		default:
			d.Endpoints = append(d.Endpoints, s.Host)
		}
	}
	slices.Sort(d.Endpoints)
	d.Endpoints = slices.Compact(d.Endpoints)
	return d
}

// copied reports whether two services are the same copy of one that an object has brought.
func (r *Registry) copied(s *Service, old *Registry, before *Service) bool {
	source := r.sources[s]
	return source != nil && source == old.sources[before] && s.AutoAddress == before.AutoAddress &&
		slices.Equal(s.Aliases, before.Aliases) && slices.Equal(s.Ports, before.Ports)
}

// sameService reports whether two services are the same, and the objects that they come from
// but for what the registry takes from these.
func sameService(a, b *Service) bool {
	if o, p := a.Origin, b.Origin; o != p && (o.Key != p.Key || !maps.Equal(o.Labels, p.Labels) || !maps.Equal(o.Annotations, p.Annotations)) {
		return false
	}
	x, y := *a, *b
	x.Origin, y.Origin = nil, nil
	return reflect.DeepEqual(x, y)
}

func sameEndpoints(a, b []*Endpoint) bool {
	return slices.EqualFunc(a, b, func(x, y *Endpoint) bool { return x == y || reflect.DeepEqual(*x, *y) })
}

// accounts are the identities by which endpoints are known, and whether they have a proxy
// that can prove it, sorted.
func accounts(endpoints []*Endpoint) []string {
	var all []string
	for _, e := range endpoints {
		all = append(all, e.ServiceAccount+" "+e.TLSMode)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
