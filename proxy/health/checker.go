package health

import (
	"context"
	"sync"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// A Checker checks the hosts of one cluster. Its methods may be called from any goroutine.
type Checker struct {
	plan   *Plan
	env    Env
	counts []*counts // of each check
	whole  *gauges   // over all checks, nil where there is but one
	logs   []*log    // of each check

	ctx   context.Context
	stop  context.CancelFunc
	work  sync.WaitGroup
	ready chan struct{}

	mu      sync.Mutex
	hosts   map[*endpoint.Endpoint]*host
	warming int  // hosts of the first Set that have not been checked
	begun   bool // Set was called
	closed  bool
}

// host is what a Checker knows of one endpoint.
type host struct {
	Host
	c        *Checker
	sessions []*session
	ctx      context.Context
	stop     context.CancelFunc

	mu         sync.Mutex
	well, poor bool // as counted over all checks
	first      bool // of the first Set
	unseen     int  // checks that have had no result
	excluded   bool // refused by an answer, until a check passes
	running    int  // sessions
}

// Start makes the Checker of a cluster, which has no host yet.
func (p *Plan) Start(env Env) *Checker {
	c := &Checker{plan: p, env: env, ready: make(chan struct{}), hosts: map[*endpoint.Endpoint]*host{}}
	c.ctx, c.stop = context.WithCancel(context.Background())
	scope := env.Stats.Scope("health_check")
	for _, k := range p.checks {
		own := scope
		if k.name != "" {
			own = scope.Scope("name").Scope(k.name)
		}
		c.counts = append(c.counts, newCounts(own))
		c.logs = append(c.logs, newLog(k.logs))
	}
	if len(p.checks) > 1 {
		c.whole = &gauges{healthy: scope.Gauge("healthy"), degraded: scope.Gauge("degraded")}
	}
	return c
}

// Ready is closed when each host of the first Set has been checked once.
func (c *Checker) Ready() <-chan struct{} { return c.ready }

// Set says which hosts there are. One that was there before goes on as it was; a new one
// has failed until its first check says otherwise.
func (c *Checker) Set(list []Host) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	old := c.hosts
	c.hosts = make(map[*endpoint.Endpoint]*host, len(list))
	for _, h := range list {
		if h.Unchecked || c.hosts[h.Endpoint] != nil {
			continue
		}
		if was := old[h.Endpoint]; was != nil {
			c.hosts[h.Endpoint] = was
			delete(old, h.Endpoint)
			continue
		}
		c.hosts[h.Endpoint] = c.begin(h)
	}
	for _, h := range old {
		h.stop()
	}
	if !c.begun {
		c.begun = true
		if c.warming == 0 {
			close(c.ready)
		}
	}
}

// begin starts the checks of a host. mu is held.
func (c *Checker) begin(pb Host) *host {
	h := &host{Host: pb, c: c, unseen: len(c.plan.checks)}
	h.ctx, h.stop = context.WithCancel(c.ctx)
	if !pb.Well {
		pb.Endpoint.Unhealthy.Or(endpoint.FailedActiveHealth)
	}
	if h.first = !c.begun; h.first {
		c.warming++
	}
	for i, k := range c.plan.checks {
		h.sessions = append(h.sessions, &session{host: h, check: k, counts: c.counts[i], log: c.logs[i], failed: !pb.Well, first: !pb.Well})
	}
	if pb.Well {
		h.unseen, h.well = 0, true
		for _, k := range c.counts {
			k.healthy.Inc()
		}
		if c.whole != nil {
			c.whole.healthy.Inc()
		}
	}
	h.running = len(h.sessions)
	for _, s := range h.sessions {
		c.work.Go(s.run)
	}
	return h
}

// seen notes that a host of the first Set has been checked, or is gone.
func (c *Checker) seen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.warming--; c.warming == 0 && c.begun {
		close(c.ready)
	}
}

// Refuse notes that an answer of ep to a request asked for no more of them
// (x-envoy-immediate-health-check-fail). It holds until a check passes.
func (c *Checker) Refuse(ep *endpoint.Endpoint) {
	c.mu.Lock()
	h := c.hosts[ep]
	c.mu.Unlock()
	if h == nil {
		return
	}
	for _, s := range h.sessions {
		s.refused()
	}
}

// Close ends all checks and waits until they have ended. Endpoints keep their flags.
func (c *Checker) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.work.Wait()
	for _, l := range c.logs {
		l.close()
	}
}
