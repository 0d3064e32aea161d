package transport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/proxy/outside"
)

func TestDialFailures(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free := l.Addr().String()
	l.Close()
	for _, c := range []struct {
		name, address, reason string
		dialer                Dialer
	}{
		{"WI-019 nobody listens", free, "delayed connect error: Connection refused", Dialer{}},
		{"no such pipe", "unix:/nonexistent/socket", "immediate connect error: No such file or directory", Dialer{}},
		{"source address of another machine", free, "immediate connect error: Cannot assign requested address", Dialer{Source: netip.MustParseAddrPort("192.0.2.1:0")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := c.dialer.Dial(t.Context(), c.address, time.Second)
			var failed *Error
			if !errors.As(err, &failed) || failed.Reason != c.reason || failed.Timeout {
				t.Fatalf("got %#v, want %s", err, c.reason)
			}
		})
	}
	t.Run("timeout", func(t *testing.T) {
		ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
		defer cancel()
		_, err := (&Dialer{}).Dial(ctx, free, 0)
		var failed *Error
		if !errors.As(err, &failed) || !failed.Timeout || failed.Reason != "" {
			t.Fatalf("got %#v", err)
		}
	})
}

func TestDialSource(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := Dialer{Source: netip.MustParseAddrPort("127.0.0.6:0"), KeepAlive: net.KeepAliveConfig{Enable: true, Idle: time.Minute}}
	c, err := d.Dial(t.Context(), l.Addr().String(), time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := NewConn(c).LocalAddr().Addr().String(); got != "127.0.0.6" {
		t.Errorf("source is %s", got)
	}
}

// answering is who answers at a socket: dials by word of the table, else by a connection
// to echo.
func answering(t *testing.T, echo string, answers map[string]string) *outside.Door {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.AcceptUnix()
			if err != nil {
				return
			}
			go answerDials(c, echo, answers)
		}
	}()
	d := outside.New(path)
	t.Cleanup(func() {
		d.Close()
		_ = ln.Close()
	})
	return d
}

func answerDials(c *net.UnixConn, echo string, answers map[string]string) {
	defer c.Close()
	buf := make([]byte, 512)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		words := strings.Fields(string(buf[:n]))
		text, known := answers[words[len(words)-1]]
		switch {
		case words[0] == "inside":
			text = "ok 10.244.0.0/16"
		case !known:
			peer, err := net.Dial("tcp", echo)
			if err != nil {
				return
			}
			raw, _ := peer.(*net.TCPConn).SyscallConn()
			_ = raw.Control(func(fd uintptr) { _, _, _ = c.WriteMsgUnix([]byte("ok"), unix.UnixRights(int(fd)), nil) })
			_ = peer.Close()
			continue
		}
		if text != "" {
			_, _ = c.Write([]byte(text))
		}
	}
}

// TestDialOutside: addresses beyond the mesh are connected by others, with the errors of
// connections of our own; the mesh's are dialled from here.
func TestDialOutside(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	door := answering(t, ln.Addr().String(), map[string]string{
		"192.0.2.1:80": "err 111 connection refused", "192.0.2.2:80": "err 113 no route to host",
		"192.0.2.3:80": "err 101 network is unreachable", "192.0.2.4:80": "err 110 connection timed out", "192.0.2.5:80": "",
	})
	d := &Dialer{Outside: door}
	for _, c := range []struct {
		to, reason string
		timeout    bool
	}{
		{"192.0.2.1:80", "delayed connect error: Connection refused", false},
		{"192.0.2.2:80", "delayed connect error: No route to host", false},
		{"192.0.2.3:80", "immediate connect error: Network is unreachable", false},
		{"192.0.2.4:80", "delayed connect error: Connection timed out", false},
		{"192.0.2.5:80", "", true},
	} {
		t.Run(c.to, func(t *testing.T) {
			_, err := d.Dial(t.Context(), c.to, 50*time.Millisecond)
			var failed *Error
			if !errors.As(err, &failed) || failed.Reason != c.reason || failed.Timeout != c.timeout {
				t.Errorf("got %#v, want %q", err, c.reason)
			}
		})
	}
	t.Run("connected", func(t *testing.T) {
		conn, err := d.Dial(t.Context(), "192.0.2.9:80", time.Second)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := conn.RemoteAddr().String(); got != ln.Addr().String() {
			t.Errorf("connected to %s", got)
		}
		if alive := option(t, conn, unix.SOL_SOCKET, unix.SO_KEEPALIVE); alive != 0 {
			t.Error("keepalive is on, which nobody has asked for")
		}
	})
	t.Run("given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := d.Dial(ctx, "192.0.2.9:80", time.Second); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("an address of the mesh", func(t *testing.T) {
		_, err := d.Dial(t.Context(), "127.0.0.1:1", time.Second)
		if !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("error %v", err)
		}
	})
	t.Run("nobody answers", func(t *testing.T) {
		alone := &Dialer{Outside: outside.New(filepath.Join(t.TempDir(), "none"))}
		conn, err := alone.Dial(t.Context(), ln.Addr().String(), time.Second)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	})
}

// TestSocketMark: options before the bind are on the socket that connects, a mark (level
// 1, name 36) as any other.
func TestSocketMark(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	d := &Dialer{Source: netip.MustParseAddrPort("127.0.0.6:0"), Options: []SocketOption{{Level: unix.SOL_SOCKET, Name: unix.SO_MARK, Value: 1337}}}
	conn, err := d.Dial(t.Context(), ln.Addr().String(), time.Second)
	if errors.Is(err, syscall.EPERM) {
		t.Skip("marks need CAP_NET_ADMIN or CAP_NET_RAW")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if mark := option(t, conn, unix.SOL_SOCKET, unix.SO_MARK); mark != 1337 {
		t.Errorf("mark %d", mark)
	}
}

func option(t *testing.T, c net.Conn, level, name int) (value int) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { value, failed = unix.GetsockoptInt(int(fd), level, name) }); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return value
}
