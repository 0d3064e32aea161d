package network

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxFlows    = 2048
	flowTime    = 60 * time.Second // without a datagram
	maxDatagram = 65535
)

// A flow is the datagrams between one socket of a pod and one address outside.
type flow struct{ from, to netip.AddrPort }

// datagrams relays UDP that leaves the mesh. The first datagram of a flow comes to the
// listening socket; the flow then has two sockets, one with the destination's address
// that is connected to the pod's, and one outside. The kernel hands later ones to the
// former.
type datagrams struct {
	*mesh
	mu    sync.Mutex
	flows map[flow]*net.UDPConn // outside; nil while it is dialled
}

func (m *mesh) relayDatagrams() error {
	d := &datagrams{mesh: m, flows: map[flow]*net.UDPConn{}}
	networks := map[string]int{"udp4": unix.AF_INET}
	if m.six {
		networks["udp6"] = unix.AF_INET6
	}
	for network, af := range networks {
		c, err := listenTransparently(m.ctx, network, netip.AddrPortFrom(netip.Addr{}, leaveUDP))
		if err != nil {
			return fmt.Errorf("relay of UDP: %w", err)
		}
		m.until(c)
		m.serving.Go(func() { d.listen(c, af) })
	}
	return nil
}

// listenTransparently binds a socket to an address that need not be ours.
func listenTransparently(ctx context.Context, network string, to netip.AddrPort) (*net.UDPConn, error) {
	c := net.ListenConfig{Control: func(network, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = transparent(int(fd), network == "udp6") })
		return errors.Join(err, failed)
	}}
	address := to.String()
	if !to.Addr().IsValid() {
		address = fmt.Sprintf(":%d", to.Port())
	}
	p, err := c.ListenPacket(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return p.(*net.UDPConn), nil
}

func transparent(fd int, six bool) error {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // flows to one address
	if six {
		return errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1),
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR, 1))
	}
	return errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_TRANSPARENT, 1),
		unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVORIGDSTADDR, 1))
}

func (d *datagrams) listen(c *net.UDPConn, af int) {
	buf, oob := make([]byte, maxDatagram), make([]byte, 128)
	for {
		n, oobn, _, from, err := c.ReadMsgUDPAddrPort(buf, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		to, ok := wasFor(oob[:oobn], af)
		if !ok {
			continue
		}
		d.take(flow{netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), to}, buf[:n])
	}
}

// take sends the first datagram of a flow, and those that come until the flow has its
// own socket.
func (d *datagrams) take(f flow, datagram []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	far, known := d.flows[f]
	switch {
	case far != nil:
		_, _ = far.Write(datagram)
	case known || len(d.flows) >= maxFlows: // dropped, as UDP may be
	default:
		d.flows[f] = nil
		first := append([]byte(nil), datagram...)
		d.serving.Go(func() {
			if err := d.carry(f, first); err != nil {
				d.log.Debug("relay", "from", f.from.String(), "to", f.to.String(), "error", err)
			}
			d.mu.Lock()
			defer d.mu.Unlock()
			delete(d.flows, f)
		})
	}
}

// carry is the life of a flow.
func (d *datagrams) carry(f flow, first []byte) error {
	file, err := d.leave(d.ctx, "udp", f.to)
	if err != nil {
		return err
	}
	far, err := connOf[*net.UDPConn](file)
	if err != nil {
		return err
	}
	defer far.Close()
	near, err := d.answering(f)
	if err != nil {
		return err
	}
	defer near.Close()
	stop := context.AfterFunc(d.ctx, func() { _ = near.Close(); _ = far.Close() })
	defer stop()
	if _, err := far.Write(first); err != nil {
		return err
	}
	d.mu.Lock()
	d.flows[f] = far
	d.mu.Unlock()
	last := &activity{}
	last.touch()
	var ways sync.WaitGroup
	ways.Go(func() { last.copy(far, near) })
	last.copy(near, far)
	ways.Wait()
	return nil
}

// answering is the socket that has the destination's address and is connected to the pod's.
func (d *datagrams) answering(f flow) (*net.UDPConn, error) {
	network := "udp4"
	if f.to.Addr().Is6() {
		network = "udp6"
	}
	dial := net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(f.to), Control: func(network, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) { failed = transparent(int(fd), network == "udp6") })
		return errors.Join(err, failed)
	}}
	c, err := dial.DialContext(d.ctx, network, f.from.String())
	if err != nil {
		return nil, err
	}
	return c.(*net.UDPConn), nil
}

// activity is when a flow last carried something.
type activity struct {
	mu   sync.Mutex
	last time.Time
}

func (a *activity) touch() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.last = time.Now()
}

func (a *activity) quiet() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return time.Since(a.last)
}

// copy carries one way until a socket fails or both ways are quiet, then ends the other way.
func (a *activity) copy(to, from *net.UDPConn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, maxDatagram)
	for {
		_ = from.SetReadDeadline(time.Now().Add(flowTime))
		n, err := from.Read(buf)
		switch {
		case err == nil:
			a.touch()
			_, _ = to.Write(buf[:n])
		case errors.Is(err, os.ErrDeadlineExceeded) && a.quiet() < flowTime:
		default:
			return
		}
	}
}

// wasFor is where a datagram was to go, of its control messages.
func wasFor(oob []byte, af int) (netip.AddrPort, bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return netip.AddrPort{}, false
	}
	for _, m := range messages {
		switch {
		case af == unix.AF_INET && m.Header.Level == unix.SOL_IP && m.Header.Type == unix.IP_ORIGDSTADDR && len(m.Data) >= 8:
			return netip.AddrPortFrom(netip.AddrFrom4([4]byte(m.Data[4:8])), binary.BigEndian.Uint16(m.Data[2:4])), true
		case af == unix.AF_INET6 && m.Header.Level == unix.SOL_IPV6 && m.Header.Type == unix.IPV6_ORIGDSTADDR && len(m.Data) >= int(unsafe.Sizeof(unix.RawSockaddrInet6{})):
			return netip.AddrPortFrom(netip.AddrFrom16([16]byte(m.Data[8:24])).Unmap(), binary.BigEndian.Uint16(m.Data[2:4])), true
		}
	}
	return netip.AddrPort{}, false
}
