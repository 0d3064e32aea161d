package http2

import (
	"errors"
	"io"
	"net/netip"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A ClientStream is one request and its answer. It is the router's http.ClientStream.
type ClientStream struct {
	stream
	c      *Client
	reused bool
	using  bool // it takes room in the connection
	isHead bool
	tunnel []byte  // the protocol that an extended CONNECT asks for
	at     uint64  // where its head begins in what the connection sends
	heard  bool    // anything of an answer was read
	held   []*head // all heads of the answer
	read   int     // of those that were read
}

var _ interface {
	http.ClientStream
	http.Body
} = (*ClientStream)(nil)

var clientStreams = sync.Pool{New: func() any { return new(ClientStream) }}

// start makes s an exchange of a connection, keeping its memory.
func (s *ClientStream) start(c *Client) {
	held := s.held[:0]
	s.stream.reset(&c.link)
	s.stream.client = s
	s.c, s.held, s.read = c, held, 0
	s.reused, s.using, s.isHead, s.tunnel, s.at, s.heard = c.uses > 0, true, false, nil, 0, false
}

// giveUp frees the room that the stream takes.
func (s *ClientStream) giveUp() {
	if !s.using {
		return
	}
	s.using = false
	s.c.using--
	s.c.owner.Vacated()
	s.l.report(&s.stream)
	s.c.leaveIfIdle()
}

// fault turns an error of the stream into the router's.
func fault(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	var e *Error
	if !errors.As(err, &e) {
		return err
	}
	return &http.Reset{Reason: e.reason, Unused: e.unused}
}

// WriteHead writes the head of the request. Names are lowered, fields of the connection
// dropped; an upgrade becomes an extended CONNECT, whether the peer has announced it or
// not, as Envoy does. It blocks while the connection has too much to write.
func (s *ClientStream) WriteHead(r *http.Request, last bool) error {
	c := s.c
	c.mu.Lock()
	defer c.unlock()
	if err := s.begin(); err != nil {
		return fault(err)
	}
	s.isHead = string(r.Method) == "HEAD"
	if r.Upgrade != nil {
		s.tunnel = r.Upgrade
	}
	c.sendHead(s.id, last, func(b []byte) []byte { return c.enc.request(b, r) })
	s.headed = true
	if last {
		s.endSent()
	}
	return nil
}

// begin gives the stream its number, as late as possible: numbers are sent in order.
func (s *ClientStream) begin() error {
	c := s.c
	if err := s.roomForHead(); err != nil {
		return err
	}
	switch {
	case c.refused:
		return errRefused
	case c.ended || c.doom != nil:
		return &Error{Details: "connection_termination", Remote: true, reason: http.ConnectionTermination, unused: true}
	}
	if c.prober != nil && c.open == 0 && len(c.out) == 0 && !c.writing {
		c.prober.Mark()
		c.marked = true
	}
	id := c.last + 2
	if c.last == 0 {
		id = 1
	}
	c.last = id
	c.join(&s.stream, id)
	s.at = c.handed + uint64(len(c.out))
	c.alive.begins()
	return nil
}

// bodyless reports that an answer of that status has no body.
func (s *ClientStream) bodyless(status int) bool {
	return s.isHead || status < 200 || status == 204 || status == 304
}

// WriteBody is that of the stream, with the router's errors.
func (s *ClientStream) WriteBody(p []byte, last bool) error {
	return fault(s.stream.WriteBody(p, last))
}

// WriteTrailers ends the request.
func (s *ClientStream) WriteTrailers(h *http.Headers) error { return fault(s.stream.WriteTrailers(h)) }

// Flush makes sure that what was written is put on the wire; it does not wait for that.
func (s *ClientStream) Flush() error { return fault(s.stream.Flush()) }

// Next is that of the answer's body.
func (s *ClientStream) Next() ([]byte, error) {
	p, err := s.stream.Next()
	return p, fault(err)
}

// ReadHead flushes and waits for a head of the answer.
func (s *ClientStream) ReadHead(r *http.Response) error {
	_ = s.Flush() // an answer may be there although writing failed
	return s.Await(r)
}

// Await is ReadHead without the flush.
func (s *ClientStream) Await(r *http.Response) error {
	l := s.l
	l.mu.Lock()
	h, err := s.awaitHead()
	l.unlock()
	if err != nil {
		return fault(err)
	}
	r.Status, r.Protocol = h.status, http.HTTP2
	r.Headers.Fields = append(r.Headers.Fields[:0], h.Fields...)
	r.ContentLength, r.Body = h.length, s
	switch {
	case h.status < 200:
		r.ContentLength, r.Body = 0, http.NoBody
	case h.last || s.bodyless(h.status):
		r.ContentLength = 0
	case s.tunnel != nil && h.status == 200:
		r.Status, r.ContentLength = 101, -1
		r.Headers.Add(bytesOf("upgrade"), s.tunnel)
		r.Headers.Add(bytesOf("connection"), bytesOf("upgrade"))
	}
	return nil
}

func (s *ClientStream) awaitHead() (*head, error) {
	for {
		switch {
		case s.stopped != nil:
			return nil, s.stopped
		case s.read < len(s.held):
			s.read++
			return s.held[s.read-1], nil
		case s.err != nil:
			return nil, s.err
		case !s.wait(&s.readable):
			return nil, errDeadline
		}
	}
}

// SetDeadline bounds later reads and writes, and those that are blocked.
func (s *ClientStream) SetDeadline(t time.Time) {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	s.setDeadline(t)
}

// Interrupt ends the exchange from any goroutine: blocked calls return, the stream is
// reset. It must not be called after Release.
func (s *ClientStream) Interrupt() {
	l := s.l
	l.mu.Lock()
	defer l.unlock()
	if s.stopped == nil {
		s.stopped = errStopped
	}
	s.readable.Broadcast()
	s.writable.Broadcast()
	l.reset(&s.stream, CodeInternal)
}

// Complete reports that request and answer have ended, Broken that the peer or its
// connection has ended the exchange before.
func (s *ClientStream) Complete() bool {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.recvEnd && s.sentEnd
}

// Broken reports that the peer has ended the exchange too early.
func (s *ClientStream) Broken() bool {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.err != nil && s.err.Remote && !(s.recvEnd && s.sentEnd)
}

// LocalAddr is our end of the connection.
func (s *ClientStream) LocalAddr() netip.AddrPort { return s.l.conn.LocalAddr() }

// Handshake is the connection's, nil for a plain one.
func (s *ClientStream) Handshake() *streaminfo.TLS { return s.l.conn.Handshake() }

// Protocol is HTTP/2.
func (s *ClientStream) Protocol() http.Protocol { return http.HTTP2 }

// Reused reports that the connection has carried an earlier exchange.
func (s *ClientStream) Reused() bool { return s.reused }

// Release gives the stream's memory back; an exchange that is not complete is reset.
func (s *ClientStream) Release() {
	l := s.l
	l.mu.Lock()
	l.reset(&s.stream, CodeInternal)
	s.giveUp()
	s.drop()
	if !s.calm() {
		s.timer = nil
		s.refs.Add(1) // its alarm is running: the memory is left to the collector
	}
	l.unlock()
	s.unref()
}

// unref gives the memory back when neither the user nor the news need it.
func (s *ClientStream) unref() {
	if s.refs.Add(-1) > 0 {
		return
	}
	for i, h := range s.held {
		h.free()
		s.held[i] = nil
	}
	if s.tail != nil {
		s.tail.free()
		s.tail = nil
	}
	s.held = s.held[:0]
	clientStreams.Put(s)
}
