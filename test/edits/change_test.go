package edits

import (
	"math/rand/v2"
	"slices"
)

// A change is one kind of valid edit. It reports false where there is nothing to change.
type change struct {
	name string
	make func(*rand.Rand, *config) bool
}

// changes are what users do; each leaves a valid configuration.
var changes = []change{
	{"destinations of a route", func(r *rand.Rand, c *config) bool {
		at := c.anyRoute(r)
		at.to = c.destinations(r)
		return true
	}},
	{"subsets renamed", func(r *rand.Rand, c *config) bool {
		s := pick(r, c.services)
		for i := range s.subsets {
			s.subsets[i].name = c.name("sub")
		}
		return len(s.subsets) > 0
	}},
	{"a subset more, and a route to it", func(r *rand.Rand, c *config) bool {
		s := pick(r, c.services)
		if len(s.subsets) >= 6 {
			return false
		}
		s.subsets = append(s.subsets, subset{c.name("sub"), pick(r, versions)})
		c.anyRoute(r).to = []destination{{s.id, len(s.subsets) - 1}}
		return true
	}},
	{"a subset less, and no route to it", func(r *rand.Rand, c *config) bool {
		s := pick(r, c.services)
		if len(s.subsets) == 0 {
			return false
		}
		gone := r.IntN(len(s.subsets))
		s.subsets = slices.Delete(s.subsets, gone, gone+1)
		c.retarget(func(d *destination) {
			if d.service != s.id {
				return
			}
			if d.subset == gone {
				d.subset = r.IntN(len(s.subsets)+1) - 1
			} else if d.subset > gone {
				d.subset--
			}
		})
		return true
	}},
	{"the rule goes, and the subsets", func(r *rand.Rand, c *config) bool {
		s := pick(r, c.services)
		had := len(s.subsets) > 0
		s.subsets = nil
		c.retarget(func(d *destination) {
			if d.service == s.id {
				d.subset = -1
			}
		})
		return had
	}},
	{"what subsets select", func(r *rand.Rand, c *config) bool {
		s := pick(r, c.services)
		for i := range s.subsets {
			s.subsets[i].version = pick(r, versions)
		}
		return len(s.subsets) > 0
	}},
	{"endpoints", func(r *rand.Rand, c *config) bool {
		pick(r, c.services).endpoints = endpoints(r)
		return true
	}},
	{"how connections are used", func(r *rand.Rand, c *config) bool {
		s := pick(r, c.services)
		s.policy++
		return len(s.subsets) > 0
	}},
	{"how addresses are found", func(r *rand.Rand, c *config) bool {
		s := pick(r, c.services)
		s.dns = !s.dns
		return true
	}},
	{"a service's host renamed", func(r *rand.Rand, c *config) bool {
		pick(r, c.services).host = c.name("svc") + ".test"
		return true
	}},
	{"a service's objects renamed", func(r *rand.Rand, c *config) bool {
		pick(r, c.services).object = c.name("o")
		return true
	}},
	{"a service more, and a route to it", func(r *rand.Rand, c *config) bool {
		if len(c.services) >= 6 {
			return false
		}
		s := c.newService(r)
		c.anyRoute(r).to = []destination{{s.id, len(s.subsets) - 1}}
		return true
	}},
	{"a service less, and no route to it", func(r *rand.Rand, c *config) bool {
		if len(c.services) <= 2 {
			return false
		}
		i := r.IntN(len(c.services))
		gone := c.services[i].id
		c.services = slices.Delete(c.services, i, i+1)
		c.sites = slices.DeleteFunc(c.sites, func(v *site) bool { return v.host == "" && v.inMesh == gone })
		c.retarget(func(d *destination) {
			if d.service == gone {
				s := pick(r, c.services)
				*d = destination{s.id, len(s.subsets) - 1}
			}
		})
		if len(c.sites) == 0 {
			c.newSite(r)
		}
		return true
	}},
	{"the endpoints of two services exchanged", func(r *rand.Rand, c *config) bool {
		a, b := pick(r, c.services), pick(r, c.services)
		a.endpoints, b.endpoints = b.endpoints, a.endpoints
		return a != b
	}},
	{"the hosts of two services exchanged", func(r *rand.Rand, c *config) bool {
		a, b := pick(r, c.services), pick(r, c.services)
		a.host, b.host = b.host, a.host
		return a != b
	}},
	{"routes moved to another object", func(r *rand.Rand, c *config) bool {
		pick(r, c.sites).object = c.name("o")
		return true
	}},
	{"a site more", func(r *rand.Rand, c *config) bool {
		if len(c.sites) >= 6 {
			return false
		}
		c.newSite(r)
		return true
	}},
	{"a site less", func(r *rand.Rand, c *config) bool {
		if len(c.sites) <= 2 {
			return false
		}
		i := r.IntN(len(c.sites))
		c.sites = slices.Delete(c.sites, i, i+1)
		return true
	}},
	{"a site's host renamed", func(r *rand.Rand, c *config) bool {
		v := pick(r, c.sites)
		if v.host != "" {
			v.host = c.name("site") + ".test"
		}
		return v.host != ""
	}},
	{"routes within the mesh for a service", func(r *rand.Rand, c *config) bool {
		s := pick(r, c.services)
		if slices.ContainsFunc(c.sites, func(v *site) bool { return v.host == "" && v.inMesh == s.id }) {
			return false
		}
		c.sites = append(c.sites, &site{inMesh: s.id, object: c.name("o"), routes: c.routes(r)})
		return true
	}},
	{"other routes", func(r *rand.Rand, c *config) bool {
		pick(r, c.sites).routes = c.routes(r)
		return true
	}},
	{"a port of the gateway", func(_ *rand.Rand, c *config) bool { c.more = !c.more; return true }},
	{"hosts of the gateway", func(_ *rand.Rand, c *config) bool { c.listed = !c.listed; return true }},
}

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

