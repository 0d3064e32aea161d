package transport

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// NewConn makes a Conn of a socket. Anything but TCP and unix sockets works too,
// without the splice path.
func NewConn(c net.Conn) Conn { return newRaw(c, nil) }

// NewConnAhead is NewConn for a socket from which ahead has already been read.
func NewConnAhead(c net.Conn, ahead []byte) Conn { return newRaw(c, ahead) }

// raw is a plain socket.
type raw struct {
	net.Conn
	wait          waiter
	ledger        ledger
	ahead         []byte // read from the socket, not yet by our reader
	err           error  // end of the stream, found while waiting
	local, remote netip.AddrPort
}

func newRaw(c net.Conn, ahead []byte) *raw {
	r := &raw{Conn: c, ahead: ahead, local: addrPort(c.LocalAddr()), remote: addrPort(c.RemoteAddr())}
	r.wait.init(c)
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
	n, err := r.Conn.Read(p)
	if err != nil {
		r.ledger.read(err)
	}
	return n, err
}

// WaitReadable peeks; where the socket has no descriptor it reads one byte ahead.
func (r *raw) WaitReadable() error {
	if len(r.ahead) > 0 || r.err != nil {
		return nil
	}
	if r.wait.conn != nil {
		return r.wait.readable()
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

func (r *raw) Ended() bool { return len(r.ahead) == 0 && (r.err != nil || r.wait.end) }

func (r *raw) Write(p []byte) (int, error) {
	r.ledger.written.Add(int64(len(p)))
	n, err := r.Conn.Write(p)
	r.ledger.wrote(int64(len(p)), int64(n), err)
	return n, err
}

func (r *raw) WriteBuffers(bufs *net.Buffers) (int64, error) {
	total := int64(0)
	for _, b := range *bufs {
		total += int64(len(b))
	}
	r.ledger.written.Add(total)
	n, err := bufs.WriteTo(r.Conn)
	r.ledger.wrote(total, n, err)
	return n, err
}

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

// A waiter waits for a socket to become readable without taking bytes from it.
type waiter struct {
	conn syscall.RawConn // nil: the socket has no descriptor
	tcp  bool
	peek func(fd uintptr) bool
	err  error // what a peek took from the socket: the kernel tells it once only
	end  bool  // the last peek found the end of the stream

	look  func(fd uintptr) // of stale, nil before its first call
	waits bool             // what look found
}

func (w *waiter) init(c net.Conn) {
	s, ok := c.(syscall.Conn)
	if !ok {
		return
	}
	conn, err := s.SyscallConn()
	if err != nil {
		return
	}
	_, w.tcp = c.(*net.TCPConn)
	w.conn, w.peek = conn, w.peekable // bound once: no allocation for each wait
}

// peekable is the body of RawConn.Read: false waits for the poller and tries again.
func (w *waiter) peekable(fd uintptr) bool {
	var b [1]byte
	for {
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		w.end = err == nil && n == 0
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return false
		case err != nil:
			w.err = os.NewSyscallError("recvfrom", err)
		}
		return true
	}
}

// readable returns when a byte or the end of the stream can be read. A passed read
// deadline is an error, and so is a reset: a later read would not see it any more.
func (w *waiter) readable() error {
	if w.err != nil {
		return w.err
	}
	if err := w.conn.Read(w.peek); err != nil {
		return err
	}
	return w.err
}

// NetConn is c as a net.Conn, for libraries that ask for one. It shares c's state.
func NetConn(c Conn) net.Conn { return netConn{c} }

type netConn struct{ Conn }

func (n netConn) LocalAddr() net.Addr  { return net.TCPAddrFromAddrPort(n.Conn.LocalAddr()) }
func (n netConn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(n.Conn.RemoteAddr()) }

func (n netConn) SetDeadline(t time.Time) error {
	return errors.Join(n.SetReadDeadline(t), n.SetWriteDeadline(t))
}
