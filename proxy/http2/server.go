package http2

import (
	"errors"
	"io"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A Server is the downstream end of a connection. Its methods may be called from any
// goroutine, Serve once.
type Server struct {
	link
	ahead  []byte
	serve  func(*ServerStream)
	busy   sync.WaitGroup
	resets resetGuard

	// guarded by the link's lock
	serving  int // streams whose goroutine runs
	waiting  *worker
	nwaiting int
	draining bool // Shutdown was called: what is above last is ignored
}

// NewServer returns the codec of an accepted connection. ahead are bytes that were read
// from it already: the client's preface or a part of it. serve answers one request, in a
// goroutine of its own; its ServerStream is of no use after it has returned. When it
// returns with the answer incomplete, the stream is reset, and so it is (NO_ERROR) when
// the answer is complete and the request is not.
func NewServer(conn transport.Conn, ahead []byte, o ServerOptions, serve func(*ServerStream)) *Server {
	s := &Server{serve: serve, ahead: ahead}
	s.resets.init(&o)
	s.link.init(conn, o.Options, true, serverSide{s})
	return s
}

// Serve reads frames until the connection ends, closes it, and returns when all streams
// are served. The error is nil when the end was in order: the client closed an idle
// connection, or Shutdown or Close ended it.
func (s *Server) Serve() error {
	l := &s.link
	l.in.start(s.ahead)
	s.ahead = nil
	l.mu.Lock()
	l.sayHello()
	l.kick()
	l.alive.start(l)
	l.rest()
	l.unlock()
	err := s.preface()
	if err == nil {
		err = l.read()
	}
	s.torn(err)
	idle := s.Active() == 0
	l.finish(err)
	s.busy.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leaving || errors.Is(l.err, errClosed) || errors.Is(err, io.EOF) && idle {
		return nil
	}
	return err
}

// torn refuses the request whose head was being received when the connection ended.
func (s *Server) torn(err error) {
	b, ok := errors.AsType[*connError](err)
	h := s.dec.h
	if !ok || h == nil {
		return
	}
	s.dec.h = nil
	s.mu.Lock()
	defer s.unlock()
	if h.kind != request {
		h.free()
		return
	}
	s.refuse(h, &Error{Code: b.code, Details: b.details(s.block.id), Flag: streaminfo.DownstreamProtocolError})
}

// preface reads what a client says first.
func (s *Server) preface() error {
	l := &s.link
	for {
		n := min(l.in.w, len(Preface))
		if string(l.in.b[:n]) != Preface[:n] {
			l.in.free()
			return breach(CodeProtocol, "preface invalid")
		}
		if n == len(Preface) {
			l.in.r = n
			return nil
		}
		if err := l.more(); err != nil {
			l.in.free()
			return err
		}
	}
}

// GoAway tells the client to open no further streams; those that are on their way, and
// others it opens still, are served.
func (s *Server) GoAway() { s.farewell(maxStreamID) }

// Shutdown refuses streams that the client opens from now on. Serve ends after the last
// of the others.
func (s *Server) Shutdown() {
	s.mu.Lock()
	defer s.unlock()
	if s.draining || s.ended {
		return
	}
	s.draining = true
	s.sayGoAway(s.last)
	s.leaveIfIdle()
}

func (s *Server) farewell(last uint32) {
	s.mu.Lock()
	defer s.unlock()
	if !s.draining && !s.ended {
		s.sayGoAway(last)
	}
}

func (s *Server) sayGoAway(last uint32) {
	s.out = appendGoAway(s.out, last, CodeNo, "")
	s.counted(false)
	s.opts.Stats.GoAwaySent.Inc()
	s.kick()
}

// Close ends the connection at once and all its streams with it.
func (s *Server) Close() {
	s.end(errClosed)
	_ = s.conn.Close() // the reader is told by it
}

// Active is the number of streams being served.
func (s *Server) Active() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.serving
}

func (s *Server) leaveIfIdle() {
	if s.draining && s.serving == 0 {
		s.leave()
	}
}

// serverSide is the Server as its link sees it.
type serverSide struct{ *Server }

func (s serverSide) expects(id uint32, end bool) (kind, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st := s.streams[id]; st != nil {
		if st.recvEnd {
			return nothing, breach(codeStreamClosed, "HEADERS: stream in half-closed (remote)")
		}
		return trailers, nil
	}
	if id <= s.last {
		if s.wasReset(id) {
			return nothing, nil
		}
		return nothing, breach(codeStreamClosed, "HEADERS: stream closed")
	}
	if s.draining {
		return nothing, nil
	}
	s.last = id
	s.guard.opened++
	return request, nil
}

func (s serverSide) header(id uint32, end bool, h *head) error {
	if h.kind == nothing {
		h.free()
		return nil
	}
	s.mu.Lock()
	defer s.unlock()
	if h.kind == request {
		return s.request(id, end, h)
	}
	st := s.streams[id]
	if st == nil {
		h.free()
		return nil
	}
	return s.trailers(st, end, h)
}

