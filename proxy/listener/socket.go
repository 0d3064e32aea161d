package listener

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"syscall"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"golang.org/x/sys/unix"
)

// An address is one that a listener has: ip and port, or a path.
type address struct {
	ip   netip.AddrPort
	path string // unix socket, else ""
	mode uint32
}

// String is the form of Envoy's messages: "0.0.0.0:80", "[::]:80", "/run/x".
func (a address) String() string {
	if a.path != "" {
		return a.path
	}
	return a.ip.String()
}

func compileAddress(a *corepb.Address) (address, error) {
	switch a := a.GetAddress().(type) {
	case *corepb.Address_SocketAddress:
		s := a.SocketAddress
		ip, err := netip.ParseAddr(s.GetAddress())
		switch {
		case s.GetProtocol() != corepb.SocketAddress_TCP:
			return address{}, fmt.Errorf("address.socket_address.protocol %s: not supported", s.GetProtocol())
		case err != nil:
			return address{}, fmt.Errorf("malformed IP address: %s", s.GetAddress())
		case s.GetNamedPort() != "":
			return address{}, errors.New("address.socket_address.named_port: not supported")
		case s.GetNetworkNamespaceFilepath() != "":
			return address{}, errors.New("address.socket_address.network_namespace_filepath: not supported")
		case s.GetPortValue() > 65535:
			return address{}, fmt.Errorf("address.socket_address.port_value %d: not a port", s.GetPortValue())
		}
		if ip.Is4In6() && !s.GetIpv4Compat() {
			ip = ip.Unmap()
		}
		return address{ip: netip.AddrPortFrom(ip, uint16(s.GetPortValue()))}, nil
	case *corepb.Address_Pipe:
		if a.Pipe.GetPath() == "" {
			return address{}, errors.New("address.pipe.path: empty")
		}
		return address{path: a.Pipe.GetPath(), mode: a.Pipe.GetMode()}, nil
	default:
		return address{}, fmt.Errorf("address %T: not supported", a)
	}
}

// bindOptions are the settings of a listening socket. A socket serves later
// configurations of its address as long as they are equal.
type bindOptions struct {
	reusePort, transparent, freebind, v4compat bool
	multipath                                  bool
	backlog                                    int
	keepAlive                                  keepAlive
	fastOpen                                   uint32
	options                                    string // fingerprint of raw
	raw                                        []*corepb.SocketOption
}

func compileBindOptions(l *listenerpb.Listener) bindOptions {
	o := bindOptions{
		reusePort:   l.GetEnableReusePort() == nil || l.GetEnableReusePort().GetValue(),
		transparent: l.GetTransparent().GetValue(),
		freebind:    l.GetFreebind().GetValue(),
		v4compat:    l.GetAddress().GetSocketAddress().GetIpv4Compat(),
		backlog:     int(l.GetTcpBacklogSize().GetValue()),
		fastOpen:    l.GetTcpFastOpenQueueLength().GetValue(),
		multipath:   l.GetEnableMptcp(),
		keepAlive:   compileKeepAlive(l.GetTcpKeepalive()),
	}
	if l.GetTcpBacklogSize() == nil {
		o.backlog = 4096 // the kernel's limit, net.core.somaxconn, holds as well
	}
	return o.with(l.GetSocketOptions())
}

// with are the options with raw in the place of their own.
func (o bindOptions) with(raw []*corepb.SocketOption) bindOptions {
	o.raw, o.options = raw, ""
	for _, x := range raw {
		o.options += x.String() + ";"
	}
	return o
}

func (o bindOptions) equal(p bindOptions) bool {
	o.raw, p.raw = nil, nil // told by options
	return reflect.DeepEqual(o, p)
}

// keepAlive is what probes of idle connections go by, in seconds and numbers; 0 is the
// system's.
type keepAlive struct {
	on                     bool
	idle, interval, probes int
}

func compileKeepAlive(k *corepb.TcpKeepalive) keepAlive {
	return keepAlive{k != nil, int(k.GetKeepaliveTime().GetValue()), int(k.GetKeepaliveInterval().GetValue()), int(k.GetKeepaliveProbes().GetValue())}
}

// A socket is bound when configuration arrives, so that a taken port is an error of
// that configuration, and listens when its listener is warm: until then clients are
// refused rather than kept waiting.
type socket struct {
	addr    address // port 0 replaced by the real one
	asked   address
	options bindOptions
	fd      int // bound, not yet listening; -1 after listen
	ln      net.Listener
	// published is the socket of the machine around the pod for the same port, nil: none.
	published net.Listener
	closed    bool
}

// wildcard reports that the socket takes connections to any address of its family, as
// published ports come.
func (s *socket) wildcard() bool { return s.addr.path == "" && s.addr.ip.Addr().IsUnspecified() }

// bind opens a socket. The error's text is Envoy's.
func bind(a address, o bindOptions) (*socket, error) {
	fd, err := bindFD(a, o)
	if err != nil {
		return nil, &bindError{a, err}
	}
	s := &socket{addr: a, asked: a, options: o, fd: fd}
	if a.path == "" && a.ip.Port() == 0 {
		if sa, err := unix.Getsockname(fd); err == nil {
			s.addr.ip = netip.AddrPortFrom(a.ip.Addr(), portOf(sa))
		}
	}
	return s, nil
}

