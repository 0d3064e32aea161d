package http1

import (
	"bytes"
	"errors"
	"io"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// ExchangeOptions are the settings of an Exchange.
type ExchangeOptions struct {
	Options
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
	ending   atomic.Bool // the codec has the request to its end
	sent     atomic.Bool // and has written it
	heard    bool        // a head was read
	answered atomic.Bool // the final head was read
	close    bool        // the answer ends the connection
	raw      bool        // the connection carries another protocol now
	anything atomic.Bool // a byte of the request was written
	timed    atomic.Bool // a deadline is set
	hungUp   atomic.Bool // the request's end has closed the connection
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
	x.out = sender{conn: conn, out: out, spelling: opts.Case}
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
		if x.opts.FullURL && !x.connect {
			c.out = append(append(append(c.out, r.Scheme...), "://"...), r.Authority...)
		}
		c.out = append(c.out, r.Path...)
	}
	c.out = append(c.out, " HTTP/1.1\r\n"...)
	switch {
	case c.spelling == AsRead && r.HostName != nil:
		c.out = append(append(c.out, r.HostName...), ": "...)
	case c.spelling == ProperCase:
		c.out = append(c.out, "Host: "...)
	default:
		c.out = append(c.out, "host: "...)
	}
	c.out = append(append(c.out, r.Authority...), "\r\n"...)
	sized := c.fields(&r.Headers, false)
	switch {
	case sized || x.upgrade || x.connect:
	case last:
		if !bodyless(r.Method) {
			c.line("content-length", "0")
		}
	default:
		c.line("transfer-encoding", "chunked")
		c.chunked = true
	}
	c.out = append(c.out, "\r\n"...)
	x.ending.Store(last)
	return x.hangUp()
}

// hangUp closes the connection when a CONNECT has ended: as Envoy has it, there are no
// halves of a connection of HTTP/1.
func (x *Exchange) hangUp() error {
	if !x.connect || !x.ending.Load() {
		return nil
	}
	err := x.Flush()
	x.hungUp.Store(true)
	_ = x.conn.Close()
	return err
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
	if last {
		x.ending.Store(true)
	}
	if err := x.out.body(p, last); err != nil {
		return x.broken(err)
	}
	x.written()
	return x.hangUp()
}

// WriteTrailers ends the request.
func (x *Exchange) WriteTrailers(h *http.Headers) error {
	x.ending.Store(true)
	x.out.trailers(h, x.opts.Trailers)
	return x.hangUp()
}

// Flush puts what was written on the wire.
func (x *Exchange) Flush() error {
	if len(x.out.out) > 0 {
		x.anything.Store(true)
	}
	if err := x.out.flush(); err != nil {
		return x.broken(err)
	}
	x.written()
	return nil
}

