package outside

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A machine answers at a path: dials go to its echo service, whatever the address.
type machine struct {
	path  string
	echo  *net.TCPListener
	mu    sync.Mutex
	asked []string
	most  atomic.Int64 // connections at once
	now   atomic.Int64
	wg    sync.WaitGroup
	open  sync.Map // *net.UnixConn
	ln    *net.UnixListener
}

func newMachine(t *testing.T) *machine {
	m := &machine{path: filepath.Join(t.TempDir(), "s")}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.echo = ln.(*net.TCPListener)
	m.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			m.wg.Go(func() { defer c.Close(); _, _ = io.Copy(c, c) })
		}
	})
	m.listen(t)
	t.Cleanup(func() {
		m.stop()
		_ = ln.Close()
		m.wg.Wait()
	})
	return m
}

func (m *machine) listen(t *testing.T) {
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: m.path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	m.ln = ln
	m.wg.Go(func() {
		for {
			c, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			m.open.Store(c, nil)
			m.wg.Go(func() { m.serve(c) })
		}
	})
}

func (m *machine) stop() {
	_ = m.ln.Close()
	m.open.Range(func(c, _ any) bool { _ = c.(*net.UnixConn).Close(); return true })
}

func (m *machine) serve(c *net.UnixConn) {
	defer c.Close()
	defer m.now.Add(-1)
	for n := m.now.Add(1); ; {
		if most := m.most.Load(); n <= most || m.most.CompareAndSwap(most, n) {
			break
		}
	}
	buf := make([]byte, 512)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		request := string(buf[:n])
		m.mu.Lock()
		m.asked = append(m.asked, request)
		m.mu.Unlock()
		m.answer(c, request)
	}
}

func (m *machine) answer(c *net.UnixConn, request string) {
	_, argument, _ := strings.Cut(request, "tcp ")
	answers := map[string]string{
		"192.0.2.1:80": "err 111 connection refused", "192.0.2.2:80": "err 101 network is unreachable",
		"192.0.2.3:80": "err 18 dial it yourself", "192.0.2.4:80": "err 97 dial it yourself",
		"192.0.2.5:80": "what?", "192.0.2.6:80": "ok", "192.0.2.7:80": "err 0 nothing", "192.0.2.9:80": "err x",
		"192.0.2.10:80": strings.Repeat("x", maxAnswer+1), "81": "err 2 the pod publishes no port 81",
	}
	if text, ok := answers[argument]; ok {
		_, _ = c.Write([]byte(text))
		return
	}
	switch {
	case request == "inside":
		_, _ = c.Write([]byte("ok 10.244.0.0/16 10.96.0.1/16 fd00::/8"))
	case argument == "192.0.2.8:80": // no answer
	case request == "listen tcp 80":
		m.pass(c, m.echo)
	default:
		peer, err := net.Dial("tcp", m.echo.Addr().String())
		if err != nil {
			return
		}
		m.pass(c, peer.(*net.TCPConn))
		_ = peer.Close()
	}
}

func (m *machine) pass(c *net.UnixConn, socket syscall.Conn) {
	raw, _ := socket.SyscallConn()
	_ = raw.Control(func(fd uintptr) { _, _, _ = c.WriteMsgUnix([]byte("ok 127.0.0.1:1"), unix.UnixRights(int(fd)), nil) })
}

func (m *machine) requests() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.asked...)
}

func open(t *testing.T, path string) *Door {
	d := New(path)
	t.Cleanup(d.Close)
	return d
}

func echoes(t *testing.T, c net.Conn) {
	t.Helper()
	defer c.Close()
	if _, err := io.WriteString(c, "hello\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); line != "hello\n" {
		t.Fatalf("%q, %v", line, err)
	}
}

