package network

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/local/outside"
)

// toMachine is an address of the machine's loopback as pods have it.
func toMachine(address string) string {
	_, port, _ := net.SplitHostPort(address)
	return net.JoinHostPort(machineAddress, port)
}

// leaves fails unless a pod reaches what listens on the machine's loopback only.
func leaves(t *testing.T, m *mesh, from *pod) {
	t.Helper()
	there := theMachine(t)
	reached(t, from, toMachine(there.tcp), there.tcp+" 127.0.0.1")
	alias, ok := m.aliases.alias(netip.MustParseAddr("127.0.0.1"))
	if !ok {
		t.Fatal("no alias")
	}
	_, port, _ := net.SplitHostPort(there.tcp)
	reached(t, from, net.JoinHostPort(alias.String(), port), there.tcp+" 127.0.0.1")
	c, err := from.DialContext(t.Context(), "udp", toMachine(there.udp))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 {
		answered(t, c, "echo ?")
	}
}

func testRelay(t *testing.T) {
	m := newMesh(t)
	p := newPod(t, m)
	leaves(t, m, p)
	there := theMachine(t)
	if _, err := greeting(t, p, toMachine(there.refused)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("refused outside: %v, want a reset", err)
	}
	if got, err := greeting(t, p, meshAddress+":15100"); err == nil {
		t.Errorf("the relay itself says %q", got)
	}
	reached(t, m, toMachine(there.tcp), there.tcp+" 127.0.0.1") // a program in the mesh itself
	if _, err := greeting(t, m, "10.244.250.1:80"); !errors.Is(err, syscall.EHOSTUNREACH) {
		t.Errorf("no pod: %v", err)
	}
	t.Run("half-closed connections and much data", func(t *testing.T) {
		c, err := p.DialContext(t.Context(), "tcp", toMachine(there.tcp))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		const size = 8 << 20
		go func() {
			_, _ = io.Copy(c, io.LimitReader(zeros{}, size))
			_ = c.(*net.TCPConn).CloseWrite()
		}()
		r := bufio.NewReader(c)
		if _, err := r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, r); n != size || err != nil {
			t.Errorf("%d bytes came back, %v, want %d", n, err, size)
		}
	})
	t.Run("two pods of one port to one address", func(t *testing.T) {
		q := newPod(t, m)
		for _, p := range []*pod{p, q} {
			c, err := p.DialContext(t.Context(), "udp", toMachine(there.udp))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			answered(t, c, "echo ?")
		}
	})
}

// A Service without a selector may have backends that no pod is: EndpointSlices name them.
func testServicesOutside(t *testing.T) {
	m := newMesh(t)
	a, b := newPod(t, m), newPod(t, m)
	there := theMachine(t)
	_, port, _ := net.SplitHostPort(there.tcp)
	listenIn(t, b, b.Address().String()+":"+port)
	outside := netip.MustParseAddrPort(toMachine(there.tcp))
	within := netip.AddrPortFrom(b.Address(), outside.Port())
	address := netip.MustParseAddr("10.96.7.10")
	service := func(backends ...netip.AddrPort) {
		t.Helper()
		if err := m.SetServices([]Service{{Namespace: "default", Name: "legacy", Addresses: []netip.Addr{address}, Ports: []Port{
			{Port: 80, Backends: backends}, {Port: 53, Protocol: "UDP", Backends: backends},
		}}}); err != nil {
			t.Fatal(err)
		}
	}
	service(outside)
	for _, from := range []dialer{a, m} {
		reached(t, from, "10.96.7.10:80", there.tcp+" 127.0.0.1")
	}
	service(outside, within)
	seen := map[string]bool{}
	for range 200 {
		got, err := greeting(t, a, "10.96.7.10:80")
		if err != nil {
			t.Fatal(err)
		}
		if seen[got] = true; len(seen) == 2 {
			break
		}
	}
	if !seen[there.tcp+" 127.0.0.1"] || !seen[within.String()+" "+meshAddress] {
		t.Errorf("backends reached: %v", seen)
	}
	service(within)
	reached(t, a, "10.96.7.10:80", within.String()+" "+a.Address().String())
	service()
	if _, err := greeting(t, a, "10.96.7.10:80"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("no backend: %v", err)
	}
}

