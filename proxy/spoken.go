package proxy

import (
	"crypto/tls"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// spoken is a connection of a Model: what the client says is known beforehand, and nobody
// hears the answer.
type spoken struct {
	said     *strings.Reader
	from, to netip.AddrPort
	tls      *tls.ConnectionState
}

func newSpoken(q Question, text string) *spoken {
	s := &spoken{said: strings.NewReader(text), from: q.From, to: q.To}
	if !s.to.IsValid() {
		s.to = q.Socket
	}
	if q.TLS {
		s.tls = &tls.ConnectionState{HandshakeComplete: true, Version: tls.VersionTLS13, ServerName: q.ServerName}
	}
	return s
}

func (s *spoken) Read(p []byte) (int, error)  { return s.said.Read(p) }
func (s *spoken) Write(p []byte) (int, error) { return len(p), nil }

func (s *spoken) WriteBuffers(bufs *net.Buffers) (n int64, err error) {
	for _, b := range *bufs {
		n += int64(len(b))
	}
	*bufs = nil
	return n, nil
}

func (s *spoken) SetReadDeadline(time.Time) error  { return nil }
func (s *spoken) SetWriteDeadline(time.Time) error { return nil }

// WaitReadable returns at once: what is not said by now is the end.
func (s *spoken) WaitReadable() error { return nil }

func (s *spoken) Ended() bool                { return s.said.Len() == 0 }
func (s *spoken) CloseWrite() error          { return nil }
func (s *spoken) Close() error               { return nil }
func (s *spoken) Reset() error               { return nil }
func (s *spoken) LocalAddr() netip.AddrPort  { return s.to }
func (s *spoken) RemoteAddr() netip.AddrPort { return s.from }
func (s *spoken) TCP() *net.TCPConn          { return nil }
func (s *spoken) TLS() *tls.ConnectionState  { return s.tls }

func (s *spoken) Handshake() *streaminfo.TLS { return nil }
