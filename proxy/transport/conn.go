// Package transport turns sockets into byte streams: plain TCP and unix sockets,
// and TLS over them, on both sides of the proxy.
//
// A Dialer or a listener makes the socket; a ServerSocket or ClientSocket, compiled
// once from the transport_socket of a filter chain or cluster, makes a Conn of it.
// Certificates and roots come from the configuration or, by name, from Secrets, which
// SDS keeps up to date: a new certificate serves the next handshake and disturbs no
// connection. Failures of connects and handshakes are *Error with Envoy's words.
//
// An idle Conn holds no buffer: its reader waits in WaitReadable.
package transport

import (
	"crypto/tls"
	"net"
	"net/netip"
	"time"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A Conn is a byte stream to one peer. Codecs and filters see this and never a
// net.Conn, so that another I/O model can take the place of goroutines with
// blocking reads. Read and Write may be called from different goroutines, each
// from one at a time.
type Conn interface {
	Read(p []byte) (int, error)
	Write(p []byte) (int, error)
	// WriteBuffers writes the slices in order, in one system call where the socket
	// allows it. It may change the elements of bufs, not the bytes.
	WriteBuffers(bufs *net.Buffers) (int64, error)

	// SetReadDeadline and SetWriteDeadline bound later calls; the zero time is no bound.
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	// WaitReadable blocks until a byte (or the end) can be read, without consuming
	// it; an idle connection waits here and holds no buffer.
	WaitReadable() error
	// Ended reports that the last WaitReadable found the end of the stream, not a byte. It
	// belongs to the goroutine that waits.
	Ended() bool

	// CloseWrite ends our direction (FIN, close_notify).
	CloseWrite() error
	// Close ends both directions. It is safe to call more than once and concurrently.
	Close() error
	// Reset closes with RST, as Envoy does for aborted streams of raw connections.
	Reset() error

	LocalAddr() netip.AddrPort
	RemoteAddr() netip.AddrPort
	// TCP is the socket beneath if its bytes are exactly this stream's bytes (so
	// that the kernel can splice), else nil.
	TCP() *net.TCPConn
	// TLS is the state of the finished handshake, nil for plain connections.
	TLS() *tls.ConnectionState
	// Handshake is what logs and stats ask about that of a connection upstream, nil for plain
	// ones and downstream.
	Handshake() *streaminfo.TLS
}

// noDeadline takes a deadline away.
var noDeadline time.Time
