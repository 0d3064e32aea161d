package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// NewConn makes a Conn of a socket. Anything but TCP and unix sockets works too,
// without the splice path.
func NewConn(c net.Conn) Conn { return newRaw(c, nil) }

// NewConnAhead is NewConn for a socket from which ahead has already been read.
func NewConnAhead(c net.Conn, ahead []byte) Conn { return newRaw(c, ahead) }

// raw is a plain socket.
type raw struct {
	socket
	ahead         []byte // read from the socket, not yet by our reader
	err           error  // end of the stream, found while waiting
	local, remote netip.AddrPort
}

func newRaw(c net.Conn, ahead []byte) *raw {
	r := &raw{ahead: ahead, local: addrPort(c.LocalAddr()), remote: addrPort(c.RemoteAddr())}
	r.socket.init(c)
	return r
}

// addrPort is a socket's address; the zero value for unix sockets.
func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	p := t.AddrPort()
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func (r *raw) Read(p []byte) (int, error) {
	if len(r.ahead) > 0 {
		n := copy(p, r.ahead)
		if r.ahead = r.ahead[n:]; len(r.ahead) == 0 {
			r.ahead = nil
		}
		return n, nil
	}
	if r.err != nil {
		return 0, r.err
	}
	return r.socket.Read(p)
}

// WaitReadable peeks; where the socket has no descriptor it reads one byte ahead.
func (r *raw) WaitReadable() error {
	if len(r.ahead) > 0 || r.err != nil {
		return nil
	}
	if r.bare != nil {
		return r.readable()
	}
	b := make([]byte, 1)
	n, err := r.Conn.Read(b)
	if n > 0 {
		r.ahead = b
		return nil
	}
	if errors.Is(err, io.EOF) {
		r.err = err
		return nil
	}
	return err
}

func (r *raw) Ended() bool { return len(r.ahead) == 0 && (r.err != nil || r.end) }

func (r *raw) CloseWrite() error {
	if c, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return r.Close()
}

func (r *raw) Close() error { return closeOnce(r.Conn) }

func (r *raw) Reset() error { return reset(r.Conn) }

func (r *raw) LocalAddr() netip.AddrPort { return r.local }

func (r *raw) RemoteAddr() netip.AddrPort { return r.remote }

func (r *raw) TCP() *net.TCPConn {
	if len(r.ahead) > 0 {
		return nil
	}
	c, _ := r.Conn.(*net.TCPConn)
	return c
}

func (r *raw) TLS() *tls.ConnectionState { return nil }

func (r *raw) Handshake() *streaminfo.TLS { return nil }

func closeOnce(c net.Conn) error {
	if err := c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

func reset(c net.Conn) error {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // fails only on a closed socket, which needs no reset
	}
	return closeOnce(c)
}

// NetConn is c as a net.Conn, for libraries that ask for one. It shares c's state.
func NetConn(c Conn) net.Conn { return netConn{c} }

type netConn struct{ Conn }

func (n netConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(n.Conn.LocalAddr()) }
func (n netConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(n.Conn.RemoteAddr()) }

func (n netConn) SetDeadline(t time.Time) error {
	return errors.Join(n.SetReadDeadline(t), n.SetWriteDeadline(t))
}
