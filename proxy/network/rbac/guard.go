package rbac

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

var errDenied = errors.New("rbac_deny_close")

// A guard is a connection whose bytes are read only if the rules allow it.
type guard struct {
	transport.Conn
	filter *filter
	of     *network.Conn
	asked  atomic.Bool
	denied bool // of the goroutine that reads
}

// Read asks the rules when bytes have come, or the end.
func (g *guard) Read(p []byte) (int, error) {
	if g.denied {
		return 0, errDenied
	}
	n, err := g.Conn.Read(p)
	once := !g.filter.continuous && (g.asked.Load() || g.of.Approved())
	if once || n == 0 && !errors.Is(err, io.EOF) {
		return n, err
	}
	if g.asked.Store(true); g.filter.decide(g.of) {
		return n, err
	}
	g.denied = true
	g.of.Change(func(i *streaminfo.Info) { i.BytesReceived += uint64(n) }) // they are nobody's
	g.hold()
	_ = g.Conn.Close()
	return 0, errDenied
}

// hold keeps a connection that is denied for the configured delay, or until it ends. What its
// client sends is dropped.
func (g *guard) hold() {
	if g.filter.delay <= 0 || g.SetReadDeadline(time.Now().Add(g.filter.delay)) != nil {
		return
	}
	var waste [512]byte
	for {
		if _, err := g.Conn.Read(waste[:]); err != nil {
			return
		}
	}
}

// TCP is nil while bytes may not pass unseen.
func (g *guard) TCP() *net.TCPConn {
	if !g.asked.Load() || g.filter.continuous {
		return nil
	}
	return g.Conn.TCP()
}

// Stale reports that something waits in the socket, as far as the socket tells.
func (g *guard) Stale() bool {
	s, ok := g.Conn.(interface{ Stale() bool })
	return ok && s.Stale()
}
