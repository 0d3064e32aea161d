package transport

import (
	"net"
	"testing"
)

// TestUntaken: whether a peer that ended a connection can have taken what was written
// to it last. The peer does before and after things with its socket.
func TestUntaken(t *testing.T) {
	read := func(t *testing.T, server Conn) {
		if _, err := server.Read(make([]byte, 64)); err != nil {
			t.Fatal(err)
		}
	}
	none := func(*testing.T, Conn) {}
	for _, c := range []struct {
		name          string
		before, after func(*testing.T, Conn)
		want          bool
	}{
		{"ended before", func(t *testing.T, s Conn) { _ = s.Close() }, none, true},
		{"reset before", func(t *testing.T, s Conn) { _ = s.Reset() }, none, true},
		{"ended when it had read it", none, func(t *testing.T, s Conn) { read(t, s); _ = s.Close() }, false},
		{"ended with it unread", none, func(t *testing.T, s Conn) { _ = s.Close() }, false},
		{"reset when it had read it", none, func(t *testing.T, s Conn) { read(t, s); _ = s.Reset() }, false},
		{"ended its side when it had read a piece", none, func(t *testing.T, s Conn) { read(t, s); _ = s.CloseWrite() }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			socketPairs(t, func(t *testing.T, client, server Conn) {
				echoOnce(t, client, server)
				prober := client.(interface {
					Mark()
					Untaken() bool
				})
				prober.Mark()
				c.before(t, server)
				_, _ = client.Write([]byte("a request")) // fails after a reset
				c.after(t, server)
				if n, err := client.Read(make([]byte, 64)); err == nil {
					t.Fatalf("%d bytes", n)
				}
				_, _ = client.Write([]byte("more"))
				if got := prober.Untaken(); got != c.want {
					t.Errorf("untaken: %v, want %v", got, c.want)
				}
			})
		})
	}
}

// echoOnce is an exchange before the one in question.
func echoOnce(t *testing.T, client, server Conn) {
	t.Helper()
	buf := make([]byte, 1)
	for _, way := range [][2]Conn{{client, server}, {server, client}} {
		if _, err := way[0].Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := way[1].Read(buf); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUntakenOfAPipe: what cannot be asked has taken everything.
func TestUntakenOfAPipe(t *testing.T) {
	a, b := net.Pipe()
	client := newRaw(a, nil)
	client.Mark()
	go func() {
		_, _ = b.Read(make([]byte, 64))
		_ = b.Close()
	}()
	_, _ = client.Write([]byte("a request"))
	_, _ = client.Read(make([]byte, 1))
	if client.Untaken() {
		t.Error("a pipe knows nothing of acknowledgements")
	}
}
