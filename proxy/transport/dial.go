package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/proxy/outside"
)

// A Dialer connects sockets the way a cluster asks for. The zero value is a plain connect.
type Dialer struct {
	// Source is bound before connecting (upstream_bind_config); the zero value is none.
	Source netip.AddrPort
	// Extra take the place of Source for addresses of another family than its own; the
	// first that fits is taken.
	Extra []netip.AddrPort
	// Options are set before connecting (socket_options).
	Options []SocketOption
	// KeepAlive is tcp_keepalive; off by default, as in Envoy.
	KeepAlive net.KeepAliveConfig
	// Outside connects to addresses beyond the mesh where the proxy itself cannot; nil:
	// there is no beyond. Source and Options are not for such connections.
	Outside *outside.Door
}

// A SocketOption is one setsockopt with a number.
type SocketOption struct{ Level, Name, Value int }

// Dial connects to address, "ip:port" or "unix:/path", within timeout and ctx. Errors
// are *Error.
func (d *Dialer) Dial(ctx context.Context, address string, timeout time.Duration) (net.Conn, error) {
	network, address := "tcp", address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	if network == "tcp" {
		c, err := d.dialOutside(ctx, address, timeout)
		if err == nil {
			return c, nil
		}
		if !errors.Is(err, outside.ErrInside) && !errors.Is(err, outside.ErrNoAnswer) {
			return nil, dialError(err)
		}
	}
	nd := net.Dialer{Timeout: timeout, KeepAlive: -1, KeepAliveConfig: d.KeepAlive, FallbackDelay: -1}
	if network == "tcp" {
		if source := d.sourceFor(address); source.IsValid() {
			nd.LocalAddr = net.TCPAddrFromAddrPort(source)
		}
		if len(d.Options) > 0 {
			nd.Control = d.Control
		}
	}
	c, err := nd.DialContext(ctx, network, address)
	if err != nil {
		return nil, dialError(err)
	}
	return c, nil
}

// sourceFor is the first source of the family of address, else the first of all.
func (d *Dialer) sourceFor(address string) netip.AddrPort {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !d.Source.IsValid() {
		return d.Source
	}
	for _, s := range append([]netip.AddrPort{d.Source}, d.Extra...) {
		if s.Addr().Is4() == to.Addr().Unmap().Is4() {
			return s
		}
	}
	return d.Source
}

// dialOutside asks for a connection from outside. ErrInside says that the address is
// dialled from here; so it is when nobody answers, for then the network may have a way.
func (d *Dialer) dialOutside(ctx context.Context, address string, timeout time.Duration) (net.Conn, error) {
	to, err := netip.ParseAddrPort(address)
	if d.Outside == nil || err != nil || d.Source.IsValid() && !d.Source.Addr().IsUnspecified() {
		return nil, outside.ErrInside
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	c, err := d.Outside.Dial(ctx, to)
	if err != nil {
		return nil, err
	}
	if t, ok := c.(*net.TCPConn); ok {
		if d.KeepAlive.Enable {
			err = t.SetKeepAliveConfig(d.KeepAlive)
		} else {
			err = t.SetKeepAlive(false)
		}
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Control sets Options on a socket, for a net.Dialer.
func (d *Dialer) Control(_, _ string, c syscall.RawConn) error {
	var failed error
	err := c.Control(func(fd uintptr) {
		for _, o := range d.Options {
			failed = errors.Join(failed, unix.SetsockoptInt(int(fd), o.Level, o.Name, o.Value))
		}
	})
	return errors.Join(err, failed)
}

// FreeBind lets a socket bind to an address that the machine does not have (yet).
var FreeBind = SocketOption{Level: unix.SOL_IP, Name: unix.IP_FREEBIND, Value: 1}
