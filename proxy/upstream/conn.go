package upstream

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http1"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

var errDeadline = os.ErrDeadlineExceeded

// A conn is one connection of a pool.
type conn struct {
	transport.Conn
	pool       *Pool
	generation int
	uses       uint32
	born, used time.Time
}

// dial connects, bounded by the connect timeout, done and deadline.
func (p *Pool) dial(done <-chan struct{}, deadline time.Time) (*conn, error) {
	st := p.opts.Stats
	st.CxTotal.Inc()
	st.CxHTTP1.Inc()
	p.ep.Connects.Add(1)
	start := time.Now()
	limit := start.Add(p.opts.ConnectTimeout)
	ctx, cancel := context.WithDeadline(context.Background(), earlier(limit, deadline))
	stop := make(chan struct{})
	go func() { // an exchange that is given up ends the dial
		select {
		case <-done:
			cancel()
		case <-stop:
		}
	}()
	raw, err := p.opts.Dial(ctx)
	close(stop)
	cancel()
	if err != nil {
		p.gone()
		return nil, p.dialError(err, done, limit, deadline)
	}
	st.CxConnectMs.Record(uint64(time.Since(start).Milliseconds()))
	st.CxActive.Inc()
	p.ep.ActiveConns.Add(1)
	p.mu.Lock()
	c := &conn{Conn: raw, pool: p, generation: p.generation, born: start}
	p.mu.Unlock()
	return c, nil
}

func earlier(a, b time.Time) time.Time {
	if !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// dialError says why a connection did not come into being, in the router's terms.
func (p *Pool) dialError(err error, done <-chan struct{}, limit, deadline time.Time) error {
	select {
	case <-done:
		return &http.Reset{Reason: http.LocalReset, Unused: true}
	default:
	}
	var failed *transport.Error
	known := errors.As(err, &failed)
	late := known && failed.Timeout || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
	if late && !deadline.IsZero() && deadline.Before(limit) {
		return errDeadline
	}
	p.opts.Stats.CxConnectFail.Inc()
	p.ep.ConnectFails.Add(1)
	if late {
		p.opts.Stats.CxConnectTimeout.Inc()
		return &http.Reset{Reason: http.ConnectionTimeout, Unused: true}
	}
	detail := err.Error()
	if known {
		detail = failed.Reason
	}
	return &http.Reset{Reason: http.RemoteConnectionFailure, Detail: detail, Unused: true}
}

// close ends the connection; remote says that the peer has.
func (c *conn) close(remote bool) {
	st := c.pool.opts.Stats
	_ = c.Conn.Close() // nothing is left to be written
	st.CxActive.Dec()
	st.CxDestroy.Inc()
	if remote {
		st.CxDestroyRemote.Inc()
	} else {
		st.CxDestroyLocal.Inc()
	}
	st.CxLengthMs.Record(uint64(time.Since(c.born).Milliseconds()))
	c.pool.ep.ActiveConns.Add(-1)
	c.pool.gone()
}

// Read counts what comes from the endpoint.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.pool.opts.Stats.CxRxBytes.Add(uint64(n))
	return n, err
}

// Write counts what goes there, and so does WriteBuffers.
func (c *conn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.pool.opts.Stats.CxTxBytes.Add(uint64(n))
	return n, err
}

// WriteBuffers is Write of several slices.
func (c *conn) WriteBuffers(bufs *net.Buffers) (int64, error) {
	n, err := c.Conn.WriteBuffers(bufs)
	c.pool.opts.Stats.CxTxBytes.Add(uint64(n))
	return n, err
}

// exchanges holds exchanges that are not in use, with their buffers.
var exchanges = sync.Pool{New: func() any { return new(exchange) }}

// An exchange is one request on a connection.
type exchange struct {
	http1.Exchange
	reused bool
}

// Reused reports that the connection was kept alive after an earlier exchange.
func (x *exchange) Reused() bool { return x.reused }

// begin starts an exchange on c.
func (c *conn) begin() *exchange {
	p := c.pool
	c.uses++
	if prober, ok := c.Conn.(Prober); ok {
		prober.Mark()
	}
	p.opts.Stats.RqTotal.Inc()
	p.opts.Stats.RqActive.Inc()
	p.ep.Requests.Add(1)
	p.ep.Active.Add(1)
	x := exchanges.Get().(*exchange)
	x.reused = c.uses > 1
	x.Start(c, c, http1.ExchangeOptions{PreserveCase: p.opts.PreserveCase, Trailers: p.opts.Trailers})
	return x
}

// Release ends the exchange and gives its memory back.
func (x *exchange) Release() {
	x.End()
	exchanges.Put(x)
}

// Finished takes the connection back from its exchange.
func (c *conn) Finished(x *http1.Exchange, reusable bool) {
	p := c.pool
	p.opts.Stats.RqActive.Dec()
	p.ep.Active.Add(-1)
	p.opts.Limits.Requests.Give()
	if max := p.opts.MaxRequestsPerConn; reusable && max > 0 && c.uses >= max {
		p.opts.Stats.CxMaxRequests.Inc()
		reusable = false
	}
	if !reusable {
		c.countTorn(x)
		c.close(x.Broken())
		return
	}
	p.put(c)
}

// countTorn counts a connection that ends in the middle of an exchange.
func (c *conn) countTorn(x *http1.Exchange) {
	if x.Complete() {
		return
	}
	st := c.pool.opts.Stats
	st.CxDestroyWithActive.Inc()
	if x.Broken() {
		st.CxDestroyRemoteWithActive.Inc()
	} else {
		st.CxDestroyLocalWithActive.Inc()
	}
}

// A Prober is a connection that knows, without blocking, more than its bytes tell.
type Prober interface {
	// Stale reports that the connection is not to be used again: the peer has ended it,
	// or has sent bytes out of turn.
	Stale() bool
	// Mark and Untaken: when the stream has ended, the peer has provably not received
	// a byte that was written since the mark.
	Mark()
	Untaken() bool
}

// stale asks the connection, if it can be asked.
func (c *conn) stale() bool {
	p, ok := c.Conn.(Prober)
	return ok && p.Stale()
}

// Untaken reports of a connection that its peer has ended without an answer that the
// peer has provably taken no byte of the request.
func (c *conn) Untaken() bool {
	p, ok := c.Conn.(Prober)
	return ok && p.Untaken()
}
