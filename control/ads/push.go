package ads

import (
	"context"
	"slices"
	"time"

	"github.com/lateen-mesh/lateen/wellknown"
)

const (
	// gateTime bounds how long routes wait for the clusters they may name. An Envoy
	// acknowledges a CDS response when its clusters are warm; one that cannot warm
	// (no secret yet) must not hold up all others.
	gateTime = time.Second
	// sweepTime bounds how long clusters outlive their last route.
	sweepTime = 5 * time.Second
)

// advance sends what may be sent now, in order of delivery.
func (c *conn) advance(ctx context.Context) error {
	if c.ahead.waits() && !time.Now().Before(c.ahead.until) {
		c.mark(wellknown.RouteType)
	}
	for i, t := range c.o.Types {
		if (c.dirty|c.touched)&(1<<i) == 0 || isRoutes(t.URL) && c.gated() {
			continue
		}
		all := c.dirty&(1<<i) != 0
		c.dirty &^= 1 << i
		c.touched &^= 1 << i
		if w := c.watches[t.URL]; w != nil {
			if err := c.update(ctx, w, all); err != nil {
				return err
			}
		}
	}
	if c.touched&c.withSubject == 0 {
		c.subjects = nil
	}
	for _, w := range c.unknown {
		if len(w.asked) > 0 {
			if err := c.deliver(w, func() delivery { return w.compare(nil, false) }); err != nil {
				return err
			}
		}
	}
	if err := c.sweep(); err != nil {
		return err
	}
	if c.dirty|c.touched == 0 && !c.changedAt.IsZero() {
		c.o.Metrics.convergence.Observe(time.Since(c.changedAt).Seconds())
		c.changedAt = time.Time{}
	}
	c.arm()
	return nil
}

// gated reports whether routes still wait for clusters.
func (c *conn) gated() bool {
	if c.gate != "" && !time.Now().Before(c.gateUntil) {
		c.log.Debug("clusters not acknowledged, routes go on", "nonce", c.gate)
		c.gate = ""
	}
	return c.gate != ""
}

// arm sets the timer to the next thing that time alone brings about.
func (c *conn) arm() {
	wait := time.Hour
	if c.gate != "" {
		wait = min(wait, time.Until(c.gateUntil))
	}
	if !c.sweepBy.IsZero() {
		wait = min(wait, time.Until(c.sweepBy))
	}
	if c.ahead.waits() {
		wait = min(wait, time.Until(c.ahead.until))
	}
	c.timer.Reset(wait)
}

// update compares one watch with the view, all of it or what is touched, and sends the
// difference.
func (c *conn) update(ctx context.Context, w *watch, all bool) error {
	started := time.Now()
	names, beside, all := c.toCompare(w, all || w.unsure)
	resources, err := c.generate(ctx, w, names, beside)
	if err == nil {
		resources, err = c.announce(w, resources)
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.unsure = true
		c.o.Metrics.unmade.Inc()
		c.log.Error("resources not made, the proxy keeps what it has", "type", w.Name, "generation", c.view.Generation(), "error", err)
		return nil
	}
	if all {
		w.unsure = false
		err = c.deliver(w, func() delivery { return w.compare(resources, w.URL == wellknown.ClusterType) })
	} else {
		err = c.deliver(w, func() delivery { return w.comparePart(resources, names) })
	}
	c.o.Metrics.generate.WithLabelValues(label(w.Type)).Observe(time.Since(started).Seconds())
	return err
}

// toCompare are the names to compare, nil for everything and what is subscribed by name
// beside; all is that nothing else can exist.
func (c *conn) toCompare(w *watch, whole bool) (names, beside []string, all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !whole {
		if names, all = w.concerned(c.subjects); !all {
			return names, nil, false
		}
	}
	if w.wildcard {
		return nil, w.byName(), true
	}
	return w.byName(), nil, true
}

