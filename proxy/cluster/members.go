package cluster

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
)

// placed is a member at a resolved address.
type placed struct {
	member  *member
	address string
}

// identity is what makes two members of an assignment the same one: the address, and but
// for EDS, which lists none twice, where they are.
type identity struct {
	address string
	key     lb.LocalityKey
}

func (c *Cluster) identity(p placed) identity {
	if c.config.kind == eds {
		return identity{address: p.address}
	}
	return identity{p.address, p.member.key}
}

// A change is what an update of the endpoints has done.
type change struct {
	fresh      []*host            // have come
	old        map[identity]*host // are gone
	priorities map[uint32]bool    // where some have come or gone
	any        bool               // something is other than before
}

func (x *change) at(priority uint32) {
	if x.priorities == nil {
		x.priorities = map[uint32]bool{}
	}
	x.priorities[priority], x.any = true, true
}

// set replaces the endpoints by list, and reports whether anything is other than before.
// One that is still there stays, with its pools and counts, whatever it is worth now; the
// pools of those that are gone are closed once the new set is in force.
func (c *Cluster) set(list []placed, a *assignment) bool {
	c.mu.Lock()
	x := c.replace(list)
	c.keepRemoved(x)
	c.checkHosts(x.fresh)
	if !maps.Equal(c.weights, a.weights) || c.overProvisioning != a.overProvisioning || c.weightedHealth != a.weightedHealth {
		c.weights, c.overProvisioning, c.weightedHealth, x.any = a.weights, a.overProvisioning, a.weightedHealth, true
	}
	if x.any || c.balancer.Load() == nil {
		c.shed.Store(a.drop) // as in Envoy, one that changes alone waits for the next change
		c.countEjected()
		c.rebuild()
		c.membershipChanged(len(x.priorities))
	}
	staying := c.order
	c.mu.Unlock()
	for _, h := range x.old {
		h.close()
	}
	if c.config.closeOnChange && len(x.priorities) > 0 {
		for _, h := range staying {
			h.drain()
		}
	}
	if x.any {
		c.parent.localChanged(c)
	}
	return x.any
}

// replace makes c.hosts and c.order those of list. The caller holds mu.
func (c *Cluster) replace(list []placed) *change {
	x, now := &change{old: c.hosts}, time.Now().UnixNano()
	c.hosts = make(map[identity]*host, len(list))
	c.order = c.order[:0:0]
	for _, p := range list {
		id := c.identity(p)
		if c.hosts[id] != nil { // listed twice
			continue
		}
		h := x.old[id]
		if h != nil && h.is(p.member) {
			h.revalue(p.member, x)
			delete(x.old, id)
		} else {
			was := h
			h = c.newHost(p)
			h.ep.HealthySince.Store(now)
			if was != nil {
				h.wasWell = was.ep.Unhealthy.Load()&endpoint.FailedActiveHealth == 0
			}
			x.fresh = append(x.fresh, h)
			x.at(p.member.key.Priority)
		}
		c.hosts[id] = h
		c.order = append(c.order, h)
	}
	return x
}

// keepRemoved keeps hosts that are not assigned any more but whose checks pass; x.old are
// then the others. The caller holds mu.
func (c *Cluster) keepRemoved(x *change) {
	for id, h := range x.old {
		if c.hosts[id] != nil || !c.keepsRemoved(h) {
			x.at(h.ep.Priority.Load())
			continue
		}
		h.ep.Unhealthy.Or(endpoint.PendingRemoval)
		c.hosts[id] = h
		c.order = append(c.order, h)
		delete(x.old, id)
	}
}

// countEjected counts anew who is ejected: hosts may have gone. The caller holds mu.
func (c *Cluster) countEjected() {
	if !c.outlier.touched {
		return
	}
	c.outlier.ejected = 0
	for _, h := range c.order {
		if h.ep.Unhealthy.Load()&endpoint.FailedOutlier != 0 {
			c.outlier.ejected++
		}
	}
	c.outlier.active.Set(int64(c.outlier.ejected))
}

