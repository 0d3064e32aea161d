package upstream

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
)

// A Pool holds the HTTP connections to one endpoint. It is safe for concurrent use.
type Pool struct {
	ep   *endpoint.Endpoint
	opts Options
	ctx  context.Context // of dials; ended when nobody waits for them any more
	stop context.CancelFunc

	mu         sync.Mutex
	idle       []*conn  // of HTTP/1, the last used is the last
	shared     []*multi // of HTTP/2, those that may take exchanges
	open       int      // connections, those being dialled or ending included
	dials      int      // those being dialled
	line       []*waiter
	settled    Version // what ALPN has settled last
	generation int     // connections of an older one are not used again
	closed     bool
	sweeper    *time.Timer // runs while there are connections to look after
}

const (
	seldomSweep    = time.Second
	oftenSweep     = 20 * time.Millisecond
	defaultConnect = 5 * time.Second
)

// sweepEvery is how long the pool lets connections be before it looks after them: a
// quarter of the shortest time that one may have, within bounds.
func (p *Pool) sweepEvery() time.Duration {
	every := seldomSweep
	for _, limit := range []time.Duration{p.opts.IdleTimeout, p.opts.MaxConnectionDuration} {
		if limit > 0 {
			every = min(every, max(limit/4, oftenSweep))
		}
	}
	return every
}

// NewPool returns an empty pool.
func NewPool(ep *endpoint.Endpoint, opts Options) *Pool {
	if opts.ConnectTimeout == 0 {
		opts.ConnectTimeout = defaultConnect
	}
	p := &Pool{ep: ep, opts: opts, settled: opts.Version}
	p.renew()
	return p
}

// renew makes the context of dials to come. p.mu is held, but for a new pool.
func (p *Pool) renew() { p.ctx, p.stop = context.WithCancel(context.Background()) }

// Acquire returns an exchange on a connection to the endpoint. It blocks while it waits
// for a connection, until done or deadline (zero: none). Errors are *http.Reset or
// os.ErrDeadlineExceeded; when done ends the wait it is http.LocalReset.
func (p *Pool) Acquire(done <-chan struct{}, deadline time.Time) (http.ClientStream, error) {
	if x, err := p.ready(); x != nil || err != nil {
		return x, err
	}
	st := p.opts.Stats
	if !p.opts.Limits.Pending.Take() {
		st.RqPendingOverflow.Inc()
		return nil, overflow
	}
	st.RqPendingTotal.Inc()
	st.RqPendingActive.Inc()
	return p.wait(done, deadline)
}

var overflow = &http.Reset{Reason: http.Overflow, Unused: true}

