package http2

import (
	"errors"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A ClientOwner is told what becomes of a Client. Its methods are called from any
// goroutine and, but for Vacated, without a lock held; they may call the Client.
type ClientOwner interface {
	// Vacated: a stream takes its room no more, once for each that Open gave. It comes
	// before the stream's user can see the end: one who then asks again is not counted
	// twice. The connection's lock is held: it must not block nor call the Client.
	Vacated()
	// Finished: a stream needs the connection no more, once for each that Open gave;
	// another may be opened in its place. The stream itself is still its user's until
	// Release.
	Finished(*Client, *ClientStream)
	// Changed: Room or Draining is another now by the peer's word (SETTINGS, GOAWAY).
	Changed(*Client)
	// Ended: the connection is closed, once. err is nil when it ended in order: by
	// Drain, Close or after the peer's GOAWAY.
	Ended(c *Client, err error)
}

// A Client is the upstream end of a connection. Its methods may be called from any goroutine.
type Client struct {
	link
	owner  ClientOwner
	prober prober // nil where the connection cannot tell

	// guarded by the link's lock
	using    int // streams that were opened and are not finished
	uses     uint64
	marked   bool // the prober was told from where on it will be asked
	draining bool
	refused  bool // by the peer's GOAWAY: what was not sent will not be
}

// A prober is a connection that knows whether its peer can have taken what was written
// since the mark (upstream.Prober).
type prober interface {
	Mark()
	Untaken() bool
}

// NewClient starts HTTP/2 on a connection: the preface and SETTINGS are sent and a
// goroutine reads until the connection ends, which it closes.
func NewClient(conn transport.Conn, o ClientOptions, owner ClientOwner) *Client {
	c := &Client{owner: owner}
	c.prober, _ = conn.(prober)
	c.link.init(conn, o.Options, false, clientSide{c})
	l := &c.link
	l.mu.Lock()
	l.out = append(l.out, Preface...)
	l.sayHello()
	l.kick()
	l.alive.start(l)
	l.alive.hear()
	l.rest()
	l.unlock()
	go c.run()
	return c
}

// run is the goroutine that reads.
func (c *Client) run() {
	c.in.start(nil)
	err := c.read()
	c.finish(err)
	c.mu.Lock()
	if c.leaving || errors.Is(c.err, errClosed) {
		err = nil
	}
	c.mu.Unlock()
	c.owner.Ended(c, err)
}

// Open begins an exchange. It is nil when there is no room for one: see Room.
func (c *Client) Open() *ClientStream {
	c.mu.Lock()
	defer c.unlock()
	if c.room() <= 0 {
		return nil
	}
	s := clientStreams.Get().(*ClientStream)
	s.start(c)
	c.using++
	c.uses++
	return s
}

// Room is how many streams Open would give now: what the peer's
// SETTINGS_MAX_CONCURRENT_STREAMS and our own limit leave, 0 once Draining.
func (c *Client) Room() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return max(c.room(), 0)
}

func (c *Client) room() int {
	if c.draining || c.ended || c.doom != nil {
		return 0
	}
	return min(int(min(c.peerStreams, c.opts.MaxConcurrentStreams))-c.using, int(maxStreamID-c.last)/2)
}

// Active is the number of streams that are open.
func (c *Client) Active() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.using
}

// Draining reports that no stream will be opened any more: the peer has sent GOAWAY, the
// stream numbers are used up, Drain or Close was called, or the connection has ended.
func (c *Client) Draining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.draining || c.ended || c.doom != nil || c.last >= maxStreamID-2
}

// Drain closes the connection after the last of its streams, at once if there is none.
func (c *Client) Drain() {
	c.mu.Lock()
	defer c.unlock()
	c.draining = true
	c.leaveIfIdle()
}

// Close ends the connection at once and all its streams with it.
func (c *Client) Close() {
	c.end(errClosed)
	_ = c.conn.Close() // the reader is told by it
}

func (c *Client) leaveIfIdle() {
	if c.draining && c.using == 0 && !c.ended {
		c.leave()
	}
}

// clientSide is the Client as its link sees it.
type clientSide struct{ *Client }