func TestDial(t *testing.T) {
	m := newMachine(t)
	d := open(t, m.path)
	for _, c := range []struct {
		to   string
		want error
	}{
		{"93.184.216.34:443", nil},
		{"[2001:db8::1]:443", nil},
		{"192.0.2.1:80", syscall.ECONNREFUSED},
		{"192.0.2.2:80", syscall.ENETUNREACH},
		{"192.0.2.3:80", ErrInside},
		{"192.0.2.4:80", ErrInside},
		{"10.244.3.4:80", ErrInside},
		{"[::ffff:10.96.0.10]:53", ErrInside},
		{"[fd12::1]:80", ErrInside},
		{"127.0.0.1:80", ErrInside},
		{"[::1]:80", ErrInside},
		{"169.254.169.254:80", ErrInside},
		{"192.0.2.5:80", ErrNoAnswer},
		{"192.0.2.6:80", ErrNoAnswer}, // without a descriptor
		{"192.0.2.7:80", ErrNoAnswer},
		{"192.0.2.9:80", ErrNoAnswer},
		{"192.0.2.10:80", ErrNoAnswer},
	} {
		t.Run(c.to, func(t *testing.T) {
			conn, err := d.Dial(t.Context(), netip.MustParseAddrPort(c.to))
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if err == nil {
				echoes(t, conn)
			}
			var op *net.OpError
			if _, ok := c.want.(syscall.Errno); ok && (!errors.As(err, &op) || op.Op != "dial") { //nolint:errorlint // of the table
				t.Errorf("%v is no failed dial", err)
			}
		})
	}
	for _, r := range m.requests() {
		if strings.Contains(r, "10.") && strings.HasPrefix(r, "dial tcp 10.") || strings.Contains(r, "127.0.0.1") {
			t.Errorf("asked %q", r)
		}
	}
	if n := strings.Count(strings.Join(m.requests(), "\n"), "inside"); n != 1 {
		t.Errorf("asked %d times for the ranges", n)
	}
}

func TestListen(t *testing.T) {
	m := newMachine(t)
	d := open(t, m.path)
	ln, err := d.Listen(t.Context(), 80)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := ln.Addr().String(), m.echo.Addr().String(); got != want {
		t.Errorf("listens on %s, want %s", got, want)
	}
	_ = ln.Close()
	if _, err := d.Listen(t.Context(), 81); !errors.Is(err, ErrUnpublished) {
		t.Errorf("error %v", err)
	}
}

func TestNobodyAnswers(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "none"))
	if _, err := d.Dial(t.Context(), netip.MustParseAddrPort("192.0.2.99:80")); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("dial: %v", err)
	}
	if _, err := d.Listen(t.Context(), 80); !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrUnpublished) {
		t.Errorf("listen: %v", err)
	}
}

// TestGivingUp: whoever is not answered in time leaves, and the other side is told by
// the end of the connection.
func TestGivingUp(t *testing.T) {
	m := newMachine(t)
	d := open(t, m.path)
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := d.Dial(ctx, netip.MustParseAddrPort("192.0.2.8:80"))
		failed <- err
	}()
	for len(m.requests()) < 2 { // inside, dial
		runtime.Gosched()
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	for m.now.Load() > 0 { // goes with the connection
		runtime.Gosched()
	}
	conn, err := d.Dial(t.Context(), netip.MustParseAddrPort("93.184.216.34:443"))
	if err != nil {
		t.Fatal(err)
	}
	echoes(t, conn)
}

// TestStartsAgain: a connection that was kept is not missed when who answers is another.
func TestStartsAgain(t *testing.T) {
	m := newMachine(t)
	d := open(t, m.path)
	for range 2 {
		conn, err := d.Dial(t.Context(), netip.MustParseAddrPort("93.184.216.34:443"))
		if err != nil {
			t.Fatal(err)
		}
		echoes(t, conn)
		m.stop()
		m.listen(t)
	}
}

// TestMany: however many dial, the other side sees a bounded number of connections.
func TestMany(t *testing.T) {
	m := newMachine(t)
	d := open(t, m.path)
	var wg sync.WaitGroup
	for i := range 3 * maxAsking {
		wg.Go(func() {
			conn, err := d.Dial(t.Context(), netip.MustParseAddrPort(fmt.Sprintf("198.51.100.%d:80", i%250+1)))
			if err != nil {
				t.Error(err)
				return
			}
			_ = conn.Close()
		})
	}
	wg.Wait()
	// The other side takes 128, those included whose end it has not noticed yet.
	if n := m.most.Load(); n > 128 {
		t.Errorf("%d connections at once", n)
	}
}

// FuzzAnswer: whatever is answered is an answer or an error.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{"ok", "ok 10.0.0.0/8", "err 111 refused", "err 0 x", "err -1 x", "", "err 4096"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, answer string) {
		words, file, err := judge("inside", answer, nil)
		if err == nil && (!strings.HasPrefix(answer, "ok") || !strings.HasSuffix(answer, words) || file != nil) {
			t.Errorf("%q: %q", answer, words)
		}
		var errno syscall.Errno
		if err != nil && errors.As(err, &errno) == errors.Is(err, ErrNoAnswer) {
			t.Errorf("%q: %v", answer, err)
		}
	})
}