// ready begins an exchange on a connection that is there, nil when there is none.
func (p *Pool) ready() (http.ClientStream, error) {
	if c := p.takeIdle(); c != nil {
		x, err := c.begin()
		if err != nil {
			p.put(c)
		}
		return x, err
	}
	if p.opts.Version == HTTP1 {
		return nil, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.join()
}

// charge counts an exchange that begins.
func (p *Pool) charge() {
	st := p.opts.Stats
	st.RqTotal.Inc()
	st.RqActive.Inc()
	p.ep.Requests.Add(1)
	p.ep.Active.Add(1)
}

// discharge counts its end, against max_requests too.
func (p *Pool) discharge() {
	p.opts.Stats.RqActive.Dec()
	p.ep.Active.Add(-1)
	p.opts.Limits.Requests.Give()
}

// takeIdle takes the connection of HTTP/1 that was used last and is still good, nil if
// there is none.
func (p *Pool) takeIdle() *conn {
	for {
		p.mu.Lock()
		n := len(p.idle)
		if n == 0 {
			p.mu.Unlock()
			return nil
		}
		c := p.idle[n-1]
		p.idle[n-1] = nil
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		if !c.stale() {
			return c
		}
		c.close(true)
	}
}

// put takes a connection of HTTP/1 that is free: the first in line gets it.
func (p *Pool) put(c *conn) {
	c.used = time.Now()
	for {
		w, keep := p.keepOrGive(c)
		switch {
		case w == nil && keep:
			return
		case w == nil:
			c.close(false)
			return
		case c.uses > 0 && c.stale(): // what a new one has to read are its handshake's tickets
			p.back(w)
			c.close(true)
			return
		}
		x, err := c.begin()
		w.result <- outcome{x, err}
		if err == nil {
			return
		}
	}
}

// keepOrGive finds who waits for c; without anybody c is idle, if it is to be kept.
func (p *Pool) keepOrGive(c *conn) (w *waiter, keep bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.arriving {
		c.arriving = false
		p.dials--
	}
	if c.generation != p.generation {
		return nil, false
	}
	if w = p.first(); w == nil && !p.closed {
		p.idle = append(p.idle, c)
		p.watch()
		return nil, true
	}
	return w, false
}

// gone forgets a connection that was closed or did not come into being.
func (p *Pool) gone() {
	p.opts.Limits.Connections.Give()
	p.mu.Lock()
	p.open--
	p.grow()
	p.mu.Unlock()
}

// watch starts the sweeper. p.mu is held.
func (p *Pool) watch() {
	if p.sweeper == nil && !p.closed {
		p.sweeper = time.AfterFunc(p.sweepEvery(), p.sweep)
	}
}

// sweep closes connections that the peer has left, that nobody uses or that are too old.
func (p *Pool) sweep() {
	now := time.Now()
	p.mu.Lock()
	all := p.idle
	p.idle = nil
	over := p.sweepShared(now)
	p.mu.Unlock()
	for _, m := range over {
		m.client.Close()
	}
	kept := make([]*conn, 0, len(all))
	for _, c := range all {
		switch {
		case c.stale():
			c.close(true)
		case p.opts.IdleTimeout > 0 && now.Sub(c.used) >= p.opts.IdleTimeout:
			p.opts.Stats.CxIdleTimeout.Inc()
			c.close(false)
		case p.aged(c.born, now):
			p.opts.Stats.CxMaxDuration.Inc()
			c.close(false)
		default:
			kept = append(kept, c)
		}
	}
	p.restore(kept)
}

// aged reports that a connection has reached max_connection_duration.
func (p *Pool) aged(born, now time.Time) bool {
	return p.opts.MaxConnectionDuration > 0 && now.Sub(born) >= p.opts.MaxConnectionDuration
}

// restore puts the connections that outlived a sweep below those given back meanwhile.
func (p *Pool) restore(kept []*conn) {
	p.mu.Lock()
	if p.closed || len(kept) > 0 && kept[0].generation != p.generation {
		p.mu.Unlock()
		for _, c := range kept {
			c.close(false)
		}
		kept = nil
		p.mu.Lock()
	}
	for len(kept) > 0 && len(p.line) > 0 { // who came during the sweep
		c := kept[len(kept)-1]
		kept = kept[:len(kept)-1]
		p.mu.Unlock()
		p.put(c)
		p.mu.Lock()
	}
	defer p.mu.Unlock()
	p.idle = append(kept, p.idle...)
	if len(p.idle)+len(p.shared) == 0 {
		p.sweeper = nil
		return
	}
	p.sweeper.Reset(p.sweepEvery())
}

// Empty reports that there is no connection, and that nobody waits for one.
func (p *Pool) Empty() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open == 0 && len(p.line) == 0
}

// Idle reports that nobody uses a connection of the pool or waits for one.
func (p *Pool) Idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open == len(p.idle) && len(p.line) == 0
}

// Drain closes connections now that nobody uses, and the others when their exchanges are
// over. Later exchanges get new connections.
func (p *Pool) Drain() { p.retire(false) }

// Close drains the pool for good, when its endpoint is gone.
func (p *Pool) Close() { p.retire(true) }

func (p *Pool) retire(closed bool) {
	p.mu.Lock()
	idle := p.idle
	p.idle = nil
	p.generation++
	p.closed = p.closed || closed
	if p.sweeper != nil && p.sweeper.Stop() {
		p.sweeper = nil
	}
	if p.closed && len(p.line) == 0 {
		p.stop()
		p.renew() // who has chosen the endpoint a moment ago still gets a connection
	}
	var over []*multi
	for len(p.shared) > 0 {
		m := p.shared[0]
		if p.spend(m); m.over() {
			over = append(over, m)
		}
	}
	p.mu.Unlock()
	for _, c := range idle {
		c.close(false)
	}
	for _, m := range over {
		m.client.Close()
	}
}

// without is list without m.
func without(list []*multi, m *multi) []*multi {
	if i := slices.Index(list, m); i >= 0 {
		return slices.Delete(list, i, i+1)
	}
	return list
}