// A bindError is an address that cannot be had.
type bindError struct {
	address address
	err     error
}

func (e *bindError) Error() string {
	return fmt.Sprintf("cannot bind '%s': %s", e.address, reason(e.err))
}
func (e *bindError) Unwrap() error { return e.err }

// curable reports that the address may be had later: another program has it now, or the
// machine does not have it yet.
func curable(err error) bool {
	return errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL)
}

func portOf(sa unix.Sockaddr) uint16 {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return uint16(sa.Port)
	case *unix.SockaddrInet6:
		return uint16(sa.Port)
	}
	return 0
}

func bindFD(a address, o bindOptions) (int, error) {
	family, sa := sockaddr(a)
	protocol := 0
	if o.multipath && family != unix.AF_UNIX {
		protocol = unix.IPPROTO_MPTCP
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return -1, err
	}
	if err := setOptions(fd, family, o); err != nil {
		_ = unix.Close(fd) // the first error is the one to tell
		return -1, err
	}
	if family == unix.AF_UNIX && !strings.HasPrefix(a.path, "@") {
		_ = os.Remove(a.path) // a socket left behind by an earlier process
	}
	if err := unix.Bind(fd, sa); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	if family == unix.AF_UNIX && a.mode != 0 {
		if err := os.Chmod(a.path, os.FileMode(a.mode)); err != nil {
			_ = unix.Close(fd)
			return -1, err
		}
	}
	return fd, nil
}

func sockaddr(a address) (family int, sa unix.Sockaddr) {
	switch {
	case a.path != "":
		return unix.AF_UNIX, &unix.SockaddrUnix{Name: a.path}
	case a.ip.Addr().Is4():
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.ip.Port()), Addr: a.ip.Addr().As4()}
	default:
		return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.ip.Port()), Addr: a.ip.Addr().As16()}
	}
}

type option struct {
	on                 bool
	level, name, value int
}

func setOptions(fd, family int, o bindOptions) error {
	inet, v6 := family != unix.AF_UNIX, family == unix.AF_INET6
	only6 := 1
	if o.v4compat {
		only6 = 0
	}
	list := []option{
		{inet, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{inet && o.reusePort, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
		{v6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only6},
		{inet && !v6 && o.transparent, unix.SOL_IP, unix.IP_TRANSPARENT, 1},
		{v6 && o.transparent, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1},
		{inet && !v6 && o.freebind, unix.SOL_IP, unix.IP_FREEBIND, 1},
		{v6 && o.freebind, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1},
		{inet && o.fastOpen > 0, unix.IPPROTO_TCP, unix.TCP_FASTOPEN, int(o.fastOpen)},
	}
	for _, x := range list {
		if x.on {
			if err := unix.SetsockoptInt(fd, x.level, x.name, x.value); err != nil {
				return err
			}
		}
	}
	for _, x := range o.raw {
		if err := setRaw(fd, x); err != nil {
			return fmt.Errorf("socket_options %q: %w", x.GetDescription(), err)
		}
	}
	return nil
}

func setRaw(fd int, x *corepb.SocketOption) error {
	if v, ok := x.GetValue().(*corepb.SocketOption_BufValue); ok {
		return unix.SetsockoptString(fd, int(x.GetLevel()), int(x.GetName()), string(v.BufValue))
	}
	return unix.SetsockoptInt(fd, int(x.GetLevel()), int(x.GetName()), int(x.GetIntValue()))
}

// listen makes the bound socket accept connections.
func (s *socket) listen() error {
	if err := unix.Listen(s.fd, s.options.backlog); err != nil {
		return fmt.Errorf("cannot listen on '%s': %s", s.addr, reason(err))
	}
	f := os.NewFile(uintptr(s.fd), s.addr.String())
	s.fd = -1
	ln, err := net.FileListener(f) // duplicates the descriptor
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("cannot listen on '%s': %w", s.addr, err)
	}
	s.ln = ln
	return nil
}

// pending takes the connections that wait to be accepted. They are there for their
// clients, whose requests would be lost if the socket were closed over them.
func (s *socket) pending() []net.Conn { return append(queued(s.ln), queued(s.published)...) }

func queued(ln net.Listener) (conns []net.Conn) {
	l, ok := ln.(syscall.Conn)
	if !ok { // it does not listen
		return nil
	}
	raw, err := l.SyscallConn()
	if err != nil {
		return nil
	}
	_ = raw.Control(func(fd uintptr) { // fails on a closed socket, where nobody waits
		for {
			n, _, err := unix.Accept4(int(fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			if err != nil {
				return
			}
			f := os.NewFile(uintptr(n), ln.Addr().String())
			c, err := net.FileConn(f) // duplicates the descriptor
			_ = f.Close()
			if err == nil {
				conns = append(conns, c)
			}
		}
	})
	return conns
}

func (s *socket) close() {
	s.closed = true
	if s.published != nil {
		_ = s.published.Close()
	}
	if s.ln != nil {
		_ = s.ln.Close()
		return
	}
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
		s.fd = -1
	}
}

// reason is an error as C's strerror spells it, which is how Envoy and its users do:
// "Address already in use".
func reason(err error) string {
	text := err.Error()
	if _, bare := err.(syscall.Errno); bare && text != "" { //nolint:errorlint // a wrapped one has words of its own before
		return strings.ToUpper(text[:1]) + text[1:]
	}
	return text
}
