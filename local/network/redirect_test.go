package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/agent/redirect"
)

// An owner is how a sidecar is known: by its uid and gid, or by the mark of its packets.
type owner struct{ uid, mark int }

func (o owner) String() string {
	if o.uid != 0 {
		return "uid 1337"
	}
	return "mark 1337"
}

// dial connects in a pod as the owner, from an address ("": any; with a mark of its own
// when it is a client's).
func (o owner) dial(p *pod, network, from, to string) (c net.Conn, err error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			if o.mark != 0 {
				failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, o.mark)
			}
			if network == "udp" {
				failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1))
			} else if from != "" && !strings.HasPrefix(from, "127.") {
				failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1))
			}
		})
		return errors.Join(err, failed)
	}}
	if from != "" {
		at, err := netip.ParseAddrPort(from)
		if err != nil {
			return nil, err
		}
		d.LocalAddr = net.TCPAddrFromAddrPort(at)
		if network == "udp" {
			d.LocalAddr = net.UDPAddrFromAddrPort(at)
		}
	}
	failed := onThread(func() (bool, error) {
		if err := unix.Setns(int(p.ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return false, err
		}
		if o.uid != 0 { // of this thread alone, which ends
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(o.uid), uintptr(o.uid), uintptr(o.uid)); e != 0 {
				return false, e
			}
			if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(o.uid), uintptr(o.uid), uintptr(o.uid)); e != 0 {
				return false, e
			}
		}
		c, err = d.Dial(network, to)
		return false, err
	})
	return c, failed
}

// A sidecar is the simplest one: it passes on what it is given, and notes where it was to go.
type sidecar struct {
	t     *testing.T
	pod   *pod
	owner owner

	mu    sync.Mutex
	noted []string
}

// newSidecar runs one in a pod, with the rules of the annotations.
func newSidecar(t *testing.T, p *pod, o owner, annotations map[string]string) *sidecar {
	t.Helper()
	s := &sidecar{t: t, pod: p, owner: o}
	if err := p.Redirect(annotations); err != nil {
		t.Fatal(err)
	}
	s.listen(":15001", "out", func(c *net.TCPConn) (net.Conn, string, error) {
		to, err := originalDestination(c)
		if err != nil {
			return nil, "", err
		}
		far, err := o.dial(p, "tcp", "", to.String())
		return far, to.String(), err
	})
	transparent := annotations["sidecar.istio.io/interceptionMode"] == "TPROXY"
	s.listen(":15006", "in", func(c *net.TCPConn) (net.Conn, string, error) {
		if transparent {
			client := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
			to := c.LocalAddr().(*net.TCPAddr).AddrPort()
			to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
			far, err := owner{mark: 1337}.dial(p, "tcp", netip.AddrPortFrom(client, 0).String(), to.String())
			return far, to.String(), err
		}
		to, err := originalDestination(c)
		if err != nil {
			return nil, "", err
		}
		from := "127.0.0.6:0"
		if to.Addr().Is6() {
			from = "" // there is no ::6 here; the mark or uid exempts what goes to loopback
			to = netip.AddrPortFrom(netip.IPv6Loopback(), to.Port())
		}
		far, err := o.dial(p, "tcp", from, to.String())
		return far, to.String(), err
	})
	packetsIn(t, p, "127.0.0.1:15053", func([]byte, net.Addr) []byte { return []byte("sidecar") })
	s.listenDNS()
	return s
}

func (s *sidecar) listen(address, word string, connect func(*net.TCPConn) (net.Conn, string, error)) {
	s.t.Helper()
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var failed error
		err := raw.Control(func(fd uintptr) {
			failed = errors.Join(unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT, 1), unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1))
		})
		return errors.Join(err, failed)
	}}
	var l net.Listener
	err := within(s.pod.mesh.home, s.pod.ns, func() (err error) { l, err = c.Listen(context.Background(), "tcp", address); return err })
	if err != nil {
		s.t.Fatal(err)
	}
	during(s.t, l, func() { s.pass(l, word, connect) })
}

