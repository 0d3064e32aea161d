package upstream

import (
	"net"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http1"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A conn is one HTTP/1 connection of a pool.
type conn struct {
	counted
	generation int
	arriving   bool // it counts among those being dialled
	uses       uint32
	used       time.Time
}

// counted is a connection with what is counted of it.
type counted struct {
	transport.Conn
	pool *Pool
	born time.Time
}

// closed counts the end of a connection; remote says that the peer has ended it.
func (c *counted) closed(remote bool) {
	st := c.pool.opts.Stats
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

// close ends the connection; remote says that the peer has. Its place is free once it
// is closed.
func (c *conn) close(remote bool) {
	_ = c.Conn.Close() // nothing is left to be written
	c.closed(remote)
}

// Read counts what comes from the endpoint.
func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.pool.opts.Stats.CxRxBytes.Add(uint64(n))
	return n, err
}

// Write counts what goes there, and so does WriteBuffers.
func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.pool.opts.Stats.CxTxBytes.Add(uint64(n))
	return n, err
}

// WriteBuffers is Write of several slices.
func (c *counted) WriteBuffers(bufs *net.Buffers) (int64, error) {
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

// begin starts an exchange on c; the error says that there are too many.
func (c *conn) begin() (http.ClientStream, error) {
	p := c.pool
	if !p.opts.Limits.Requests.Take() {
		p.opts.Stats.RqActiveOverflow.Inc()
		return nil, overflow
	}
	p.charge()
	c.uses++
	if prober, ok := c.Conn.(Prober); ok {
		prober.Mark()
	}
	x := exchanges.Get().(*exchange)
	x.reused = c.uses > 1
	x.Start(c, c, http1.ExchangeOptions{Options: p.opts.HTTP1})
	return x, nil
}

// Release ends the exchange and gives its memory back.
func (x *exchange) Release() {
	x.End()
	exchanges.Put(x)
}

// Finished takes the connection back from its exchange.
func (c *conn) Finished(x *http1.Exchange, reusable bool) {
	p := c.pool
	p.discharge()
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
func (c *counted) Untaken() bool {
	p, ok := c.Conn.(Prober)
	return ok && p.Untaken()
}

// Mark is that of the connection, for the codec of HTTP/2.
func (c *counted) Mark() {
	if p, ok := c.Conn.(Prober); ok {
		p.Mark()
	}
}