// written takes note of the request's end once nothing of it is left to write. The answer
// may have been read before.
func (x *Exchange) written() {
	if len(x.out.out) == 0 && x.ending.Load() && !x.sent.Load() {
		x.sent.Store(true)
		x.settle()
	}
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
	end, err := x.in.readHead(maxAnswerHead, earlyResponse)
	if err != nil && x.in.pending() && ended(err) {
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

// maxAnswerHead is how long the head of an answer may be.
const maxAnswerHead = 80 << 10

// ended reports that the peer has ended the connection, in whatever way.
func ended(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
}

func earlyResponse(b []byte) error {
	if n := min(len(b), 5); string(b[:n]) != "HTTP/"[:n] {
		return errCodec
	}
	return nil
}

func (x *Exchange) parse(r *http.Response, b []byte) error {
	line, rest, _ := cutLine(b)
	old, err := statusLine(r, line, x.opts.ForwardReason)
	if err != nil {
		return err
	}
	f := &x.framing
	f.answer = true
	f.reset(&r.Headers)
	if err := fields(rest, MaxHeaders, f.field); err != nil {
		return err
	}
	if x.opts.ChunkedLength {
		f.dropLength()
	}
	n, nothing, err := f.lengths()
	if err != nil {
		return err
	}
	x.close = f.close || old && !f.keepAlive
	switched := r.Status == 101 && x.upgrade
	f.strip(switched)
	return x.frame(r, n, nothing, switched)
}

// frame decides how the answer's body ends.
func (x *Exchange) frame(r *http.Response, n int64, nothing, switched bool) error {
	m := sized
	if (r.Status < 200 || r.Status == 204) && (n > 0 || x.framing.encodings > 0) {
		return errCodec // answers that never have a body
	}
	switch {
	case switched || x.connect && r.Status/100 == 2:
		x.raw, m, n = true, untilFI, -1
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
		x.answered.Store(true)
		x.settle()
	}
	return nil
}

// plus may stand before a status, as Envoy reads it.
var plus = []byte("+")

// statusLine parses "HTTP/1.1 200 OK"; the reason is dropped unless it is to be kept.
func statusLine(r *http.Response, line []byte, keepReason bool) (old bool, err error) {
	version, rest := cutWord(line)
	if !isVersion(version) || controls(line) {
		return false, errCodec
	}
	code, reason := cutWord(rest)
	n, ok := length(bytes.TrimPrefix(code, plus))
	if !ok || n < 100 || n > 999 {
		return false, errCodec
	}
	r.Status, r.Protocol, r.Reason = int(n), http.HTTP11, nil
	if keepReason && len(reason) > 0 {
		r.Reason = reason
	}
	old = version[5] < '1' || version[5] == '1' && version[7] == '0'
	if old {
		r.Protocol = http.HTTP10
	}
	return old, nil
}

// settle hands the connection back as soon as the exchange is complete: the reader of the
// answer does or, if its end comes before the last of the request is written, the writer.
func (x *Exchange) settle() {
	if !x.answered.Load() || !x.in.done.Load() || x.state.Load() == returned {
		return
	}
	if x.ending.Load() && !x.sent.Load() {
		return
	}
	x.finish(x.sent.Load() && !x.close && !x.raw && !x.in.pending() && x.in.mode != untilFI)
}

func (x *Exchange) finish(reusable bool) {
	before := x.state.Swap(returned)
	if before == returned {
		return
	}
	if x.timed.Load() {
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
func (x *Exchange) Complete() bool { return x.answered.Load() && x.in.done.Load() && x.sent.Load() }

// Broken reports that the peer has ended the connection too early.
func (x *Exchange) Broken() bool { return x.ended.Load() }

// Protocol is HTTP/1.1: that is what requests are sent as.
func (x *Exchange) Protocol() http.Protocol { return http.HTTP11 }

// LocalAddr is our end of the connection.
func (x *Exchange) LocalAddr() netip.AddrPort { return x.local }

// Handshake is the connection's, nil for a plain one.
func (x *Exchange) Handshake() *streaminfo.TLS { return x.conn.Handshake() }

// Sent and Received are the bytes of the bodies.
func (x *Exchange) Sent() uint64 { return x.out.sent }

// Received is how many bytes of the answer's body have been read.
func (x *Exchange) Received() uint64 { return x.in.received.Load() }

// SetDeadline bounds later reads and writes.
func (x *Exchange) SetDeadline(t time.Time) {
	x.timed.Store(!t.IsZero())
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
	ended := x.state.Load() == running && !x.hungUp.Load()
	x.ended.Store(ended)
	return &http.Reset{Reason: http.ConnectionTermination, Unused: !x.anything.Load() || ended && !x.heard && x.owner.Untaken()}
}

// An answer is the body of an Exchange; it gives the connection back at its end.
type answer struct{ x *Exchange }

func (a answer) Next() ([]byte, error) {
	p, err := a.x.in.Next()
	if err != nil && errors.Is(err, syscall.ECONNRESET) && !a.x.raw {
		err = a.x.in.reset()
	}
	if a.x.in.done.Load() {
		a.x.settle()
	}
	if a.x.raw && errors.Is(err, io.EOF) {
		return nil, &http.Reset{Reason: http.ConnectionTermination} // there is no other end of it
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, a.x.broken(err)
	}
	return p, err
}

func (a answer) Ready() bool             { return a.x.in.Ready() }
func (a answer) Done() bool              { return a.x.in.Done() }
func (a answer) Trailers() *http.Headers { return a.x.in.Trailers() }
