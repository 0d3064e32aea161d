package upstream

import (
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
)

// A Pool holds the HTTP/1.1 connections to one endpoint. It is safe for concurrent use.
type Pool struct {
	ep   *endpoint.Endpoint
	opts Options

	mu         sync.Mutex
	idle       []*conn // the last used is the last
	open       int     // connections, those being dialled included
	line       []chan struct{}
	generation int // connections of an older one are not used again
	closed     bool
	sweeper    *time.Timer // runs while there are idle connections
}

const (
	sweepEvery     = time.Second
	defaultConnect = 5 * time.Second
)

// NewPool returns an empty pool.
func NewPool(ep *endpoint.Endpoint, opts Options) *Pool {
	if opts.ConnectTimeout == 0 {
		opts.ConnectTimeout = defaultConnect
	}
	return &Pool{ep: ep, opts: opts}
}

// Acquire returns an exchange on a connection to the endpoint. It blocks while it
// dials or waits in line, until done or deadline (zero: none). Errors are *http.Reset
// or os.ErrDeadlineExceeded; when done ends the wait it is http.LocalReset.
func (p *Pool) Acquire(done <-chan struct{}, deadline time.Time) (http.ClientStream, error) {
	l, st := p.opts.Limits, p.opts.Stats
	if !l.Requests.Take() {
		st.RqPendingOverflow.Inc()
		return nil, overflow
	}
	c := p.takeIdle()
	if c == nil {
		var err error
		if c, err = p.pend(done, deadline); err != nil {
			l.Requests.Give()
			return nil, err
		}
	}
	return c.begin(), nil
}

var overflow = &http.Reset{Reason: http.Overflow, Unused: true}

// pend is Acquire for a request that finds no idle connection.
func (p *Pool) pend(done <-chan struct{}, deadline time.Time) (*conn, error) {
	l, st := p.opts.Limits, p.opts.Stats
	if !l.Pending.Take() {
		st.RqPendingOverflow.Inc()
		return nil, overflow
	}
	st.RqPendingTotal.Inc()
	st.RqPendingActive.Inc()
	defer func() {
		st.RqPendingActive.Dec()
		l.Pending.Give()
	}()
	for {
		turn, dial := p.turn()
		if dial {
			c, err := p.dial(done, deadline)
			if err != nil {
				st.RqPendingFailure.Inc()
			}
			return c, err
		}
		if err := p.wait(turn, done, deadline); err != nil {
			return nil, err
		}
		if c := p.takeIdle(); c != nil {
			return c, nil
		}
	}
}

// turn decides for a request without a connection: dial one, or stand in line until
// the returned channel is signalled. Every pool may have one connection, whatever
// the limit says.
func (p *Pool) turn() (chan struct{}, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open == 0 {
		p.opts.Limits.Connections.Force()
		p.open++
		return nil, true
	}
	if p.opts.Limits.Connections.Take() {
		p.open++
		return nil, true
	}
	turn := make(chan struct{}, 1)
	if len(p.idle) > 0 {
		turn <- struct{}{} // one came back meanwhile
		return turn, false
	}
	p.opts.Stats.CxOverflow.Inc()
	p.line = append(p.line, turn)
	return turn, false
}

// wait stands in line.
func (p *Pool) wait(turn chan struct{}, done <-chan struct{}, deadline time.Time) error {
	var expired <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		expired = t.C
	}
	select {
	case <-turn:
		return nil
	case <-done:
		p.leave(turn)
		return &http.Reset{Reason: http.LocalReset, Unused: true}
	case <-expired:
		p.leave(turn)
		return errDeadline
	}
}

// leave gives up a place in line; a signal that came meanwhile goes to the next.
func (p *Pool) leave(turn chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, t := range p.line {
		if t == turn {
			p.line = append(p.line[:i], p.line[i+1:]...)
			return
		}
	}
	p.signal()
}

// signal lets the first in line try again. p.mu is held.
func (p *Pool) signal() {
	if len(p.line) == 0 {
		return
	}
	p.line[0] <- struct{}{}
	p.line = p.line[1:]
}

// takeIdle takes the connection that was used last and is still good, nil if there is none.
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

// put takes a connection back after an exchange.
func (p *Pool) put(c *conn) {
	c.used = time.Now()
	p.mu.Lock()
	keep := c.generation == p.generation && !p.closed
	if keep {
		p.idle = append(p.idle, c)
		if p.sweeper == nil {
			p.sweeper = time.AfterFunc(sweepEvery, p.sweep)
		}
		p.signal()
	}
	p.mu.Unlock()
	if !keep {
		c.close(false)
	}
}

// gone forgets a connection that was closed or did not come into being.
func (p *Pool) gone() {
	p.opts.Limits.Connections.Give()
	p.mu.Lock()
	p.open--
	p.signal()
	p.mu.Unlock()
}

// sweep closes idle connections that the peer has left or that are too old.
func (p *Pool) sweep() {
	now := time.Now()
	p.mu.Lock()
	all := p.idle
	p.idle = nil
	p.mu.Unlock()
	kept := make([]*conn, 0, len(all))
	for _, c := range all {
		switch {
		case c.stale():
			c.close(true)
		case p.opts.IdleTimeout > 0 && now.Sub(c.used) >= p.opts.IdleTimeout:
			p.opts.Stats.CxIdleTimeout.Inc()
			c.close(false)
		case p.opts.MaxConnectionDuration > 0 && now.Sub(c.born) >= p.opts.MaxConnectionDuration:
			p.opts.Stats.CxMaxDuration.Inc()
			c.close(false)
		default:
			kept = append(kept, c)
		}
	}
	p.restore(kept)
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
	defer p.mu.Unlock()
	p.idle = append(kept, p.idle...)
	for range p.idle {
		p.signal()
	}
	if len(p.idle) == 0 {
		p.sweeper = nil
		return
	}
	p.sweeper.Reset(sweepEvery)
}

// Drain closes idle connections now and the others when their exchange is over.
// Later exchanges get new connections.
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
	p.mu.Unlock()
	for _, c := range idle {
		c.close(false)
	}
}