// pass passes connections on until the listener is closed.
func (s *sidecar) pass(l net.Listener, word string, connect func(*net.TCPConn) (net.Conn, string, error)) {
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	defer serving.Wait()
	defer cancel()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		serving.Go(func() {
			near := c.(*net.TCPConn)
			far, to, err := connect(near)
			s.note(word + " " + to)
			if err != nil {
				s.note(err.Error())
				reset(c)
				return
			}
			splice(ctx, near, far.(*net.TCPConn))
		})
	}
}

// listenDNS answers by TCP too, with a line.
func (s *sidecar) listenDNS() {
	listenIn(s.t, s.pod, "127.0.0.1:15053")
}

func (s *sidecar) note(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.noted = append(s.noted, what)
}

// passed returns what was noted since the last time.
func (s *sidecar) passed() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	slices.Sort(s.noted) // one connection's parts note at their own time
	all := strings.Join(s.noted, ", ")
	s.noted = nil
	return all
}

// owners are the ways that there are here to know a sidecar.
func owners() []owner {
	all := []owner{{mark: redirect.ProxyID}}
	err := onThread(func() (bool, error) {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, redirect.ProxyID, redirect.ProxyID, redirect.ProxyID); e != 0 {
			return false, e
		}
		return false, nil
	})
	if err == nil { // not an ordinary user
		all = append(all, owner{uid: redirect.ProxyID})
	}
	return all
}

func testRedirection(t *testing.T) {
	for _, o := range owners() {
		t.Run("EN-002 EN-004 "+o.String(), func(t *testing.T) { testSidecars(t, o) })
		t.Run("AN-017 AN-018 AN-019 what is left out, "+o.String(), func(t *testing.T) { testLeftOut(t, o) })
		t.Run("EN-015 questions, "+o.String(), func(t *testing.T) { testQuestions(t, o) })
		t.Run("AN-008 TPROXY, "+o.String(), func(t *testing.T) { testTransparent(t, o) })
	}
}

// web are Services that select pods, all at port 80.
func web(t *testing.T, m *mesh, by map[string]*pod) {
	t.Helper()
	var all []Service
	for address, p := range by {
		all = append(all, Service{Namespace: "default", Name: "web", Addresses: addrs(address), Ports: []Port{{Port: 80, Backends: []netip.AddrPort{netip.AddrPortFrom(p.Address(), 80)}}}})
	}
	if err := m.SetServices(all); err != nil {
		t.Fatal(err)
	}
}

