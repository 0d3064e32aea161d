package cluster

import "github.com/lateen-mesh/lateen/proxy/upstream"

// mayPool takes one of the cluster's pools (max_connection_pools), if need be another one
// of the endpoint which nobody uses now, or that of another which has no connection. The
// caller holds h.mu.
func (h *host) mayPool(priority int) bool {
	if h.returned { // gone: it keeps nothing
		return true
	}
	pools := &h.cluster.Limits(priority).Pools
	if pools.Take() {
		return true
	}
	if (h.freeOne((*upstream.Pool).Idle) || h.cluster.freePool(h)) && pools.Take() {
		return true
	}
	h.cluster.Stats().CxPoolOverflow.Inc()
	return false
}

// freePool closes a pool of another endpoint that has no connection. One that is busy just now is passed
// over, so that two that look at each other do not wait for ever.
func (c *Cluster) freePool(but *host) bool {
	c.mu.Lock()
	hosts := c.order
	c.mu.Unlock()
	for _, h := range hosts {
		if h == but || !h.mu.TryLock() {
			continue
		}
		freed := h.freeOne((*upstream.Pool).Empty)
		h.mu.Unlock()
		if freed {
			return true
		}
	}
	return false
}

// freeOne closes a pool that may go. The caller holds mu.
func (h *host) freeOne(may func(*upstream.Pool) bool) bool {
	for i := range h.pools {
		if p := h.pools[i].Load(); p != nil && may(p) {
			h.pools[i].Store(nil)
			h.drop(p, i)
			return true
		}
	}
	for name, p := range h.byName {
		if may(p) {
			delete(h.byName, name)
			h.drop(p, name.priority)
			return true
		}
	}
	return false
}

// evict closes a pool of a name to make room: one without connections if there is one, else
// one that nobody uses, else any. The caller holds mu.
func (h *host) evict() {
	for _, may := range []func(*upstream.Pool) bool{(*upstream.Pool).Empty, (*upstream.Pool).Idle, func(*upstream.Pool) bool { return true }} {
		for name, p := range h.byName {
			if may(p) {
				delete(h.byName, name)
				h.drop(p, name.priority)
				return
			}
		}
	}
}

func (h *host) drop(p *upstream.Pool, priority int) {
	p.Close()
	h.cluster.Limits(priority).Pools.Give()
}

// giveBack returns the places of all pools. The caller holds mu.
func (h *host) giveBack() {
	if h.returned {
		return
	}
	h.returned = true
	for i := range h.pools {
		if h.pools[i].Load() != nil {
			h.cluster.Limits(i).Pools.Give()
		}
	}
	for name := range h.byName {
		h.cluster.Limits(name.priority).Pools.Give()
	}
}