func testIPv6Out(t *testing.T) {
	m := newMesh(t, func(o *Options) { o.IPv6 = true })
	there := theMachine(t)
	if !m.six || there.six == "none" {
		t.Skip("this machine has no IPv6")
	}
	alias, _ := m.aliases.alias(netip.MustParseAddr("::1"))
	p := newPod(t, m)
	_, port, _ := net.SplitHostPort(there.six)
	reached(t, p, net.JoinHostPort(alias.String(), port), there.six+" ::1")
	// Not a route of this machine, as the relay finds out: it has accepted by then.
	if _, err := greeting(t, p, "[2001:db8::1]:80"); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("by IPv6: %v", err)
	}
	m.o.IPv6 = false
	without := newPod(t, m)
	if _, err := greeting(t, without, "[2001:db8::1]:80"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("by IPv6 where this machine has none: %v", err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func testAPI(t *testing.T) {
	there := theMachine(t)
	m := newMesh(t, func(o *Options) { o.API = netip.MustParseAddrPort(there.tcp) })
	p := newPod(t, m)
	// The API is a Service too, whose backend is no use to a pod.
	if err := m.SetServices([]Service{{Namespace: "default", Name: "kubernetes", Addresses: []netip.Addr{m.plan.api},
		Ports: []Port{{Port: 443, Backends: []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:6443")}}}}}); err != nil {
		t.Fatal(err)
	}
	reached(t, p, apiAddress+":443", there.tcp+" 127.0.0.1")
	reached(t, m, apiAddress+":443", there.tcp+" 127.0.0.1")
}

// An asker is a proxy's end of the socket for proxies.
type asker struct {
	t    *testing.T
	conn *net.UnixConn
}

// askFrom connects in a pod, or in the mesh (nil).
func askFrom(t *testing.T, m *mesh, p *pod, path string) asker {
	t.Helper()
	var fd int
	connect := func() (err error) {
		if fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Connect(fd, &unix.SockaddrUnix{Name: path})
	}
	var err error
	if p == nil {
		err = connect()
	} else {
		err = within(m.home, p.ns, connect)
	}
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "asker")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return asker{t, c.(*net.UnixConn)}
}

// ask sends a request and returns the answer with its descriptor.
func (a asker) ask(request string) (string, *os.File) {
	a.t.Helper()
	if _, err := a.conn.Write([]byte(request)); err != nil {
		a.t.Fatal(err)
	}
	return a.answer()
}

func (a asker) answer() (string, *os.File) {
	a.t.Helper()
	buf, oob := make([]byte, 1000), make([]byte, 100)
	n, oobn, _, _, err := a.conn.ReadMsgUnix(buf, oob)
	if err != nil {
		a.t.Fatal(err)
	}
	if oobn == 0 {
		return string(buf[:n]), nil
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		a.t.Fatal(messages, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		a.t.Fatal(fds, err)
	}
	f := os.NewFile(uintptr(fds[0]), "answer")
	a.t.Cleanup(func() { _ = f.Close() })
	return string(buf[:n]), f
}

func newDoor(t *testing.T) (*mesh, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lateen")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path := filepath.Join(dir, "outside.sock")
	return newMesh(t, func(o *Options) { o.Door = path }), path
}

func testDoor(t *testing.T) {
	m, path := newDoor(t)
	p := newPod(t, m)
	there := theMachine(t)
	a := askFrom(t, m, p, path)
	said, f := a.ask("dial tcp " + toMachine(there.tcp))
	if said != "ok" || f == nil {
		t.Fatal(said, f)
	}
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if line, err := bufio.NewReader(c).ReadString('\n'); strings.TrimSpace(line) != there.tcp+" 127.0.0.1" {
		t.Errorf("%q, %v", line, err)
	}
	said, f = a.ask("dial udp " + toMachine(there.udp))
	if said != "ok" || f == nil {
		t.Fatal(said, f)
	}
	u, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	answered(t, u, "echo ?")
	for request, want := range map[string]string{
		"dial tcp " + toMachine(there.refused):       "err 111 ",
		"dial tcp 255.255.255.255:80":                "err 101 ",
		"dial tcp " + p.Address().String() + ":80":   "err 18 ",
		"dial tcp 10.96.0.10:53":                     "err 18 ",
		"dial tcp 127.0.0.1:80":                      "err 18 ",
		"dial tcp name.test:80":                      "err 95 ",
		"dial tcp 192.0.2.1:0":                       "err 95 ",
		"dial icmp 192.0.2.1:80":                     "err 95 ",
		"listen tcp 8080":                            "err 2 ",
		"listen tcp 0":                               "err 95 ",
		"sing":                                       "err 95 ",
		strings.Repeat("dial tcp 192.0.2.1:80 ", 20): "err 95 ",
	} {
		if said, f := a.ask(request); !strings.HasPrefix(said, want) || f != nil {
			t.Errorf("%s: %q, want %q…", request, said, want)
		}
	}
	said, _ = a.ask("inside")
	ranges := strings.Fields(said)
	if ranges[0] != "ok" || !slices.Contains(ranges, "10.96.0.0/16") {
		t.Errorf("inside: %s", said)
	}
	for address, want := range map[string]bool{"10.244.0.1": true, "10.244.0.2": false, "10.244.0.3": true, "10.244.255.254": true, "10.96.0.1": true,
		"192.0.2.1": false, "198.19.0.1": false, "fd00:10:244::5": true, "fd00:10:245::5": false} {
		got := slices.ContainsFunc(ranges[1:], func(r string) bool { return netip.MustParsePrefix(r).Contains(netip.MustParseAddr(address)) })
		if got != want {
			t.Errorf("%s inside: %v", address, got)
		}
	}
	t.Run("answers come in order", func(t *testing.T) {
		a := askFrom(t, m, p, path)
		requests := []string{"dial tcp " + toMachine(there.tcp), "sing", "inside", "dial tcp " + toMachine(there.refused)}
		for _, r := range requests {
			if _, err := a.conn.Write([]byte(r)); err != nil {
				t.Fatal(err)
			}
		}
		for i, want := range []string{"ok", "err 95", "ok 10", "err 111"} {
			if said, _ := a.answer(); !strings.HasPrefix(said, want) {
				t.Errorf("%s: %q, want %q…", requests[i], said, want)
			}
		}
	})
	t.Run("a pod has a bounded number of connections", func(t *testing.T) {
		q := newPod(t, m)
		for range 128 {
			if said, _ := askFrom(t, m, q, path).ask("inside"); !strings.HasPrefix(said, "ok ") {
				t.Fatal(said)
			}
		}
		many := askFrom(t, m, q, path)
		_, _ = many.conn.Write([]byte("inside"))
		if n, _, _, _, err := many.conn.ReadMsgUnix(make([]byte, 100), nil); n != 0 && err == nil {
			t.Error("one too many is answered")
		}
		if said, _ := a.ask("inside"); !strings.HasPrefix(said, "ok ") {
			t.Errorf("another pod: %q", said)
		}
	})
	t.Run("who is in no pod is not answered", func(t *testing.T) {
		a := askFrom(t, m, nil, path)
		_, _ = a.conn.Write([]byte("inside"))
		if n, _, _, _, err := a.conn.ReadMsgUnix(make([]byte, 100), nil); n != 0 && err == nil {
			t.Error("answered")
		}
	})
	t.Run("no other user may connect", func(t *testing.T) {
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm()&0o007 != 0 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		stranger(t, path)
	})
}

// stranger connects as another user, where there are others.
func stranger(t *testing.T, path string) {
	if err := os.Chmod(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil { // not the mode alone keeps him out
		t.Fatal(err)
	}
	var n int
	err := onThread(func() (bool, error) {
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 4711, 4711, 4711); e != 0 {
			return false, e
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return false, err
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			return false, err
		}
		_, _ = unix.Write(fd, []byte("inside"))
		n, _ = unix.Read(fd, make([]byte, 100))
		return false, nil
	})
	if errors.Is(err, syscall.EINVAL) {
		t.Skip("an ordinary user has no other ids")
	}
	if err != nil || n > 0 {
		t.Errorf("another user was answered: %d bytes, %v", n, err)
	}
}

func testPublished(t *testing.T) {
	m, path := newDoor(t)
	p := newPod(t, m)
	listenIn(t, p, p.Address().String()+":8080")
	at, err := m.Publish(t.Context(), 18080, p, 8080)
	if err != nil {
		t.Fatal(err)
	}
	// The child is inside; the machine's port is reached by the way out.
	local := toMachine(at.String())
	reached(t, p, local, p.Address().String()+":8080 "+meshAddress)
	if _, err := m.Publish(t.Context(), 18081, p, 8080); err == nil {
		t.Error("a port is published twice")
	}
	other := newPod(t, m)
	second, err := m.Publish(t.Context(), 18080, other, 80)
	if err != nil || second.Port() != 18080+8000 {
		t.Errorf("a port that is taken: %v, %v", second, err)
	}
	if said, _ := askFrom(t, m, other, path).ask("listen tcp 8080"); !strings.HasPrefix(said, "err 2 ") {
		t.Errorf("another pod's port: %q", said)
	}
	proxy := askFrom(t, m, p, path)
	said, f := proxy.ask("listen tcp 8080")
	if said != "ok "+at.String() || f == nil {
		t.Fatal(said, f)
	}
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	served := make(chan struct{})
	go func() { defer close(served); echoAll(l) }()
	for range 3 {
		reached(t, p, local, l.Addr().String()+" 127.0.0.1") // the true client, as seen on the machine
	}
	_ = l.Close()
	<-served
	// The proxy has ended its listener: a new one gets a new socket for the same port.
	said, f = proxy.ask("listen tcp 8080")
	if said != "ok "+at.String() || f == nil {
		t.Fatal(said, f)
	}
	_ = f.Close()
	if said, _ := proxy.ask("listen tcp 18090"); !strings.HasPrefix(said, "err 2 ") {
		t.Errorf("a port that nobody published: %q", said)
	}
	p.PublishAsked() // a gateway's pod
	said, f = proxy.ask("listen tcp 18090")
	if said != "ok 0.0.0.0:18090" || f == nil {
		t.Fatal(said, f)
	}
	_ = f.Close()
	if said, _ := proxy.ask("listen tcp 15021"); !strings.HasPrefix(said, "err 2 ") {
		t.Errorf("a port of the proxy's own: %q", said)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := m.Publish(t.Context(), 18080, other, 81)
	if err != nil || again.Port() != 18080 {
		t.Errorf("after the pod is closed: %v, %v", again, err)
	}
	if _, err := outside.NamespaceOf(other.NetNS()); err != nil {
		t.Error(err)
	}
}