// is reports that m is the endpoint that h is, whatever m is worth.
func (h *host) is(m *member) bool {
	return h.ep.Locality == m.key.Locality && h.ep.Hostname == m.hostname && slices.Equal(h.ep.More, m.more) &&
		(h.check == m.check || h.cluster.checking.checker == nil)
}

// revalue takes what may change of an endpoint that stays. The cluster's mu is held.
func (h *host) revalue(m *member, x *change) {
	e, was := h.ep, h.ep.Unhealthy.Load()
	e.Unhealthy.And(^edsHealth &^ endpoint.PendingRemoval)
	e.Unhealthy.Or(m.health)
	x.any = x.any || (was&^endpoint.PendingRemoval) != e.Unhealthy.Load() || e.Weight.Load() != m.weight
	e.Weight.Store(m.weight)
	if old := e.Priority.Swap(m.key.Priority); old != m.key.Priority {
		x.at(old)
		x.at(m.key.Priority)
	}
	if reflect.DeepEqual(e.Metadata.Load(), m.metadata) && reflect.DeepEqual(h.locality, m.locality) {
		return
	}
	x.any, h.locality = true, m.locality
	e.Metadata.Store(m.metadata)
	socket := h.cluster.socketFor(m.metadata, m.locality)
	h.socket.Store(&socket)
}

func (c *Cluster) newHost(p placed) *host {
	h := &host{cluster: c, check: p.member.check, locality: p.member.locality, ep: &endpoint.Endpoint{
		Address: p.address, More: p.member.more, Hostname: p.member.hostname, Locality: p.member.key.Locality,
	}}
	h.ep.Owner = h
	h.ep.Weight.Store(p.member.weight)
	h.ep.Priority.Store(p.member.key.Priority)
	h.ep.Metadata.Store(p.member.metadata)
	h.ep.Unhealthy.Store(p.member.health)
	socket := c.socketFor(p.member.metadata, p.member.locality)
	h.socket.Store(&socket)
	return h
}

// rebuild makes the balancer for what is there now. The caller holds mu.
func (c *Cluster) rebuild() {
	s := lb.Set{
		LocalityWeights: c.weights, OverProvisioning: c.overProvisioning, WeightedHealth: c.weightedHealth,
		Stats: c.lbStats, Active: c.inFlight, Here: c.parent.opts.Locality, Local: c.parent.localEndpoints(c),
		Endpoints: make([]*endpoint.Endpoint, 0, len(c.order)),
	}
	for _, h := range c.order {
		s.Endpoints = append(s.Endpoints, h.ep)
	}
	b := c.config.balancing.over(s)
	c.balancer.Store(&b)
	c.showMembership()
}

// inFlight is how many requests of the cluster are in flight.
func (c *Cluster) inFlight() int64 { return c.Stats().RqActive.Value() }

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

// membershipChanged counts that endpoints have come or gone at so many priorities. The
// caller holds mu.
func (c *Cluster) membershipChanged(priorities int) {
	c.changes += uint64(priorities)
	if c.membership != nil {
		c.membership.change.Add(uint64(priorities))
	}
	c.showMembership()
}

// showMembership sets the membership gauges, once the cluster has stats. The caller
// holds mu.
func (c *Cluster) showMembership() {
	m := c.membership
	if m == nil {
		return
	}
	var healthy, degraded, excluded int64
	var heaviest uint32
	for _, h := range c.order {
		heaviest = max(heaviest, h.ep.Weight.Load())
		if !h.ep.Counts() {
			excluded++
		}
		switch h.ep.State() {
		case endpoint.Healthy:
			healthy++
		case endpoint.Worse:
			degraded++
		}
	}
	m.total.Set(int64(len(c.order)))
	m.healthy.Set(healthy)
	m.degraded.Set(degraded)
	m.excluded.Set(excluded)
	m.heaviest.Set(int64(heaviest))
}
