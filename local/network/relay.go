package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxRelayed = 4096             // connections at once
	leaveTime  = 15 * time.Second // of a dial outside, with all of it
)

var errNoOutside = fmt.Errorf("there is no way out of this mesh: %w", unix.ENETUNREACH)

// leave opens a socket outside to what an address means there.
func (m *mesh) leave(ctx context.Context, network string, to netip.AddrPort) (*os.File, error) {
	if m.o.Outside == nil {
		return nil, errNoOutside
	}
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	return m.o.Outside.Dial(ctx, network, m.meaning(to))
}

// meaning is what an address of a pod's view is outside.
func (m *mesh) meaning(to netip.AddrPort) netip.AddrPort {
	switch a := to.Addr().Unmap(); {
	case a == m.plan.api && to.Port() == apiPort && m.o.API.IsValid():
		return m.o.API
	case a == m.plan.machine:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), to.Port())
	default:
		return netip.AddrPortFrom(m.aliases.real(a), to.Port())
	}
}

// relay serves what leaves the mesh.
func (m *mesh) relay() error {
	l, err := net.Listen("tcp", ":"+strconv.Itoa(leaveTCP))
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	m.until(l)
	m.serving.Go(func() { m.relayAll(l, m.relayOut) })
	if !m.rules.udp {
		m.log.Warn("no UDP leaves the mesh: the kernel has no TPROXY")
		return nil
	}
	return m.relayDatagrams()
}

// until closes something when the mesh ends.
func (m *mesh) until(c io.Closer) {
	m.serving.Go(func() {
		<-m.ctx.Done()
		_ = c.Close()
	})
}

// relayAll accepts and connects, a bounded number at once.
func (m *mesh) relayAll(l net.Listener, connect func(context.Context, *net.TCPConn) (*net.TCPConn, error)) {
	slots := make(chan struct{}, maxRelayed)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // out of descriptors: others end
			if !pause(m.ctx) {
				return
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		default:
			reset(c)
			continue
		}
		m.serving.Go(func() {
			defer func() { <-slots }()
			near := c.(*net.TCPConn)
			far, err := connect(m.ctx, near)
			if err != nil {
				m.log.Debug("relay", "from", c.RemoteAddr().String(), "error", err)
				reset(c)
				return
			}
			splice(m.ctx, near, far)
		})
	}
}

// pause waits a moment; false when the context ends before.
func pause(ctx context.Context) bool {
	t := time.NewTimer(10 * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// reset is how a connection ends whose destination is not to be had.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}

// relayOut connects to where a redirected connection was to go.
func (m *mesh) relayOut(ctx context.Context, c *net.TCPConn) (*net.TCPConn, error) {
	to, err := originalDestination(c)
	if err != nil {
		return nil, err
	}
	if local, ok := c.LocalAddr().(*net.TCPAddr); ok && local.AddrPort().Addr().Unmap() == to.Addr() && int(to.Port()) == local.Port {
		return nil, fmt.Errorf("%s was not redirected", to)
	}
	client, _ := netip.ParseAddrPort(c.RemoteAddr().String()) // of a TCP connection it is one
	if backend, ok := m.rules.relayed(to, client.Addr().Unmap()); ok {
		if to = backend; !m.rules.outside(backend) {
			return m.within(ctx, backend)
		}
	}
	f, err := m.leave(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	return connOf[*net.TCPConn](f)
}

// within connects to a pod.
func (m *mesh) within(ctx context.Context, to netip.AddrPort) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, leaveTime)
	defer cancel()
	c, err := m.DialContext(ctx, "tcp", to.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// connOf makes a connection of its type of a descriptor, and closes the descriptor.
func connOf[C net.Conn](f *os.File) (C, error) {
	var none C
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return none, err
	}
	own, ok := c.(C)
	if !ok {
		_ = c.Close()
		return none, fmt.Errorf("descriptor of a %T, not of a %T", c, none)
	}
	return own, nil
}

// splice carries bytes both ways until both ends have ended, and ends of one way as such.
func splice(ctx context.Context, a, b *net.TCPConn) {
	stop := context.AfterFunc(ctx, func() { reset(a); reset(b) })
	defer stop()
	defer a.Close()
	defer b.Close()
	var ways sync.WaitGroup
	way := func(to, from *net.TCPConn) {
		_, err := io.Copy(to, from)
		if err != nil { // one end is broken, so is the other
			_ = to.SetLinger(0)
			_ = to.Close()
			_ = from.Close()
			return
		}
		_ = to.CloseWrite()
	}
	ways.Go(func() { way(a, b) })
	way(b, a)
	ways.Wait()
}

// originalDestination is where a redirected connection was to go.
func originalDestination(c *net.TCPConn) (netip.AddrPort, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, err
	}
	var to netip.AddrPort
	var failed error
	err = raw.Control(func(fd uintptr) { to, failed = redirected(int(fd)) })
	if err := errors.Join(err, failed); err != nil {
		return netip.AddrPort{}, fmt.Errorf("original destination: %w", err)
	}
	return to, nil
}

// redirected asks by the family of the connection; both work on a socket of both.
func redirected(fd int) (netip.AddrPort, error) {
	four, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, unix.SO_ORIGINAL_DST) // any struct of at least 16 bytes
	if err == nil {
		b := four.Multiaddr
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
	}
	if !errors.Is(err, unix.ENOENT) {
		return netip.AddrPort{}, err
	}
	six, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, unix.SO_ORIGINAL_DST)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port := *(*[2]byte)(unsafe.Pointer(&six.Addr.Port)) //nolint:gosec // the field is in network order
	return netip.AddrPortFrom(netip.AddrFrom16(six.Addr.Addr).Unmap(), binary.BigEndian.Uint16(port[:])), nil
}