func (c clientSide) expects(id uint32, _ bool) (kind, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := c.streams[id]
	switch {
	case st == nil && id > c.last:
		return nothing, breach(CodeProtocol, "HEADERS: stream in idle")
	case st == nil:
		return nothing, nil
	case st.recvEnd:
		return nothing, breach(codeStreamClosed, "HEADERS: stream in half-closed (remote)")
	case st.begun:
		return trailers, nil
	}
	return answer, nil
}

func (c clientSide) header(id uint32, end bool, h *head) error {
	c.mu.Lock()
	defer c.unlock()
	st := c.streams[id]
	if h.kind == nothing || st == nil {
		h.free()
		return nil
	}
	if h.kind == trailers {
		return c.onTrailers(st, end, h)
	}
	return c.answer(st, end, h)
}

// maxInforms is how many 1xx heads an answer may have.
const maxInforms = 100

// answer takes a head of an answer.
func (c *Client) answer(st *stream, end bool, h *head) error {
	s := st.client
	informs := h.status < 200
	if h.broken == "" && end {
		if informs {
			h.broken = "1xx ends the stream"
		} else if h.length > 0 && !s.bodyless(h.status) {
			h.broken = "content-length without a body"
		}
	}
	switch {
	case h.over:
		c.overflow(st, h)
		return nil
	case h.broken != "":
		err := c.messaging(st, st.id, h)
		h.free()
		return err
	case len(s.held) >= maxInforms:
		h.free()
		c.abort(st, CodeEnhanceYourCalm, remoteReset)
		return nil
	}
	h.last = end
	s.held, s.heard = append(s.held, h), true
	if !informs {
		st.begun, st.declared = true, h.length
		if st.bodiless = s.bodyless(h.status); st.bodiless {
			st.declared = -1
		}
		if end {
			c.endReceived(st)
		}
	}
	st.readable.Broadcast()
	return nil
}

// overflow ends an exchange whose answer has a head or trailers beyond the limits.
func (c *Client) overflow(st *stream, h *head) {
	st.fail(c.tooLarge(h))
	h.free()
	c.reset(st, CodeInternal)
}

// onTrailers ends an answer; trailers judges requests' (Server).
func (c *Client) onTrailers(st *stream, end bool, h *head) error {
	if !end && h.broken == "" {
		h.broken = "trailers without an end"
	}
	switch {
	case h.over:
		c.overflow(st, h)
	case h.broken != "":
		err := c.messaging(st, st.id, h)
		h.free()
		return err
	case st.declared >= 0 && st.received != st.declared:
		h.free()
		c.opts.Stats.RxMessagingError.Inc()
		c.abort(st, CodeProtocol, remoteReset)
	default:
		c.opts.Stats.Trailers.Inc()
		st.tail = h
		c.endReceived(st)
		st.readable.Broadcast()
	}
	return nil
}

func (c clientSide) reset(st *stream, code Code) error {
	e := &Error{Code: code, Remote: true, Details: remoteReset, reason: http.RemoteReset}
	switch code {
	case CodeRefusedStream:
		e.Details, e.reason, e.unused = "http2.remote_refuse", http.RemoteRefusedStream, true
	case CodeProtocol:
		e.reason = http.ProtocolError
	}
	st.fail(e)
	c.part(st)
	return nil
}

// errRefused is the end of a stream that the peer will not process.
var errRefused = &Error{Code: CodeRefusedStream, Remote: true, Details: "http2.remote_refuse", reason: http.RemoteRefusedStream, unused: true}

func (c clientSide) goAway(last uint32) {
	c.draining, c.refused, c.Client.changed = true, true, true
	for id, st := range c.streams {
		if id > last {
			st.fail(errRefused)
			c.part(st)
		}
	}
	c.leaveIfIdle()
}

func (c clientSide) rest() {}

func (c clientSide) changed() { c.owner.Changed(c.Client) }

func (c clientSide) loss(st *stream, err error) *Error {
	if b, ok := errors.AsType[*connError](err); ok {
		return &Error{Code: b.code, Details: b.details(st.id), reason: http.ProtocolError}
	}
	e := &Error{Code: CodeCancel, Remote: !errors.Is(err, errClosed), Details: "connection_termination", reason: http.ConnectionTermination}
	e.unused = st.client.at >= c.handed || !st.client.heard && c.prober != nil && c.marked && c.prober.Untaken()
	return e
}

func (c clientSide) closed(st *stream) {
	s := st.client
	c.owner.Finished(c.Client, s)
	s.unref()
}
