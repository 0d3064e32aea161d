package upstream

import (
	"context"
	"errors"
	"os"
	"slices"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A waiter is a request that waits for a connection. It is a pending one, by limit and
// gauge, until the pool has an outcome for it, not until its goroutine has run and taken that.
type waiter struct{ result chan outcome }

// An outcome is what the wait has come to.
type outcome struct {
	stream http.ClientStream
	err    error
}

// wait stands in line for a connection.
func (p *Pool) wait(done <-chan struct{}, deadline time.Time) (http.ClientStream, error) {
	w := &waiter{result: make(chan outcome, 1)}
	if x, err := p.enter(w); x != nil || err != nil {
		p.unwait(1)
		return x, err
	}
	var expired <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		expired = t.C
	}
	select {
	case o := <-w.result:
		return o.stream, o.err
	case <-done:
		p.leave(w)
		return nil, &http.Reset{Reason: http.LocalReset, Unused: true}
	case <-expired:
		p.leave(w)
		return nil, os.ErrDeadlineExceeded
	}
}

// enter puts w in line, unless a connection has come meanwhile, and sees to it that
// enough of them are on their way.
func (p *Pool) enter(w *waiter) (http.ClientStream, error) {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		c := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.line = append([]*waiter{w}, p.line...)
		p.mu.Unlock()
		p.put(c)
		return nil, nil
	}
	defer p.mu.Unlock()
	if x, err := p.join(); x != nil || err != nil {
		return x, err
	}
	p.line = append(p.line, w)
	p.grow()
	return nil, nil
}

// leave gives up a place in line; an exchange that came meanwhile is given back.
func (p *Pool) leave(w *waiter) {
	p.mu.Lock()
	i := slices.Index(p.line, w)
	if i >= 0 {
		p.line = slices.Delete(p.line, i, i+1)
	}
	p.mu.Unlock()
	if i >= 0 {
		p.unwait(1)
		return
	}
	if o := <-w.result; o.stream != nil {
		o.stream.Release()
	}
}

// unwait says that n requests are no longer pending.
func (p *Pool) unwait(n int) {
	for range n {
		p.opts.Stats.RqPendingActive.Dec()
		p.opts.Limits.Pending.Give()
	}
}

// first takes the first in line, nil when nobody waits. p.mu is held.
func (p *Pool) first() *waiter {
	if len(p.line) == 0 {
		return nil
	}
	w := p.line[0]
	p.line = slices.Delete(p.line, 0, 1)
	p.unwait(1)
	return w
}

// back puts w in line again, as the first.
func (p *Pool) back(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.opts.Stats.RqPendingActive.Inc()
	p.opts.Limits.Pending.Force()
	p.line = slices.Insert(p.line, 0, w)
	p.grow()
}

// grow dials as long as more requests wait than the connections on their way will
// carry. Every pool may have one connection, whatever the limit says. p.mu is held.
func (p *Pool) grow() {
	for len(p.line) > p.dials*p.capacity() {
		if most := p.opts.MaxConnections; most > 0 && p.open >= int(most) {
			p.opts.Stats.CxOverflow.Inc()
			return
		}
		if !p.opts.Limits.Connections.Take() {
			p.opts.Stats.CxOverflow.Inc()
			if p.open > 0 {
				return
			}
			p.opts.Limits.Connections.Force()
		}
		p.open++
		p.dials++
		go p.connect(p.ctx)
	}
}

// capacity is how many exchanges a connection on its way is expected to carry at once.
// p.mu is held.
func (p *Pool) capacity() int {
	if p.settled != HTTP2 {
		return 1
	}
	n := p.opts.HTTP2.MaxConcurrentStreams
	if n == 0 {
		n = defaultStreams
	}
	if most := p.opts.MaxRequestsPerConn; most > 0 {
		n = min(n, most)
	}
	return int(n)
}

// defaultStreams is max_concurrent_streams by default.
const defaultStreams = 1024

// connect dials and gives the connection to those who wait, or tells them all why there
// is none. Once ctx has ended nobody waits.
func (p *Pool) connect(ctx context.Context) {
	st, start := p.opts.Stats, time.Now()
	st.CxTotal.Inc()
	p.countVersion(p.opts.Version)
	p.ep.Connects.Add(1)
	limited, cancel := context.WithTimeout(ctx, p.opts.ConnectTimeout)
	raw, err := p.opts.Dial(limited)
	cancel()
	if err != nil {
		p.failed(ctx, err)
		return
	}
	st.CxConnectMs.Record(uint64(time.Since(start).Milliseconds()))
	st.CxActive.Inc()
	p.ep.ActiveConns.Add(1)
	c := counted{Conn: raw, pool: p, born: start}
	v := p.opts.Version
	if v == ALPN {
		v = HTTP1
		if tls := raw.TLS(); tls != nil && tls.NegotiatedProtocol == "h2" {
			v = HTTP2
		}
		p.countVersion(v)
	}
	p.mu.Lock()
	p.settled = v
	generation := p.generation
	p.mu.Unlock()
	if v == HTTP2 {
		p.share(c, generation)
		return
	}
	p.put(&conn{counted: c, generation: generation, arriving: true})
}

func (p *Pool) countVersion(v Version) {
	switch v {
	case HTTP1:
		p.opts.Stats.CxHTTP1.Inc()
	case HTTP2:
		p.opts.Stats.CxHTTP2.Inc()
	}
}

// failed tells all who wait that no connection came into being. A dial that was given up,
// because nobody waited, is no failure of theirs who have come since: they get another.
func (p *Pool) failed(ctx context.Context, err error) {
	if ctx.Err() != nil {
		p.mu.Lock()
		p.dials--
		p.mu.Unlock()
		p.gone()
		return
	}
	reset := p.dialError(err)
	p.mu.Lock()
	p.dials--
	line := p.line
	p.line = nil
	p.mu.Unlock()
	p.gone()
	p.unwait(len(line))
	for _, w := range line {
		p.opts.Stats.RqPendingFailure.Inc()
		w.result <- outcome{nil, reset}
	}
}

// dialError says why a connection did not come into being, in the router's terms.
func (p *Pool) dialError(err error) *http.Reset {
	var failed *transport.Error
	known := errors.As(err, &failed)
	p.opts.Stats.CxConnectFail.Inc()
	p.opts.Stats.CxDestroy.Inc() // as one that was
	p.ep.ConnectFails.Add(1)
	if known && failed.Timeout || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		p.opts.Stats.CxConnectTimeout.Inc()
		p.opts.Stats.CxDestroyLocal.Inc()
		return &http.Reset{Reason: http.ConnectionTimeout, Unused: true}
	}
	p.opts.Stats.CxDestroyRemote.Inc()
	detail := err.Error()
	if known {
		detail = failed.Reason
	}
	return &http.Reset{Reason: http.RemoteConnectionFailure, Detail: detail, Unused: true}
}