// generate asks the view, with no more askers at a time than there are CPUs.
func (c *conn) generate(ctx context.Context, w *watch, names, beside []string) ([]Resource, error) {
	if len(names) == 0 && !w.wildcard {
		return nil, nil
	}
	select {
	case c.work <- struct{}{}:
		defer func() { <-c.work }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	resources, err := c.view.Resources(w.URL, names)
	if err != nil || names != nil || len(beside) == 0 {
		return resources, err
	}
	missing := missing(beside, resources)
	if len(missing) == 0 {
		return resources, nil
	}
	extra, err := c.view.Resources(w.URL, missing)
	return append(slices.Clip(resources), extra...), err
}

// deliver sends what the proxy lacks, as a comparison finds it.
func (c *conn) deliver(w *watch, compare func() delivery) error {
	clusters := w.URL == wellknown.ClusterType
	c.mu.Lock()
	d := compare()
	if w.resumed != "" && w.resumed == versionOf(d) {
		w.adopt(d)
		d = delivery{}
	}
	w.resumed = ""
	if clusters {
		c.followClusters(d.changed)
		c.sweepBy = time.Time{}
	}
	c.mu.Unlock()
	if d.due {
		for _, part := range w.split(d) {
			if err := c.send(w, part); err != nil {
				return err
			}
		}
		if clusters && d.added && c.routed() {
			c.gate, c.gateUntil = w.nonce, time.Now().Add(gateTime)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w.settled(c.generationOf(w))
	return nil
}

// generationOf is the generation of what is sent to a watch.
func (c *conn) generationOf(w *watch) uint64 {
	if w.URL == wellknown.RouteType && c.ahead.waits() {
		return w.applied
	}
	return c.view.Generation()
}

// followClusters has the endpoints of changed clusters sent again: the server owes
// them after each change of a cluster (xDS protocol, "warming").
func (c *conn) followClusters(changed []string) {
	w := c.watches[wellknown.EndpointType]
	if w == nil {
		return
	}
	for _, n := range changed {
		if w.names[n] {
			w.ask(n)
			c.markAsked(w.URL)
		}
	}
}

// routed reports whether the proxy may have routes already, so that the order of
// clusters and routes matters.
func (c *conn) routed() bool {
	for url, w := range c.watches {
		if isRoutes(url) && w.served {
			return true
		}
	}
	return c.reconnect
}

// sweep removes clusters that nothing names any more, once the proxy has taken
// the routes that no longer name them. While it refuses such routes it still uses
// the old ones, and the clusters stay.
func (c *conn) sweep() error {
	w := c.watches[wellknown.ClusterType]
	if w == nil {
		return nil
	}
	// A gRPC program drops clusters by itself, when the last call by its old routes has ended.
	settled := !c.proxy.IsGRPC()
	if !settled {
		w.stale = slices.DeleteFunc(w.stale, func(n string) bool { return !w.names[n] })
	}
	if len(w.stale) == 0 {
		c.sweepBy = time.Time{}
		return nil
	}
	for _, url := range []string{wellknown.ListenerType, wellknown.RouteType, wellknown.VirtualHostType} {
		routes := c.watches[url]
		if url == wellknown.VirtualHostType && !c.proxy.HostsApart {
			continue
		}
		if routes == nil {
			settled = settled && !c.reconnect
			continue
		}
		if len(routes.refused) > 0 {
			c.sweepBy = time.Time{}
			return nil
		}
		settled = settled && len(routes.flight) == 0
	}
	settled = settled && !c.dirtyRoutes() && !c.ahead.waits()
	if !settled {
		if c.sweepBy.IsZero() {
			c.sweepBy = time.Now().Add(sweepTime)
		}
		if time.Now().Before(c.sweepBy) {
			return nil
		}
	}
	c.sweepBy = time.Time{}
	c.mu.Lock()
	d := w.sweep()
	c.mu.Unlock()
	return c.send(w, d)
}

func (c *conn) dirtyRoutes() bool {
	for i, t := range c.o.Types {
		if isRoutes(t.URL) && c.dirty&(1<<i) != 0 && c.watches[t.URL] != nil {
			return true
		}
	}
	return false
}

// send writes one response; it blocks while the proxy does not read.
func (c *conn) send(w *watch, d delivery) error {
	nonce, started, size := c.nextNonce(), time.Now(), 0
	for _, r := range d.resources {
		size += len(r.Body.GetValue())
	}
	if err := c.wire.send(w.URL, nonce, versionOf(d), d); err != nil {
		return err
	}
	c.mu.Lock()
	w.sent(nonce, c.generationOf(w), d)
	c.mu.Unlock()
	l := label(w.Type)
	c.o.Metrics.pushes.WithLabelValues(l).Inc()
	c.o.Metrics.size.WithLabelValues(l).Observe(float64(size))
	c.o.Metrics.send.Observe(time.Since(started).Seconds())
	c.log.Debug("push", "type", w.Name, "resources", len(d.resources), "removed", len(d.removed), "size", size, "nonce", nonce, "generation", c.view.Generation())
	return nil
}