// request begins a stream.
func (s *Server) request(id uint32, end bool, h *head) error {
	if end && h.length > 0 && h.broken == "" {
		h.broken = "content-length without a body"
	}
	if h.protocol != nil && !s.opts.AllowConnect {
		h.broken, h.field = "extended CONNECT is not allowed", true
	}
	switch {
	case h.over:
		s.refuse(h, s.tooLarge(h))
		s.sendReset(id, CodeInternal)
		return s.doom
	case h.broken != "":
		e := &Error{Code: CodeProtocol, Details: h.details(), Flag: streaminfo.DownstreamProtocolError}
		err := s.messaging(nil, id, h)
		s.refuse(h, e)
		return err
	case s.serving >= int(s.opts.MaxConcurrentStreams):
		s.opts.Stats.StreamRefusedErrors.Inc()
		s.sendReset(id, CodeRefusedStream)
	default:
		s.begin(id, end, h)
		return nil
	}
	h.free()
	return s.doom
}

// trailers ends a request.
func (s *Server) trailers(st *stream, end bool, h *head) error {
	if !end && h.broken == "" {
		h.broken = "trailers without an end"
	}
	switch {
	case h.over:
		st.fail(s.tooLarge(h))
		s.report(st)
		s.link.reset(st, CodeInternal)
	case h.broken != "":
		err := s.messaging(st, st.id, h)
		h.free()
		return err
	case st.declared >= 0 && st.received != st.declared:
		s.opts.Stats.RxMessagingError.Inc()
		s.abort(st, CodeProtocol, remoteReset)
	default:
		s.opts.Stats.Trailers.Inc()
		st.tail = h
		s.endReceived(st)
		st.readable.Broadcast()
		return nil
	}
	h.free()
	return nil
}

// tooLarge counts a head that is larger than its limits, and says so. For Envoy it is the
// peer's reset.
func (l *link) tooLarge(h *head) *Error {
	e := &Error{Code: CodeInternal, Details: "http2.too_many_headers", Flag: streaminfo.DownstreamRemoteReset, reason: http.RemoteReset}
	if h.many {
		l.opts.Stats.HeaderOverflow.Inc()
	} else {
		l.opts.Stats.HeaderListSizeTooLarge.Inc()
		e.Details = "http2.header_list_size_too_large"
	}
	return e
}

// messaging deals with a malformed head: by the end of its stream or of the connection.
func (l *link) messaging(st *stream, id uint32, h *head) error {
	l.opts.Stats.RxMessagingError.Inc()
	switch {
	case !l.opts.Lenient:
		return &connError{code: CodeProtocol, text: h.broken, quiet: true, stream: id, own: h.details()}
	case st != nil:
		l.abort(st, CodeProtocol, h.details())
	default:
		l.sendReset(id, CodeProtocol)
	}
	return l.doom
}

func (s serverSide) reset(st *stream, code Code) error {
	started := st.server.started
	e := &Error{Code: code, Remote: true, Details: remoteReset, Flag: streaminfo.DownstreamRemoteReset}
	if code == CodeRefusedStream {
		e.Details = "http2.remote_refuse"
	}
	st.fail(e)
	s.report(st)
	s.part(st)
	return s.resets.closes(true, started)
}

func (s serverSide) goAway(uint32) {}

func (s serverSide) changed() {}

func (s serverSide) rest() { s.dismiss() }

func (s serverSide) loss(st *stream, err error) *Error {
	if b, ok := errors.AsType[*connError](err); ok {
		return &Error{Code: b.code, Details: b.details(st.id), Flag: streaminfo.DownstreamProtocolError}
	}
	e := &Error{Code: CodeCancel, Remote: true, Details: "downstream_remote_disconnect", Flag: streaminfo.DownstreamConnectionTermination}
	if errors.Is(err, errClosed) {
		e.Remote, e.Details = false, "downstream_local_disconnect"
	}
	return e
}

// closed tells a stream that its client has left.
func (s serverSide) closed(st *stream) { st.server.left() }

// begin starts the goroutine of a request.
func (s *Server) begin(id uint32, end bool, h *head) {
	st := serverStreams.Get().(*ServerStream)
	h.last = end
	st.start(s, h)
	s.join(&st.stream, id)
	st.recvEnd = end
	s.serving++
	s.alive.begins()
	s.employ(st)
}

// refuse has a request served that is none, so that it is counted and logged: ReadRequest
// says why. The stream is over already.
func (s *Server) refuse(h *head, e *Error) {
	if s.serving >= int(s.opts.MaxConcurrentStreams) {
		h.free()
		return
	}
	st := serverStreams.Get().(*ServerStream)
	st.start(s, h)
	st.err, st.refused = e, e
	s.serving++
	s.employ(st)
}

// finished gives up a stream that was served.
func (s *Server) finished(st *ServerStream) {
	s.mu.Lock()
	switch {
	case !st.open:
	case st.torn != 0:
		s.link.reset(&st.stream, st.torn)
	case !st.sentEnd:
		s.link.reset(&st.stream, CodeInternal)
	default:
		s.link.reset(&st.stream, CodeNo)
	}
	st.drop()
	if st.err == nil || !st.err.Remote {
		_ = s.resets.closes(false, time.Time{}) // it can only be the better for it
	}
	s.serving--
	s.leaveIfIdle()
	s.kick()
	s.unlock()
}
