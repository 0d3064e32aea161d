package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
)

// A keeper is a client that keeps its connection.
type keeper struct {
	t *testing.T
	c *net.TCPConn
	r *bufio.Reader
}

func newKeeper(t *testing.T, addr string) *keeper {
	c := dial(t, addr)
	return &keeper{t, c, bufio.NewReader(c)}
}

// ask sends a request and reports whether the answer ends the connection.
func (k *keeper) ask() (closes bool) {
	k.t.Helper()
	if _, err := io.WriteString(k.c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		k.t.Fatal(err)
	}
	return k.answer()
}

func (k *keeper) answer() (closes bool) {
	k.t.Helper()
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || string(text) != "hello" {
		k.t.Errorf("%q %v", text, err)
	}
	return resp.Close
}

// ended waits for the proxy to end the connection in order.
func (k *keeper) ended() {
	k.t.Helper()
	if _, err := k.r.ReadByte(); !errors.Is(err, io.EOF) {
		k.t.Errorf("the connection should have ended: %v", err)
	}
}

// TestDraining: what clients see of a proxy that is about to go.
func TestDraining(t *testing.T) {
	fleet := &fleet{t: t, app: answering(t)}
	t.Run("WI-031 health checks fail: connections end after their answer", func(t *testing.T) {
		r := fleet.sidecar()
		k := newKeeper(t, r.listener("in"))
		if k.ask() {
			t.Error("closed too early")
		}
		r.call(http.MethodPost, "/healthcheck/fail")
		if !k.ask() {
			t.Error("the answer does not end the connection")
		}
		k.ended()
		r.call(http.MethodPost, "/healthcheck/ok")
		if newKeeper(t, r.listener("in")).ask() {
			t.Error("a healthy proxy ends connections")
		}
	})
	t.Run("WI-031 drain_listeners, gracefully: idle connections end, others after their answer, new ones are served", func(t *testing.T) {
		r := fleet.sidecar()
		addr := r.listener("in")
		idle, busy := newKeeper(t, addr), newKeeper(t, addr)
		idle.ask()
		busy.ask()
		if _, err := io.WriteString(busy.c, "GET / HTTP/1.1\r\n"); err != nil { // its request is under way
			t.Fatal(err)
		}
		r.call(http.MethodPost, "/drain_listeners?graceful&skip_exit")
		idle.ended()
		if _, err := io.WriteString(busy.c, "Host: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if !busy.answer() {
			t.Error("the answer does not end the connection")
		}
		busy.ended()
		if newKeeper(t, addr).ask() {
			t.Error("a connection that came later should go on")
		}
	})
	t.Run("WI-030 at the end what is under way is answered", func(t *testing.T) {
		r := fleet.sidecar()
		idle, busy := newKeeper(t, r.listener("in")), newKeeper(t, r.listener("in"))
		idle.ask()
		busy.ask()
		if _, err := io.WriteString(busy.c, "GET / HTTP/1.1\r\n"); err != nil {
			t.Fatal(err)
		}
		r.drain()
		idle.ended()
		if _, err := io.WriteString(busy.c, "Host: a\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if !busy.answer() {
			t.Error("the answer does not end the connection")
		}
		r.leave()
	})
}