// backendCount is how many backends there are.
const backendCount = 6

// endpoints are some of each version, each backend at most once.
func endpoints(r *rand.Rand) (list []endpoint) {
	for i, b := range r.Perm(backendCount)[:len(versions)+r.IntN(backendCount-len(versions)+1)] {
		version := pick(r, versions)
		if i < len(versions) {
			version = versions[i]
		}
		list = append(list, endpoint{b, version})
	}
	return list
}

func (c *config) newService(r *rand.Rand) *service {
	c.fresh++
	s := &service{id: c.fresh, host: c.name("svc") + ".test", object: c.name("o"), endpoints: endpoints(r)}
	for range r.IntN(4) {
		s.subsets = append(s.subsets, subset{c.name("sub"), pick(r, versions)})
	}
	c.services = append(c.services, s)
	return s
}

func (c *config) newSite(r *rand.Rand) {
	c.sites = append(c.sites, &site{host: c.name("site") + ".test", object: c.name("o"), routes: c.routes(r)})
}

func (c *config) routes(r *rand.Rand) (list []route) {
	for _, prefix := range []string{"/a", "/b", "/c"}[:1+r.IntN(3)] {
		list = append(list, route{prefix, c.destinations(r)})
	}
	return append(list, route{"/", c.destinations(r)})
}

// destinations are one or two.
func (c *config) destinations(r *rand.Rand) (to []destination) {
	for range 1 + r.IntN(2) {
		s := pick(r, c.services)
		d := destination{s.id, r.IntN(len(s.subsets)+1) - 1}
		if !slices.Contains(to, d) {
			to = append(to, d)
		}
	}
	return to
}

func (c *config) anyRoute(r *rand.Rand) *route {
	v := pick(r, c.sites)
	return &v.routes[r.IntN(len(v.routes))]
}

func (c *config) retarget(f func(*destination)) {
	for _, v := range c.sites {
		for i := range v.routes {
			for j := range v.routes[i].to {
				f(&v.routes[i].to[j])
			}
		}
	}
}
