package router

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// A raw is a connection of plain TCP in the place of an exchange: what a request carries
// goes to the endpoint as it is, and what the endpoint says is the answer's body. It is
// the router's http.ClientStream of a CONNECT that ends here (connect_config).
type raw struct {
	conn  transport.Conn
	stats *upstream.Stats
	head  []byte // to be written ahead of everything: a header of the PROXY protocol

	piece  *[rawPiece]byte // of the body of the answer, from rawPieces
	ended  atomic.Bool     // the endpoint has ended its direction
	failed error           // of reading
	cut    atomic.Bool     // Interrupt has closed the connection
}

// rawPiece is how many bytes of an endpoint are moved at once.
const rawPiece = 16 << 10

var rawPieces = sync.Pool{New: func() any { return new([rawPiece]byte) }}

// raws reports that the request becomes a connection of its own.
func (k *call) raws() bool {
	c := k.forward.Connect
	if c == nil {
		return false
	}
	m := string(k.s.Request.Method)
	return m == "CONNECT" || c.AllowPost && m == "POST"
}

// connect makes the connection to the endpoint of the attempt. Errors are those of a pool.
func (k *call) connect(limit time.Time) (*raw, error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if !limit.IsZero() {
		ctx, cancel = context.WithDeadline(ctx, limit)
		defer cancel()
	}
	left := k.s.Done()
	go func() { // it ends with the dial, but may be later than that: k is not its to look at
		select {
		case <-left:
			cancel()
		case <-ctx.Done():
		}
	}()
	who := &transport.Proxied{From: k.s.Info.Source(), To: k.s.Info.DownstreamLocal}
	conn, err := k.cluster.Dial(ctx, k.endpoint, transport.Target{Proxied: who})
	if err != nil {
		return nil, k.unconnected(err, limit)
	}
	x := &raw{conn: conn, stats: k.stats}
	if c := k.forward.Connect; c.Proxied {
		x.head = who.Header(c.ProxiedV2)
	}
	return x, nil
}

// unconnected says why there is no connection in the terms of an exchange.
func (k *call) unconnected(err error, limit time.Time) error {
	var failed *transport.Error
	switch known := errors.As(err, &failed); {
	case k.s.Left():
		return errLeft
	case !limit.IsZero() && !time.Now().Before(limit):
		return os.ErrDeadlineExceeded
	case !known:
		return &http.Reset{Reason: http.Overflow, Unused: true}
	case failed.Timeout:
		return &http.Reset{Reason: http.ConnectionTimeout, Unused: true}
	}
	return &http.Reset{Reason: http.RemoteConnectionFailure, Detail: failed.Reason, Unused: true}
}

// WriteHead sends nothing of the request's head: it ends here.
func (x *raw) WriteHead(_ *http.Request, last bool) error {
	if !last {
		return nil
	}
	return x.WriteBody(nil, true)
}

// WriteBody writes bytes to the endpoint, the last ones with the end of our direction.
func (x *raw) WriteBody(p []byte, last bool) error {
	if err := x.Flush(); err != nil {
		return err
	}
	if len(p) > 0 {
		n, err := x.conn.Write(p)
		x.stats.CxTxBytes.Add(uint64(n))
		if err != nil {
			return x.broken(err)
		}
	}
	if !last {
		return nil
	}
	if err := x.conn.CloseWrite(); err != nil {
		return x.broken(err)
	}
	return nil
}

// WriteTrailers ends our direction: there is no room for trailers.
func (x *raw) WriteTrailers(*http.Headers) error { return x.WriteBody(nil, true) }

// Flush writes what comes ahead of the bytes; nothing else is held back.
func (x *raw) Flush() error {
	if len(x.head) == 0 {
		return nil
	}
	head := x.head
	x.head = nil
	n, err := x.conn.Write(head)
	x.stats.CxTxBytes.Add(uint64(n))
	if err != nil {
		return x.broken(err)
	}
	return nil
}

// ReadHead answers for the endpoint, which is connected: 200.
func (x *raw) ReadHead(r *http.Response) error {
	if err := x.Flush(); err != nil {
		return err
	}
	return x.Await(r)
}

// Await is ReadHead without the flush.
func (x *raw) Await(r *http.Response) error {
	r.Status, r.Reason, r.Protocol, r.ContentLength, r.Body = 200, nil, http.HTTP11, -1, x
	r.Headers.Reset()
	return nil
}

// Next returns what the endpoint says.
func (x *raw) Next() ([]byte, error) {
	switch {
	case x.failed != nil:
		return nil, x.failed
	case x.ended.Load():
		return nil, io.EOF
	case x.piece == nil:
		x.piece = rawPieces.Get().(*[rawPiece]byte)
	}
	n, err := x.conn.Read(x.piece[:])
	x.stats.CxRxBytes.Add(uint64(n))
	if n > 0 {
		return x.piece[:n], nil
	}
	if errors.Is(err, io.EOF) {
		x.ended.Store(true)
		return nil, io.EOF
	}
	x.failed = x.broken(err)
	return nil, x.failed
}

// Ready is false: what comes is found out by reading.
func (x *raw) Ready() bool { return x.failed != nil || x.ended.Load() }

// Done reports that the endpoint has ended its direction.
func (x *raw) Done() bool { return x.ended.Load() }

// Trailers are none.
func (x *raw) Trailers() *http.Headers { return nil }

// broken turns an error of the connection into the router's.
func (x *raw) broken(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return &http.Reset{Reason: http.ConnectionTermination}
}

// SetDeadline bounds later reads and writes.
func (x *raw) SetDeadline(t time.Time) {
	_ = x.conn.SetReadDeadline(t) // a closed connection fails the read itself
	_ = x.conn.SetWriteDeadline(t)
}

// Interrupt closes the connection under those who use it.
func (x *raw) Interrupt() {
	if x.cut.CompareAndSwap(false, true) {
		_ = x.conn.Close()
	}
}

// LocalAddr is our end of the connection.
func (x *raw) LocalAddr() netip.AddrPort { return x.conn.LocalAddr() }

// Handshake is that of the connection.
func (x *raw) Handshake() *streaminfo.TLS { return x.conn.Handshake() }

// Protocol is that of HTTP/1.1, for there is none.
func (x *raw) Protocol() http.Protocol { return http.HTTP11 }

// Reused is false: each request has a connection of its own.
func (x *raw) Reused() bool { return false }

// Release ends the connection.
func (x *raw) Release() {
	_ = x.conn.Close()
	if x.piece != nil {
		rawPieces.Put(x.piece)
		x.piece = nil
	}
}

var _ interface {
	http.ClientStream
	http.Body
} = (*raw)(nil)
