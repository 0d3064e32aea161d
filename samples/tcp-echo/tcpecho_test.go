package tcpecho

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a server until the test ends and returns its address.
func serve(t *testing.T, log io.Writer) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, ln, "hello", log) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestLinesComeBackWithThePrefix(t *testing.T) {
	address := serve(t, io.Discard)
	first, second := dial(t, address), dial(t, address)
	for _, client := range []struct {
		conn net.Conn
		line string
	}{{first, "world\n"}, {second, "you\r\n"}, {first, "\n"}, {first, "again\n"}} {
		if _, err := io.WriteString(client.conn, client.line); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len("hello ")+len(client.line))
		if _, err := io.ReadFull(client.conn, got); err != nil || string(got) != "hello "+client.line {
			t.Errorf("%q comes back as %q, %v", client.line, got, err)
		}
	}
}

// A line is what a newline ends: the rest of a client that goes is no line.
func TestHalfALineIsNotAnswered(t *testing.T) {
	conn := dial(t, serve(t, io.Discard))
	_, _ = io.WriteString(conn, "whole\nhalf")
	_ = conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello whole\n" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestLinesAreBounded(t *testing.T) {
	conn := dial(t, serve(t, io.Discard))
	_, _ = io.WriteString(conn, strings.Repeat("a", maxLine+1))
	if got, _ := io.ReadAll(conn); len(got) != 0 {
		t.Errorf("a line of more than %d bytes is answered with %d", maxLine, len(got))
	}
}

func TestTheLogShowsBothWays(t *testing.T) {
	r, w := io.Pipe()
	conn := dial(t, serve(t, w))
	log := bufio.NewScanner(r)
	go func() { _, _ = io.WriteString(conn, "world\n") }()
	for _, want := range []string{"listening on 127.0.0.1:", "request: world", "response: hello world"} {
		if !log.Scan() || !strings.HasPrefix(log.Text(), want) {
			t.Errorf("log has %q, want %q", log.Text(), want)
		}
	}
	_ = r.Close()
}