func testSidecars(t *testing.T, o owner) {
	m := newMesh(t)
	a, b, plain := newPod(t, m), newPod(t, m), newPod(t, m)
	for _, p := range []*pod{a, b, plain} {
		listenIn(t, p, ":80")
		listenIn(t, p, ":15021")
	}
	sa, sb := newSidecar(t, a, o, nil), newSidecar(t, b, o, nil)
	web(t, m, map[string]*pod{"10.96.7.7": b, "10.96.7.8": a, "10.96.7.9": plain})
	there := theMachine(t)
	atA, atB, atPlain := a.Address().String()+":80", b.Address().String()+":80", plain.Address().String()+":80"
	const local, step = "[::]:80 127.0.0.1", "[::]:80 127.0.0.6"
	for _, c := range []struct {
		what     string
		from     dialer
		to, want string
		byA, byB string
	}{
		{"a Service", a, "10.96.7.7:80", step, "out 10.96.7.7:80", "in " + atB},
		{"a pod", a, atB, step, "out " + atB, "in " + atB},
		{"its own Service", a, "10.96.7.8:80", step, "in " + atA + ", out 10.96.7.8:80", ""},
		{"its own address", a, atA, "[::]:80 " + a.Address().String(), "", ""},
		{"its loopback", a, "127.0.0.1:80", local, "", ""},
		{"a Service without sidecar", a, "10.96.7.9:80", "[::]:80 " + a.Address().String(), "out 10.96.7.9:80", ""},
		{"from a pod without sidecar", plain, "10.96.7.7:80", step, "", "in " + atB},
		{"from the mesh", m, atB, step, "", "in " + atB},
		{"the port of its health", plain, b.Address().String() + ":15021", "[::]:15021 " + plain.Address().String(), "", ""},
		{"outside", a, toMachine(there.tcp), there.tcp + " 127.0.0.1", "out " + toMachine(there.tcp), ""},
		{"between pods without", plain, atPlain, "[::]:80 " + plain.Address().String(), "", ""},
		{"IPv6", a, netip.AddrPortFrom(b.Address6(), 80).String(), "[::]:80 ::1", "out " + netip.AddrPortFrom(b.Address6(), 80).String(), "in [::1]:80"},
	} {
		if strings.HasPrefix(c.what, "IPv6") && !m.six {
			continue
		}
		reached(t, c.from, c.to, c.want)
		if got := sa.passed(); got != c.byA {
			t.Errorf("%s: sidecar of the caller: %q, want %q", c.what, got, c.byA)
		}
		if got := sb.passed(); got != c.byB {
			t.Errorf("%s: sidecar of the called: %q, want %q", c.what, got, c.byB)
		}
	}
	t.Run("the sidecar to its own pod comes back by lo", func(t *testing.T) {
		c, err := o.dial(a, "tcp", "", atA)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if got := sa.passed(); got != "in "+atA {
			t.Errorf("%q", got)
		}
	})
	t.Run("without rules again", func(t *testing.T) {
		if err := b.Redirect(map[string]string{"sidecar.istio.io/interceptionMode": "NONE"}); err != nil {
			t.Fatal(err)
		}
		reached(t, plain, atB, "[::]:80 "+plain.Address().String())
	})
	if err := a.Redirect(map[string]string{"traffic.sidecar.istio.io/includeInboundPorts": "http"}); err == nil {
		t.Error("an annotation that means nothing is taken")
	}
}

func testLeftOut(t *testing.T, o owner) {
	m := newMesh(t)
	a, b := newPod(t, m), newPod(t, m)
	for _, address := range []string{":80", ":81", ":82"} {
		listenIn(t, b, address)
	}
	at := func(port string) string { return b.Address().String() + ":" + port }
	const prefix = "traffic.sidecar.istio.io/"
	for _, c := range []struct {
		what string
		ofA  map[string]string
		ofB  map[string]string
		to   string
		byA  bool
		byB  bool
	}{
		{"all", nil, nil, at("80"), true, true},
		{"excludeOutboundPorts", map[string]string{prefix + "excludeOutboundPorts": "81"}, nil, at("81"), false, true},
		{"excludeOutboundPorts, another", map[string]string{prefix + "excludeOutboundPorts": "81"}, nil, at("80"), true, true},
		{"excludeOutboundIPRanges", map[string]string{prefix + "excludeOutboundIPRanges": "10.244.0.0/16"}, nil, at("80"), false, true},
		{"includeOutboundIPRanges", map[string]string{prefix + "includeOutboundIPRanges": "10.96.0.0/16"}, nil, at("80"), false, true},
		{"includeOutboundIPRanges, in it", map[string]string{prefix + "includeOutboundIPRanges": "10.244.0.0/16"}, nil, at("80"), true, true},
		{"includeOutboundPorts", map[string]string{prefix + "includeOutboundIPRanges": "", prefix + "includeOutboundPorts": "82"}, nil, at("82"), true, true},
		{"excludeInboundPorts", nil, map[string]string{prefix + "excludeInboundPorts": "80,81"}, at("81"), true, false},
		{"includeInboundPorts", nil, map[string]string{prefix + "includeInboundPorts": "82"}, at("81"), true, false},
		{"includeInboundPorts, in it", nil, map[string]string{prefix + "includeInboundPorts": "82"}, at("82"), true, true},
		{"AN-020 excludeInterfaces", map[string]string{prefix + "excludeInterfaces": "eth0"}, nil, at("80"), false, true},
		{"AN-020 excludeInterfaces, inbound", nil, map[string]string{prefix + "excludeInterfaces": "eth0"}, at("80"), true, false},
		{"AN-020 kubevirtInterfaces", nil, map[string]string{prefix + "kubevirtInterfaces": "eth0", prefix + "includeOutboundIPRanges": "10.96.0.0/16"}, at("80"), true, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			sa, sb := newSidecar(t, a, o, c.ofA), newSidecar(t, b, o, c.ofB)
			if _, err := greeting(t, a, c.to); err != nil {
				t.Fatal(err)
			}
			if got := sa.passed() != ""; got != c.byA {
				t.Errorf("by the sidecar of the caller: %v", got)
			}
			if got := sb.passed() != ""; got != c.byB {
				t.Errorf("by the sidecar of the called: %v", got)
			}
		})
	}
}

