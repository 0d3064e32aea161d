package cluster

import (
	"fmt"
	"time"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

// start looks for endpoints and waits for secrets; arrived makes the cluster live when
// the last of them is there, at once if nothing is missing.
func (c *Cluster) start() {
	c.waiting.Store(1) // this function itself
	if still := c.parent.opts.Still; still != nil {
		c.stand(still)
		c.arrived()
		return
	}
	for _, m := range c.sockets {
		c.await(m.socket.Ready())
	}
	c.startChecks()
	switch c.config.kind {
	case static:
		c.assign(c.config.assignment)
	case strictDNS, logicalDNS:
		c.startDNS()
	case eds:
		c.startEDS()
	}
	c.arrived()
}

// stand gives the cluster its endpoints without looking for any.
func (c *Cluster) stand(assigned func(service string) *endpointv3.ClusterLoadAssignment) {
	a := c.config.assignment
	if c.config.kind == eds {
		a, _ = decodeAssignment(assigned(c.config.eds.service), true) // CheckAssignment tells of errors
	}
	if a != nil {
		c.assign(a)
	}
}

// CheckAssignment reports what of an assignment a cluster would refuse.
func CheckAssignment(a *endpointv3.ClusterLoadAssignment) error {
	_, err := decodeAssignment(a, true)
	return err
}

// await makes the cluster wait for ready.
func (c *Cluster) await(ready <-chan struct{}) {
	select {
	case <-ready:
		return
	default:
	}
	c.waiting.Add(1)
	go func() {
		select {
		case <-ready:
			c.arrived()
		case <-c.ctx.Done():
		}
	}()
}

func (c *Cluster) arrived() {
	if c.waiting.Add(-1) == 0 && c.ctx.Err() == nil {
		c.parent.activate(c)
	}
}

// prepare gets what start needs and may fail.
func (c *Cluster) prepare() (err error) {
	if err := c.makeSockets(c.parent.opts.Secrets); err != nil {
		return err
	}
	if f := &c.config.forward; f.cache != "" {
		c.forward.cache = c.parent.cache(f)
	}
	if c.config.kind == eds {
		if c.eds, err = c.parent.opts.Source(c.config.eds.source); err != nil {
			c.closeSockets()
			return fmt.Errorf("eds_cluster_config.eds_config: %w", err)
		}
	}
	return nil
}

// startEDS subscribes to the assignment. One that is withdrawn later changes nothing:
// the cluster goes, or a new assignment comes.
func (c *Cluster) startEDS() {
	c.waiting.Add(1)
	first := true
	t := endpointType
	t.FetchTimeout = xds.FetchTimeout(c.config.eds.source)
	drop := xds.Subscribe(c.eds, t, c.config.eds.service, func(a *assignment, present bool) {
		switch {
		case present:
			c.countUpdate(a, c.assign(a))
			c.expire(a)
		case first:
			c.assign(&assignment{})
		}
		if first {
			first = false
			c.arrived()
		}
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop = drop
}

// expire has the endpoints go when no newer assignment comes in time
// (endpoint_stale_after).
func (c *Cluster) expire(a *assignment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stale != nil {
		c.stale.Stop()
		c.stale = nil
	}
	if a.staleAfter <= 0 || c.ctx.Err() != nil {
		return
	}
	c.scope.Counter("assignment_timeout_received").Inc()
	var t *time.Timer
	t = time.AfterFunc(a.staleAfter, func() {
		c.mu.Lock()
		current := c.stale == t
		c.mu.Unlock()
		if current {
			c.scope.Counter("assignment_stale").Inc()
			c.set(nil, a)
		}
	})
	c.stale = t
}

// assign puts an assignment of addresses into force, and reports whether it is another one.
func (c *Cluster) assign(a *assignment) bool {
	list := make([]placed, 0, len(a.members))
	for i := range a.members {
		m := &a.members[i]
		list = append(list, placed{m, m.address(m.host)})
	}
	return c.set(list, a)
}

func (c *Cluster) countUpdate(a *assignment, changed bool) {
	c.scope.Counter("update_attempt").Inc()
	c.scope.Counter("update_success").Inc()
	if len(a.members) == 0 {
		c.scope.Counter("update_empty").Inc()
	}
	if !changed {
		c.scope.Counter("update_no_rebuild").Inc()
	}
}

// close ends the subscriptions and timers and closes idle connections; what is in
// flight finishes.
func (c *Cluster) close() {
	c.stop()
	c.settle()
	c.mu.Lock()
	if c.drop != nil {
		c.drop()
	}
	if t := c.original.timer; t != nil {
		t.Stop()
	}
	for _, t := range []*time.Timer{c.outlier.timer, c.stale, c.forward.timer} {
		if t != nil {
			t.Stop()
		}
	}
	for _, t := range c.targets {
		if t.timer != nil {
			t.timer.Stop()
		}
	}
	hosts := c.order
	c.mu.Unlock()
	c.endChecks()
	for _, h := range hosts {
		h.close()
	}
	c.closeForward()
	c.closeSockets()
}

// drain closes idle connections; later requests get new ones.
func (c *Cluster) drain() {
	c.mu.Lock()
	hosts := c.order
	c.mu.Unlock()
	for _, h := range hosts {
		h.drain()
	}
}
