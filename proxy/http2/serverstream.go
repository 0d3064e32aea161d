package http2

import (
	"sync"
	"time"

	"golang.org/x/net/http2"

	"github.com/lateen-mesh/lateen/proxy/http"
)

const codeStreamClosed = http2.ErrCodeStreamClosed

// A ServerStream is one request and its answer. It is the http.ServerStream of the
// connection manager and the http.Body of the request.
type ServerStream struct {
	stream
	srv     *Server
	head    *head
	started time.Time
	tunnel  bool // an extended CONNECT
	refused *Error
	torn    Code // what says that the answer broke off

	leaving  sync.Mutex // Leave is called under it, so that it is not after serve
	attached interface{ Leave() }
	gone     bool // the client has left
}

var _ interface {
	http.ServerStream
	http.Body
} = (*ServerStream)(nil)

var serverStreams = sync.Pool{New: func() any { return new(ServerStream) }}

// start makes s the stream of a request.
func (s *ServerStream) start(srv *Server, h *head) {
	s.stream.reset(&srv.link)
	s.stream.server = s
	s.srv, s.head, s.tunnel = srv, h, h.protocol != nil
	s.started = time.Now()
	s.begun, s.declared = true, h.length
	if s.tunnel || string(h.method) == "CONNECT" {
		s.declared = -1
	}
	s.attached, s.gone, s.refused, s.torn = nil, false, nil, 0
}

// serve has the stream served.
func (s *ServerStream) serve() {
	srv := s.srv
	srv.serve(s)
	s.leaving.Lock()
	s.attached = nil
	s.leaving.Unlock()
	srv.finished(s)
	s.release()
}

// release gives the memory back when neither the goroutine nor the news need it.
func (s *ServerStream) release() {
	if s.refs.Add(-1) > 0 {
		return
	}
	s.head.free()
	if s.tail != nil {
		s.tail.free()
	}
	s.head, s.tail, s.srv = nil, nil, nil
	serverStreams.Put(s)
}

// left tells who is attached that the client has left.
func (s *ServerStream) left() {
	s.leaving.Lock()
	if x := s.attached; x != nil && !s.gone {
		x.Leave()
	}
	s.gone = true
	s.leaving.Unlock()
	s.release()
}

// Server is the connection of the stream.
func (s *ServerStream) Server() *Server { return s.srv }

// ID is the stream's number on the wire.
func (s *ServerStream) ID() uint32 { return s.id }

// ReadRequest fills r from the head, which has been read: it does not block. The slices
// stay valid until serve returns. An extended CONNECT comes as the GET with Upgrade that
// HTTP/1 makes of it (WriteHead takes 101 as its consent). An *Error is a head that was
// refused already; nothing is to be said to it.
func (s *ServerStream) ReadRequest(r *http.Request) error {
	if s.refused != nil {
		return s.refused
	}
	h := s.head
	r.Method, r.Scheme, r.Authority, r.Path = h.method, h.scheme, h.authority, h.path
	r.Protocol, r.Upgrade, r.Body = http.HTTP2, nil, s
	r.Headers.Fields = append(r.Headers.Fields[:0], h.Fields...)
	r.ContentLength = h.length
	switch {
	case s.tunnel:
		r.Method, r.Upgrade, r.ContentLength = bytesOf("GET"), h.protocol, -1
		r.Headers.Add(bytesOf("upgrade"), h.protocol)
		r.Headers.Add(bytesOf("connection"), bytesOf("upgrade"))
	case h.last:
		r.ContentLength = 0
	}
	return nil
}

// Attach names who is told that the client has left: by resetting the stream or with the
// connection. Leave is called once, from another goroutine (from this one if the client
// has left already), and not after serve has returned, nor after Attach(nil), which waits
// for a Leave that is under way.
func (s *ServerStream) Attach(x interface{ Leave() }) {
	s.leaving.Lock()
	defer s.leaving.Unlock()
	if s.gone && x != nil {
		x.Leave()
		return
	}
	s.attached = x
}

// StopBody ends a read of the body that is blocked in another goroutine; later ones fail.
func (s *ServerStream) StopBody() {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.stopped == nil {
		s.stopped = errBodyStopped
	}
	s.readable.Broadcast()
}

// Reset ends the stream by RST_STREAM.
func (s *ServerStream) Reset(code Code) {
	l := s.l
	l.mu.Lock()
	defer l.unlock()
	s.fail(&Error{Code: code, Details: "http2.local_reset", reason: http.LocalReset})
	l.reset(&s.stream, code)
}

// Torn makes code what ends the stream if it is not complete when serve returns, in place
// of an internal error, or of none after a complete answer.
func (s *ServerStream) Torn(code Code) {
	s.l.mu.Lock()
	s.torn = code
	s.l.mu.Unlock()
}

// WriteHead writes the head of an answer. It blocks while the connection has too much
// to write.
func (s *ServerStream) WriteHead(r *http.Response, last bool) error {
	l := s.l
	l.mu.Lock()
	defer l.unlock()
	if err := s.roomForHead(); err != nil {
		return err
	}
	informs := r.Status < 200 && !(s.tunnel && r.Status == 101)
	end := last && !informs
	l.sendHead(s.id, end, func(b []byte) []byte { return l.enc.response(b, r, s.tunnel) })
	if !informs {
		s.headed = true
		s.mute = string(s.head.method) == "HEAD" || r.Status == 204 || r.Status == 304
	}
	if end {
		s.endSent()
	}
	return nil
}

// roomForHead waits until a head may be appended.
func (s *stream) roomForHead() error {
	for {
		if err := s.refusal(); err != nil {
			return err
		}
		if len(s.l.out) < maxUnsent {
			return nil
		}
		s.l.kick()
		if err := s.pause(false); err != nil {
			return err
		}
	}
}

// Finished reports that the request was read to its end.
func (s *ServerStream) Finished() bool {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.recvEnd && !s.queue.ready()
}

// BodyError is why the request's body broke off, nil if it did not.
func (s *ServerStream) BodyError() error {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	if s.recvEnd || s.err == nil {
		return nil
	}
	return s.err
}

// Err is why the stream broke off, nil if it did not.
func (s *ServerStream) Err() *Error {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.err
}

// Answered reports that the head of the final answer has been written.
func (s *ServerStream) Answered() bool {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.headed
}

// BodyWritten reports that the answer was written to its end.
func (s *ServerStream) BodyWritten() bool {
	s.l.mu.Lock()
	defer s.l.mu.Unlock()
	return s.sentEnd
}

// ExpectsContinue reports that the request waits for 100 Continue.
func (s *ServerStream) ExpectsContinue() bool { return s.head.expect }

// Started is when the head of the request came.
func (s *ServerStream) Started() time.Time { return s.started }