func testQuestions(t *testing.T, o owner) {
	m := newMesh(t, func(options *Options) { options.CaptureDNS = true })
	a := newPod(t, m)
	newSidecar(t, a, o, nil)
	from := a.Address().String() + ":4242"
	for range 3 { // questions of a program and of the sidecar from one port, in turn
		program, err := owner{}.dial(a, "udp", from, dnsAddress+":53")
		if err != nil {
			t.Fatal(err)
		}
		answered(t, program, "sidecar")
		_ = program.Close()
		proxy, err := o.dial(a, "udp", from, dnsAddress+":53")
		if err != nil {
			t.Fatal(err)
		}
		asOwner := func(context.Context, string, string) (net.Conn, error) { return proxy, nil }
		if got := shown(lookedUp(t, dialFunc(asOwner), "udp", "nothing.default.svc.cluster.local.", dnsmessage.TypeA)); got != "none soa" {
			t.Errorf("the sidecar is answered %s", got)
		}
	}
	reached(t, a, dnsAddress+":53", "127.0.0.1:15053 "+a.Address().String())
	direct, err := o.dial(a, "tcp", "", dnsAddress+":53")
	if err != nil {
		t.Fatal(err)
	}
	asOwner := func(context.Context, string, string) (net.Conn, error) { return direct, nil }
	if got := shown(lookedUp(t, dialFunc(asOwner), "tcp", "nothing.default.svc.cluster.local.", dnsmessage.TypeA)); got != "none soa" {
		t.Errorf("the sidecar is answered %s by TCP", got)
	}
	if err := a.Redirect(map[string]string{"proxy.istio.io/config": "proxyMetadata: {ISTIO_META_DNS_CAPTURE: 'false'}"}); err != nil {
		t.Fatal(err)
	}
	if got := shown(lookedUp(t, a, "udp", "nothing.default.svc.cluster.local.", dnsmessage.TypeA)); got != "none soa" {
		t.Errorf("without capture the answer is %s", got)
	}
}

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func (f dialFunc) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return f(ctx, network, address)
}

// testTransparent is the mode in which programs see the true client.
func testTransparent(t *testing.T, o owner) {
	m := newMesh(t)
	a, b := newPod(t, m), newPod(t, m)
	listenIn(t, b, ":80")
	sb := newSidecar(t, b, o, map[string]string{"sidecar.istio.io/interceptionMode": "TPROXY"})
	at := b.Address().String() + ":80"
	for range 2 { // installed twice
		reached(t, a, at, "[::]:80 "+a.Address().String())
		if got := sb.passed(); got != "in "+at {
			t.Errorf("by the sidecar: %q", got)
		}
		if err := b.Redirect(map[string]string{"sidecar.istio.io/interceptionMode": "TPROXY"}); err != nil {
			t.Fatal(err)
		}
	}
	// Out of the pod all is as ever.
	listenIn(t, a, ":80")
	reached(t, b, a.Address().String()+":80", "[::]:80 "+b.Address().String())
	if got := sb.passed(); got != "out "+a.Address().String()+":80" {
		t.Errorf("outbound: %q", got)
	}
	if o.uid == 0 {
		return // a mark cannot tell the sidecar's two ways of calling its own pod apart
	}
	c, err := o.dial(b, "tcp", "", at)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if got := sb.passed(); got != "in "+at {
		t.Errorf("the sidecar to its own pod: %q", got)
	}
}
