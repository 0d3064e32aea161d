package http1

import (
	"bytes"
	"errors"
	"strconv"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// ServerOptions are the settings of a Server; the zero value is Envoy's default.
type ServerOptions struct {
	Options
	MaxHeadBytes int  // 0: MaxHeadBytes
	MaxHeaders   int  // 0: MaxHeaders
	AllowHTTPS   bool // targets with scheme https, else 403
	HTTP2        bool // a connection that begins with HTTP/2's preface is told by ErrHTTP2
}

// ErrHTTP2 says that the client speaks HTTP/2 with prior knowledge: Unread has its first
// bytes.
var ErrHTTP2 = errors.New("the client speaks HTTP/2")

// preface is how Envoy tells HTTP/2: the first line of its preface without its end.
const preface = "PRI * HTTP/2"

// A Server is the downstream end of a connection. One goroutine reads requests and
// their bodies, one at a time writes answers, to the request that was read last; both
// may be the same. What is written is buffered until Flush.
type Server struct {
	in   receiver
	out  sender
	opts ServerOptions

	framing framing
	old     bool // the request came as HTTP/1.0
	head    bool // the request is HEAD
	connect bool
	close   bool // the request ends the connection
	upgrade bool // the request asks for another protocol
	status  int  // of the answer, 0 before
	checked bool // the first line of an incomplete head was seen
}

// NewServer returns the codec of an accepted connection.
func NewServer(conn transport.Conn, opts ServerOptions) *Server {
	s := &Server{}
	s.Reset(conn, opts)
	return s
}

// Reset makes s the codec of another connection, keeping its memory.
func (s *Server) Reset(conn transport.Conn, opts ServerOptions) {
	if opts.MaxHeadBytes == 0 {
		opts.MaxHeadBytes = MaxHeadBytes
	}
	if opts.MaxHeaders == 0 {
		opts.MaxHeaders = MaxHeaders
	}
	s.opts = opts
	s.in = receiver{conn: conn, head: s.in.head, lenient: true, limit: min(opts.MaxHeadBytes, largeSize-1), keep: opts.Trailers}
	s.in.done.Store(true)
	s.out = sender{conn: conn, out: s.out.out[:0], spelling: opts.Case}
}

// ReadRequest waits for a request and fills r. Its slices stay valid until the next
// call. An *Error means that the request is refused and the connection of no further
// use; other errors are the connection's.
func (s *Server) ReadRequest(r *http.Request) error {
	s.in.recycle()
	s.old, s.head, s.connect, s.close, s.upgrade, s.checked, s.status = false, false, false, false, false, false, 0
	s.out.sent = 0
	s.in.received.Store(0)
	s.in.failed = nil
	s.in.broke.Store(false)
	s.out.chunked, s.out.mute = false, false
	end, err := s.in.readHead(s.opts.MaxHeadBytes, s.early)
	if err != nil {
		return err
	}
	b := s.in.area[:end]
	if s.opts.HTTP2 && bytes.HasPrefix(b, []byte(preface)) {
		return ErrHTTP2
	}
	s.in.r = end
	return s.parse(r, b)
}

// Unread is what was read from the connection and belongs to no request.
func (s *Server) Unread() []byte { return s.in.area[s.in.r:s.in.w] }

// early refuses what cannot become a request before its head is complete.
func (s *Server) early(b []byte) error {
	if s.opts.HTTP2 && bytes.HasPrefix(b, []byte(preface)) {
		return ErrHTTP2
	}
	if !methodStart(b[0]) && !(s.opts.CustomMethods && class[b[0]]&isToken != 0) {
		return errCodec
	}
	if line, _, ok := cutLine(b); ok && !s.checked {
		s.checked = true
		var r http.Request
		return s.requestLine(&r, line)
	}
	return nil
}

// parse fills r from a complete head.
func (s *Server) parse(r *http.Request, b []byte) error {
	line, rest, _ := cutLine(b)
	if err := s.requestLine(r, line); err != nil {
		return err
	}
	f := &s.framing
	f.reset(&r.Headers)
	if err := fields(rest, s.opts.MaxHeaders, f.field); err != nil {
		return err
	}
	s.upgrade = f.upgrades && f.upgrade != nil && !http.EqualFold(f.upgrade, "h2c") && !s.ignoresUpgrade()
	if !s.upgrade {
		if err := f.refusesNominations(); err != nil {
			return err
		}
	}
	if err := s.requestTarget(r); err != nil {
		return err
	}
	if r.Authority != nil && !all(r.Authority, isAuthority) {
		return errAuthority
	}
	if s.old && !s.opts.AcceptHTTP10 {
		s.old = false // the answer says what we speak
		return errVersion
	}
	r.HostName = nil
	if s.opts.Case == AsRead {
		r.HostName = f.hostName
	}
	if s.old && r.Authority == nil && s.opts.DefaultHost != "" {
		r.Authority = []byte(s.opts.DefaultHost)
	}
	return s.frame(r)
}

// ignoresUpgrade reports that the upgrade is one that is not to be heard.
func (s *Server) ignoresUpgrade() bool {
	for i := range s.opts.IgnoreUpgrade {
		if s.opts.IgnoreUpgrade[i].Match(s.framing.upgrade) {
			return true
		}
	}
	return false
}

// frame decides how the body and the connection end.
func (s *Server) frame(r *http.Request) error {
	f := &s.framing
	if s.opts.ChunkedLength {
		f.dropLength()
	}
	n, nothing, err := f.lengths()
	if err != nil {
		return err
	}
	if s.connect && f.encodings > 0 {
		return errEncoding
	}
	if s.connect && n > 0 {
		return errConnectBody
	}
	s.close = f.close || s.old && !f.keepAlive
	r.Upgrade = nil
	if s.upgrade {
		r.Upgrade = f.upgrade
	}
	f.strip(s.upgrade)
	if f.upgrades && !s.upgrade {
		r.Headers.Remove("http2-settings")
	}
	s.body(r, n, nothing)
	return nil
}

func (s *Server) body(r *http.Request, n int64, nothing bool) {
	m := sized
	switch {
	case s.connect || s.upgrade:
		// What follows is the other protocol; a declared body is part of it.
		m, n = untilFI, -1
	case nothing:
		m, n = none, 0
	case n < 0:
		m = chunks
	}
	s.in.begin(m, n)
	r.ContentLength = n
	r.Body = &s.in
}

// requestLine parses method, target and version. It judges method and version.
func (s *Server) requestLine(r *http.Request, line []byte) error {
	if !all(line, isValue) {
		return refuse(line)
	}
	if len(line) == 0 || blank(line[0]) {
		return errCodec
	}
	method, rest := cutWord(line)
	target, rest := cutWord(rest)
	version, rest := cutWord(rest)
	if !(s.opts.CustomMethods && len(method) > 0 && all(method, isToken) || knownMethod(method)) || len(target) == 0 || len(rest) > 0 {
		return errCodec
	}
	if !all(target, isURL) {
		return errCodec
	}
	r.Method, r.Path, r.Authority, r.Scheme = method, target, nil, nil
	r.Protocol = http.HTTP11
	s.head = string(method) == "HEAD"
	s.connect = string(method) == "CONNECT"
	switch {
	case string(version) == "HTTP/1.1":
	case len(version) == 0, isVersion(version):
		s.old, r.Protocol = true, http.HTTP10
	default:
		return errCodec
	}
	return nil
}

func isVersion(v []byte) bool {
	return len(v) == 8 && string(v[:5]) == "HTTP/" && v[6] == '.' && v[5] >= '0' && v[5] <= '9' && v[7] >= '0' && v[7] <= '9'
}

// Finished reports that the request was read to its end.
func (s *Server) Finished() bool { return s.in.done.Load() }

// Closes reports that the connection ends after this exchange because the request
// says so or cannot be framed off.
func (s *Server) Closes() bool { return s.close || s.in.broke.Load() }

// Tunnels reports that the request asks for another protocol: what follows its head is
// not HTTP once the answer agrees.
func (s *Server) Tunnels() bool { return s.connect || s.upgrade }

// HTTP10 reports that the request came as HTTP/1.0.
func (s *Server) HTTP10() bool { return s.old }

// ExpectsContinue reports that the request waits for 100 Continue.
func (s *Server) ExpectsContinue() bool { return s.framing.expect }

// Started is when the first byte of the request came.
func (s *Server) Started() time.Time { return s.in.first }

// Begun reports that a byte of a request came, be it a line end before one.
func (s *Server) Begun() bool { return s.in.blank || !s.in.first.IsZero() }

// Received is how many bytes of the request's body have been read.
func (s *Server) Received() uint64 { return s.in.received.Load() }

// Sent is how many bytes of the answer's body have been written.
func (s *Server) Sent() uint64 { return s.out.sent }

// Answered reports that the head of the final answer has been written.
func (s *Server) Answered() bool { return s.status >= 200 || s.status == 101 }

// Pending reports that bytes of a further request are at hand.
func (s *Server) Pending() bool { return s.in.pending() }

// BodyError is why the request's body broke off, nil if it did not.
func (s *Server) BodyError() error {
	if !s.in.broke.Load() {
		return nil
	}
	return s.in.failed
}

// BodyWritten reports that the answer was written to its end.
func (s *Server) BodyWritten() bool { return s.out.over }

// Idle gives back the read buffer; the next ReadRequest takes a new one. It must not
// be called with bytes Pending.
func (s *Server) Idle() {
	s.in.free()
}

// ReadAhead reads bytes of a further request into what is left of the buffer while
// the present one, which is Finished, is being answered. It blocks; false means that
// the buffer is full. The connection's error is how a client that has left is noticed.
func (s *Server) ReadAhead() (bool, error) {
	if s.in.w == len(s.in.area) {
		return false, nil
	}
	return true, s.in.read()
}

// WriteHead writes the head of an answer.
func (s *Server) WriteHead(r *http.Response, last bool) error {
	c := &s.out
	if s.old {
		c.out = append(c.out, "HTTP/1.0 "...)
	} else {
		c.out = append(c.out, "HTTP/1.1 "...)
	}
	c.out = strconv.AppendInt(c.out, int64(r.Status), 10)
	c.out = append(c.out, ' ')
	if r.Reason != nil {
		c.out = append(c.out, r.Reason...)
	} else {
		c.out = append(c.out, ReasonPhrase(r.Status)...)
	}
	c.out = append(c.out, "\r\n"...)
	bare := r.Status < 200 || r.Status == 204
	sized := c.fields(&r.Headers, bare)
	s.status, c.over = r.Status, last
	c.chunked, c.mute = false, s.head || bare && r.Status != 101 || r.Status == 304
	raw := r.Status == 101 || s.connect && r.Status/100 == 2
	if s.old && !s.close && r.Status >= 200 && !r.Headers.Has("connection") {
		c.line("connection", "keep-alive")
	}
	switch {
	case bare || sized || raw || r.Status == 304:
	case last && !s.head:
		c.line("content-length", "0")
	case s.old:
		s.close = true
	default:
		c.line("transfer-encoding", "chunked")
		c.chunked = !s.head
	}
	c.out = append(c.out, "\r\n"...)
	return nil
}

// WriteBody writes bytes of the answer's body.
func (s *Server) WriteBody(p []byte, last bool) error { return s.out.body(p, last) }

// WriteTrailers ends the body.
func (s *Server) WriteTrailers(h *http.Headers) error {
	s.out.trailers(h, s.opts.Trailers)
	return nil
}

// Flush puts what was written on the wire.
func (s *Server) Flush() error { return s.out.flush() }
