// Package http is the vocabulary of one HTTP exchange: heads, bodies, streams,
// filters. Codecs (http1, http2) produce and consume these values, the connection
// manager moves them through filters, the router sends them upstream.
//
// Memory: the byte slices of a head point into the buffer of the codec that read
// it, which stays untouched until the stream is over; what outlives the stream is
// copied by whoever keeps it. A filter that sets a header hands over bytes that
// live at least as long (Stream.Copy puts bytes into the stream's arena).
package http

import (
	"net/netip"
	"time"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A Protocol is an HTTP version on the wire.
type Protocol uint8

// The protocol versions.
const (
	HTTP10 Protocol = iota
	HTTP11
	HTTP2
	HTTP3
)

// String is the form of access logs: "HTTP/1.1", "HTTP/2".
func (p Protocol) String() string {
	return [...]string{"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"}[p]
}

// A Request is the head of a request with its body still to be read.
type Request struct {
	Method, Scheme, Authority, Path []byte
	// HostName is the name of the host field as the client wrote it, where that is kept
	// (preserve_case); nil otherwise.
	HostName []byte
	Protocol Protocol
	Headers  Headers
	// ContentLength is the declared length of the body, 0 for none, -1 when only
	// its end will tell.
	ContentLength int64
	Body          Body // never nil
	// Upgrade is the protocol that the connection is asked to change to ("websocket"),
	// nil otherwise. Its fields connection and upgrade are then among Headers.
	Upgrade []byte
}

// A Response is the head of a response with its body still to be read.
type Response struct {
	Status        int
	Reason        []byte // of the status line, nil: the usual one
	Protocol      Protocol
	Headers       Headers
	ContentLength int64 // as in Request
	Body          Body  // never nil
}

// A Body is one direction's bytes after the head. It is read by one goroutine.
type Body interface {
	// Next returns the next bytes, at least one, valid until the following call of
	// Next; io.EOF after the last; another error when the peer failed before the end.
	Next() ([]byte, error)
	// Ready reports that Next would not block: bytes or the end are at hand. A writer
	// flushes before it calls Next on a body that is not ready.
	Ready() bool
	// Done reports that the body has ended, without blocking: the codec knows that
	// no byte will follow. It is true for an empty body from the start.
	Done() bool
	// Trailers are valid once Next returned io.EOF; nil when there are none.
	Trailers() *Headers
}

// A ServerStream is the downstream side of one exchange: the codec's end of it, which
// has read the request's head. Its methods belong to the goroutine of the exchange.
type ServerStream interface {
	// WriteHead, WriteBody and WriteTrailers send the answer, buffered; 1xx heads may come
	// before the final one, each with last set. An HTTP/2 stream blocks in WriteBody while
	// the peer grants no window.
	WriteHead(r *Response, last bool) error
	WriteBody(p []byte, last bool) error
	WriteTrailers(h *Headers) error
	Flush() error
	// Finished reports that the request was read to its end. BodyError is why its body
	// broke off, nil if it did not.
	Finished() bool
	BodyError() error
	// Answered reports that the head of the final answer has been written, BodyWritten
	// that the answer was written to its end.
	Answered() bool
	BodyWritten() bool
	// ExpectsContinue reports that the request waits for 100 Continue.
	ExpectsContinue() bool
	// Started is when the first byte of the request came.
	Started() time.Time
	// Received and Sent are the bytes of the bodies.
	Received() uint64
	Sent() uint64
}

// A ClientStream is the upstream side of one exchange. Errors of its methods and of
// the response's body are *Reset, or os.ErrDeadlineExceeded.
type ClientStream interface {
	// WriteHead, WriteBody and WriteTrailers send the request, buffered.
	WriteHead(r *Request, last bool) error
	WriteBody(p []byte, last bool) error
	WriteTrailers(h *Headers) error
	Flush() error
	// ReadHead flushes, waits for a response head (1xx heads included, each by one
	// call) and fills r; r's bytes stay valid until Release.
	ReadHead(r *Response) error
	// Await is ReadHead without the flush, while another goroutine still writes.
	Await(r *Response) error
	// SetDeadline bounds all later reads and writes; the zero time is no bound.
	SetDeadline(t time.Time)
	// Interrupt ends the exchange from another goroutine: blocked calls return.
	Interrupter
	// LocalAddr is our end of the connection.
	LocalAddr() netip.AddrPort
	// Handshake is what TLS told about the connection, nil for plain ones.
	Handshake() *streaminfo.TLS
	// Protocol is the version spoken on it.
	Protocol() Protocol
	// Reused reports that the connection was kept alive after an earlier exchange.
	Reused() bool
	// Release gives the stream's memory back. The connection itself is used again as
	// soon as the exchange is complete and both sides allow it; an exchange that is
	// released before its end closes the connection (or resets the stream).
	Release()
}

// An Interrupter is something a goroutine waits on, which another can end.
type Interrupter interface{ Interrupt() }
