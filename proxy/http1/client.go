package http1

import (
	"errors"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// ExchangeOptions are the settings of an Exchange.
type ExchangeOptions struct {
	PreserveCase bool
	Trailers     bool
}

// An Owner is told when an exchange needs its connection no more.
type Owner interface {
	// Finished gets the connection back, once. reusable says that another exchange may follow.
	Finished(x *Exchange, reusable bool)
	// Untaken is asked when the peer has ended the connection without a byte of an
	// answer: it reports that the peer has provably taken no byte of the request either.
	Untaken() bool
}

// An Exchange is one request and its answer on an upstream connection. It implements
// http.ClientStream but for Release and Reused. The request is written by one goroutine and the
// answer read by one; both may be the same.
type Exchange struct {
	in    receiver
	out   sender
	owner Owner
	opts  ExchangeOptions

	framing  framing
	conn     transport.Conn
	local    netip.AddrPort
	head     bool // the request is HEAD
	connect  bool
	upgrade  bool
	sent     atomic.Bool // the request is written to its end
	heard    bool        // a head was read
	answered bool        // the final head was read
	close    bool        // the answer ends the connection
	raw      bool        // the connection carries another protocol now
	anything atomic.Bool // a byte of the request was written
	timed    bool        // a deadline is set
	ended    atomic.Bool // the peer ended the connection before the exchange was complete
	state    atomic.Uint32
}

// The states of an exchange: its connection is in use, was handed back, or was closed
// by Interrupt.
const (
	running uint32 = iota
	returned
	interrupted
)

// Start makes x an exchange on conn, keeping its memory.
func (x *Exchange) Start(conn transport.Conn, owner Owner, opts ExchangeOptions) {
	in, out := x.in.head, x.out.out[:0]
	*x = Exchange{conn: conn, owner: owner, opts: opts, local: conn.LocalAddr()}
	x.in = receiver{conn: conn, head: in, limit: MaxHeadBytes, keep: opts.Trailers}
	x.out = sender{conn: conn, out: out, preserve: opts.PreserveCase}
}

// WriteHead writes the head of the request.
func (x *Exchange) WriteHead(r *http.Request, last bool) error {
	c := &x.out
	x.head, x.connect = string(r.Method) == "HEAD", string(r.Method) == "CONNECT"
	x.upgrade = r.Upgrade != nil
	c.out = append(append(c.out, r.Method...), ' ')
	if x.connect && len(r.Path) == 0 {
		c.out = append(c.out, r.Authority...)
	} else {
		c.out = append(c.out, r.Path...)
	}
	c.out = append(c.out, " HTTP/1.1\r\n"...)
	if c.preserve {
		c.out = append(c.out, "Host: "...)
	} else {
		c.out = append(c.out, "host: "...)
	}
	c.out = append(append(c.out, r.Authority...), "\r\n"...)
	sized := c.fields(&r.Headers, false)
	switch {
	case sized || x.upgrade || x.connect:
	case last:
		if !bodyless(r.Method) {
			c.out = append(c.out, "content-length: 0\r\n"...)
		}
	default:
		c.out = append(c.out, "transfer-encoding: chunked\r\n"...)
		c.chunked = true
	}
	c.out = append(c.out, "\r\n"...)
	x.sent.Store(last)
	return nil
}

// bodyless methods get no content-length when they have no body.
func bodyless(m []byte) bool {
	switch string(m) {
	case "GET", "HEAD", "DELETE", "TRACE", "CONNECT":
		return true
	}
	return false
}

// WriteBody writes bytes of the request's body.
func (x *Exchange) WriteBody(p []byte, last bool) error {
	if err := x.out.body(p, last); err != nil {
		return x.broken(err)
	}
	if last {
		x.sent.Store(true)
	}
	return nil
}

// WriteTrailers ends the request.
func (x *Exchange) WriteTrailers(h *http.Headers) error {
	x.out.trailers(h, x.opts.Trailers)
	x.sent.Store(true)
	return nil
}

// Flush puts what was written on the wire.
func (x *Exchange) Flush() error {
	if len(x.out.out) > 0 {
		x.anything.Store(true)
	}
	if err := x.out.flush(); err != nil {
		return x.broken(err)
	}
	return nil
}

// ReadHead flushes and reads the head of an answer.
func (x *Exchange) ReadHead(r *http.Response) error {
	if err := x.Flush(); err != nil && !x.readable(err) {
		return err
	}
	return x.Await(r)
}

// readable reports that an answer may lie in the socket although writing failed.
func (x *Exchange) readable(err error) bool {
	var reset *http.Reset
	return errors.As(err, &reset) && x.state.Load() == running
}

// Await is ReadHead without the flush, for a goroutine that only reads.
func (x *Exchange) Await(r *http.Response) error {
	x.in.recycle()
	end, err := x.in.readHead(MaxHeadBytes, earlyResponse)
	if errors.Is(err, io.EOF) && x.in.pending() {
		err = io.ErrUnexpectedEOF // within a head
	}
	if err != nil {
		return x.broken(err)
	}
	b := x.in.area[:end]
	x.in.r, x.heard = end, true
	if err := x.parse(r, b); err != nil {
		return x.broken(err)
	}
	return nil
}

func earlyResponse(b []byte) error {
	if n := min(len(b), 5); string(b[:n]) != "HTTP/"[:n] {
		return errCodec
	}
	return nil
}

func (x *Exchange) parse(r *http.Response, b []byte) error {
	line, rest, _ := cutLine(b)
	old, err := statusLine(r, line)
	if err != nil {
		return err
	}
	f := &x.framing
	f.reset(&r.Headers)
	if err := fields(rest, MaxHeaders, f.field); err != nil {
		return err
	}
	n, nothing, err := f.lengths()
	if err != nil {
		return err
	}
	if f.host != nil {
		r.Headers.Add([]byte("host"), f.host)
	}
	x.close = f.close || old && !f.keepAlive
	switched := r.Status == 101 && x.upgrade
	f.strip(switched)
	return x.frame(r, n, nothing, switched)
}

// frame decides how the answer's body ends.
func (x *Exchange) frame(r *http.Response, n int64, nothing, switched bool) error {
	m := sized
	switch {
	case switched || x.connect && r.Status/100 == 2:
		x.raw, m, n = true, untilFI, -1
	case r.Status == 204 && (n > 0 || x.framing.encodings > 0):
		return errCodec
	case x.head || r.Status < 200 || r.Status == 204 || r.Status == 304:
		m, n = none, 0
	case nothing:
		m, n, x.close = untilFI, -1, true
	case n < 0:
		m = chunks
	}
	x.in.begin(m, n)
	r.ContentLength, r.Body = n, answer{x}
	if r.Status >= 200 || r.Status == 101 {
		x.answered = true
		x.settle()
	}
	return nil
}

// statusLine parses "HTTP/1.1 200 OK"; the reason is dropped.
func statusLine(r *http.Response, line []byte) (old bool, err error) {
	version, rest := cutWord(line)
	if !isVersion(version) {
		return false, errCodec
	}
	code, _ := cutWord(rest)
	n, ok := length(code)
	if !ok || n < 100 || n > 999 {
		return false, errCodec
	}
	r.Status, r.Protocol = int(n), http.HTTP11
	old = version[5] < '1' || version[5] == '1' && version[7] == '0'
	if old {
		r.Protocol = http.HTTP10
	}
	return old, nil
}

// settle hands the connection back as soon as the exchange is complete.
func (x *Exchange) settle() {
	if !x.answered || !x.in.done.Load() || x.state.Load() == returned {
		return
	}
	x.finish(x.sent.Load() && !x.close && !x.raw && !x.in.pending() && x.in.mode != untilFI)
}

func (x *Exchange) finish(reusable bool) {
	before := x.state.Swap(returned)
	if before == returned {
		return
	}
	if x.timed {
		x.SetDeadline(time.Time{})
	}
	x.owner.Finished(x, reusable && before == running)
}

// Interrupt closes the connection under the exchange, from any goroutine. It does
// nothing when the connection was handed back.
func (x *Exchange) Interrupt() {
	if x.state.CompareAndSwap(running, interrupted) {
		_ = x.conn.Close()
	}
}

// End is Release for the codec's part: an exchange that is not complete closes its
// connection. keep leaves the memory with x for its next use.
func (x *Exchange) End() {
	x.finish(false)
	x.in.overflow.free()
	x.in.recycle()
	x.in.area, x.in.r, x.in.w = nil, 0, 0
	x.framing = framing{}
}

// Complete reports that request and answer have ended, Broken that the peer has ended
// the connection before. The Owner may ask once it is told.
func (x *Exchange) Complete() bool { return x.answered && x.in.done.Load() && x.sent.Load() }

// Broken reports that the peer has ended the connection too early.
func (x *Exchange) Broken() bool { return x.ended.Load() }

// LocalAddr is our end of the connection.
func (x *Exchange) LocalAddr() netip.AddrPort { return x.local }

// Sent and Received are the bytes of the bodies.
func (x *Exchange) Sent() uint64 { return x.out.sent }

// Received is how many bytes of the answer's body have been read.
func (x *Exchange) Received() uint64 { return x.in.received.Load() }

// SetDeadline bounds later reads and writes.
func (x *Exchange) SetDeadline(t time.Time) {
	x.timed = !t.IsZero()
	_ = x.conn.SetReadDeadline(t) // a closed connection fails the read itself
	_ = x.conn.SetWriteDeadline(t)
}

// broken turns an error of the connection or the codec into a Reset.
func (x *Exchange) broken(err error) error {
	var refused *Error
	var reset *http.Reset
	switch {
	case errors.As(err, &reset), errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case errors.As(err, &refused):
		return &http.Reset{Reason: http.ProtocolError}
	case errors.Is(err, io.ErrUnexpectedEOF):
		x.ended.Store(x.state.Load() == running)
		return &http.Reset{Reason: http.ProtocolError} // cut off within its framing
	}
	ended := x.state.Load() == running
	x.ended.Store(ended)
	return &http.Reset{Reason: http.ConnectionTermination, Unused: !x.anything.Load() || ended && !x.heard && x.owner.Untaken()}
}

// An answer is the body of an Exchange; it gives the connection back at its end.
type answer struct{ x *Exchange }

func (a answer) Next() ([]byte, error) {
	p, err := a.x.in.Next()
	if a.x.in.done.Load() {
		a.x.settle()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, a.x.broken(err)
	}
	return p, err
}

func (a answer) Ready() bool             { return a.x.in.Ready() }
func (a answer) Done() bool              { return a.x.in.Done() }
func (a answer) Trailers() *http.Headers { return a.x.in.Trailers() }
