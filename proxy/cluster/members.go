package cluster

import (
	"reflect"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
)

// placed is a member at a resolved address.
type placed struct {
	member  *member
	address string
}

// identity is what makes two members of an assignment the same one.
type identity struct {
	address string
	key     lb.LocalityKey
}

// set replaces the endpoints by list. One that is as it was stays the same, with its
// pools and counts; the others' pools are closed once the new set is in force.
func (c *Cluster) set(list []placed, a *assignment) {
	c.mu.Lock()
	old := c.hosts
	c.hosts = make(map[identity]*host, len(list))
	c.order = c.order[:0:0]
	for _, p := range list {
		id := identity{p.address, p.member.key}
		if c.hosts[id] != nil { // listed twice
			continue
		}
		h := old[id]
		if h != nil && h.is(p.member) {
			h.setHealth(p.member.health)
			delete(old, id)
		} else {
			h = c.newHost(p)
		}
		c.hosts[id] = h
		c.order = append(c.order, h)
	}
	if c.weights = nil; c.config.byLocality {
		c.weights = a.weights
	}
	c.overProvisioning = a.overProvisioning
	c.rebuild()
	c.mu.Unlock()
	for _, h := range old {
		h.close()
	}
}

// is reports that h was made of a member like m.
func (h *host) is(m *member) bool {
	return h.ep.Weight == m.weight && h.ep.Hostname == m.hostname && reflect.DeepEqual(h.ep.Metadata, m.metadata)
}

func (h *host) setHealth(flags uint32) {
	h.ep.Unhealthy.And(^edsHealth)
	h.ep.Unhealthy.Or(flags)
}

func (c *Cluster) newHost(p placed) *host {
	h := &host{cluster: c, ep: &endpoint.Endpoint{
		Address: p.address, Hostname: p.member.hostname, Weight: p.member.weight, Priority: p.member.key.Priority,
		Locality: p.member.key.Locality, Metadata: p.member.metadata,
	}}
	h.ep.Owner = h
	h.ep.Unhealthy.Store(p.member.health)
	h.socket = c.socketFor(p.member.metadata)
	return h
}

// rebuild makes the balancer for what is there now. The caller holds mu.
func (c *Cluster) rebuild() {
	s := lb.Set{LocalityWeights: c.weights, PanicThreshold: c.config.panic, OverProvisioning: c.overProvisioning}
	for _, h := range c.order {
		s.Endpoints = append(s.Endpoints, h.ep)
	}
	b := lb.New(c.config.policy, s)
	c.balancer.Store(&b)
	c.showMembership()
}

// Endpoints are the endpoints as they are now, in the order of the assignment.
func (c *Cluster) Endpoints() []*endpoint.Endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := make([]*endpoint.Endpoint, len(c.order))
	for i, h := range c.order {
		list[i] = h.ep
	}
	return list
}

// showMembership sets the membership gauges, once the cluster has stats. The caller
// holds mu.
func (c *Cluster) showMembership() {
	m := c.membership
	if m == nil {
		return
	}
	var healthy, degraded int64
	for _, h := range c.order {
		switch h.ep.Unhealthy.Load() {
		case 0:
			healthy++
		case endpoint.Degraded:
			degraded++
		}
	}
	m.change.Inc()
	m.total.Set(int64(len(c.order)))
	m.healthy.Set(healthy)
	m.degraded.Set(degraded)
}
