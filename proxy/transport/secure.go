package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// tlsAhead is what WaitReadable may decrypt before its reader comes with a buffer.
const tlsAhead = 2 << 10

// joined is the size up to which WriteBuffers puts slices into one record.
const joined = maxPlain

var (
	aheadBuffers  = sync.Pool{New: func() any { return new([tlsAhead]byte) }}
	joinedBuffers = sync.Pool{New: func() any { return new([joined]byte) }}
)

// secure is a TLS connection after its handshake.
type secure struct {
	c       *tls.Conn
	records *records
	state   tls.ConnectionState
	drained bool // the last read took all that was decrypted

	aheadBuf *[tlsAhead]byte
	ahead    []byte // decrypted while waiting
	err      error  // end of the stream, as a read or a wait found it

	local, remote netip.AddrPort
	facts         *streaminfo.TLS // of a client
}

// establish makes c, which runs over r, ready for use. When that fails the socket is closed.
func establish(ctx context.Context, c *tls.Conn, r *records, s *tlsStats) (*secure, error) {
	if err := c.HandshakeContext(ctx); err != nil {
		s.failed(err)
		protest(r, err)
		closeOnce(r.Conn)
		failure, state := handshakeError(err), c.ConnectionState()
		failure.TLS = &state
		return nil, failure
	}
	conn := newSecure(c, r)
	s.shook(&conn.state)
	return conn, nil
}

func newSecure(c *tls.Conn, r *records) *secure {
	return &secure{
		c: c, records: r, state: c.ConnectionState(), drained: true,
		local: addrPort(r.LocalAddr()), remote: addrPort(r.RemoteAddr()),
	}
}

func (s *secure) Read(p []byte) (int, error) {
	if len(s.ahead) > 0 {
		n := copy(p, s.ahead)
		if s.ahead = s.ahead[n:]; len(s.ahead) == 0 {
			aheadBuffers.Put(s.aheadBuf)
			s.ahead, s.aheadBuf = nil, nil
		}
		return n, nil
	}
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.c.Read(p)
	if err != nil {
		s.records.ledger.read(err) // close_notify is an end too
		s.drained = true
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			s.err = err
		}
		return n, err
	}
	n += s.more(p[n:])
	s.drained = n < len(p)
	return n, nil
}

// more reads the records that are at hand. An error among them is for the next read.
func (s *secure) more(p []byte) int {
	total := 0
	s.records.still = true
	for total < len(p) && s.records.r < s.records.w {
		n, err := s.c.Read(p[total:])
		total += n
		if err != nil && !errors.Is(err, errNothing) {
			s.records.ledger.read(err)
			s.err = err
		}
		if err != nil {
			break
		}
	}
	s.records.still = false
	return total
}

// WaitReadable waits at the socket, where no buffer is held, and then decrypts: a
// record may be a session ticket or a key update and carry no byte of the stream.
func (s *secure) WaitReadable() error {
	if len(s.ahead) > 0 || s.err != nil {
		return nil
	}
	if s.drained && s.records.empty() && s.records.bare != nil {
		if err := s.records.readable(); err != nil {
			return err
		}
	}
	buf := aheadBuffers.Get().(*[tlsAhead]byte)
	n, err := s.c.Read(buf[:])
	if n > 0 {
		s.aheadBuf, s.ahead, s.drained = buf, buf[:n], n < len(buf)
		return nil
	}
	aheadBuffers.Put(buf)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	s.err = err
	return nil
}

func (s *secure) Ended() bool { return len(s.ahead) == 0 && s.err != nil }

func (s *secure) Write(p []byte) (int, error) {
	if len(p) <= maxPlain {
		return s.c.Write(p)
	}
	return s.records.together(func() (int, error) { return s.c.Write(p) })
}

// WriteBuffers joins small slices into full records: each Write makes at least one.
func (s *secure) WriteBuffers(bufs *net.Buffers) (int64, error) {
	total := 0
	for _, b := range *bufs {
		total += len(b)
	}
	if total <= maxPlain {
		return s.join(bufs)
	}
	var n int64
	_, err := s.records.together(func() (_ int, err error) {
		n, err = s.join(bufs)
		return 0, err
	})
	return n, err
}

func (s *secure) join(bufs *net.Buffers) (int64, error) {
	if len(*bufs) == 1 {
		n, err := s.c.Write((*bufs)[0])
		*bufs = nil
		return int64(n), err
	}
	buf := joinedBuffers.Get().(*[joined]byte)
	defer joinedBuffers.Put(buf)
	var total int64
	have := 0
	flush := func() error {
		n, err := s.c.Write(buf[:have])
		total, have = total+int64(n), 0
		return err
	}
	for _, b := range *bufs {
		for len(b) > 0 {
			if have == 0 && len(b) >= len(buf) { // full records without a copy
				n, err := s.c.Write(b)
				total += int64(n)
				if err != nil {
					return total, err
				}
				break
			}
			n := copy(buf[have:], b)
			have, b = have+n, b[n:]
			if have == len(buf) {
				if err := flush(); err != nil {
					return total, err
				}
			}
		}
	}
	*bufs = nil
	if have == 0 {
		return total, nil
	}
	err := flush()
	return total, err
}

func (s *secure) SetReadDeadline(t time.Time) error { return s.records.SetReadDeadline(t) }

// SetWriteDeadline goes through crypto/tls: after a write that timed out the stream is
// broken, which it must know.
func (s *secure) SetWriteDeadline(t time.Time) error { return s.c.SetWriteDeadline(t) }

// CloseWrite sends close_notify and then a FIN, as Envoy does.
func (s *secure) CloseWrite() error {
	err := s.c.CloseWrite()
	if h, ok := s.records.Conn.(interface{ CloseWrite() error }); ok {
		return errors.Join(err, h.CloseWrite())
	}
	return err
}

// Close says close_notify before it, but not behind a write that may be blocked.
func (s *secure) Close() error {
	if s.records.busy.Load() > 0 {
		return closeOnce(s.records.Conn)
	}
	if err := s.c.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return closeOnce(s.records.Conn)
	}
	return nil
}

func (s *secure) Reset() error { return reset(s.records.Conn) }

func (s *secure) LocalAddr() netip.AddrPort  { return s.local }
func (s *secure) RemoteAddr() netip.AddrPort { return s.remote }
func (s *secure) TCP() *net.TCPConn          { return nil }

func (s *secure) TLS() *tls.ConnectionState { return &s.state }

// Handshake is that of a client's connection, nil of a server's.
func (s *secure) Handshake() *streaminfo.TLS { return s.facts }
