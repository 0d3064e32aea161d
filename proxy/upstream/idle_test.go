package upstream_test

import (
	"bufio"
	"context"
	"io"
	"net"
	nethttp "net/http"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// A server may close right after an answer without having announced it. The next
// request must not be written to that connection, however soon it comes.
func TestServerClosesAfterEachAnswer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	closed := make(chan struct{})
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := nethttp.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
			}
			_ = c.Close()
			closed <- struct{}{}
		}
	}()
	scope := stats.NewStore().Scope("cluster.a.")
	pool := upstream.NewPool(&endpoint.Endpoint{}, upstream.Options{
		Dial: func(ctx context.Context) (transport.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
			if err != nil {
				return nil, err
			}
			return transport.NewConn(c), nil
		},
		Limits: upstream.NewLimits(upstream.DefaultThresholds, scope), Stats: upstream.NewStats(scope),
	})
	t.Cleanup(pool.Close)
	for n := range 20 {
		x, err := pool.Acquire(nil, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		request := http.Request{Method: []byte("POST"), Path: []byte("/"), Authority: []byte("a"), Body: http.NoBody}
		var response http.Response
		if err := x.WriteHead(&request, true); err != nil {
			t.Fatal(err)
		}
		if err := x.ReadHead(&response); err != nil {
			t.Fatalf("request %d was written to a connection that its server had closed: %v", n, err)
		}
		if body, err := response.Body.Next(); string(body) != "ok" {
			t.Fatal(string(body), err)
		}
		x.Release()
		<-closed
	}
}

// TestTicketsOfAHandshake: a server of TLS 1.3 sends tickets right after the handshake; a
// connection on which they wait is a good one.
func TestTicketsOfAHandshake(t *testing.T) {
	server, client := net.Pipe()
	t.Cleanup(func() { _, _ = server.Close(), client.Close() })
	scope := stats.NewStore().Scope("cluster.a.")
	dials := 0
	pool := upstream.NewPool(&endpoint.Endpoint{}, upstream.Options{
		Dial: func(context.Context) (transport.Conn, error) {
			dials++
			return waits{transport.NewConn(client)}, nil
		},
		Limits: upstream.NewLimits(upstream.DefaultThresholds, scope), Stats: upstream.NewStats(scope),
	})
	t.Cleanup(pool.Close)
	x, err := pool.Acquire(nil, time.Time{})
	if err != nil || dials != 1 {
		t.Fatalf("%v after %d dials", err, dials)
	}
	x.Release()
}

// waits is a connection on which bytes wait.
type waits struct{ transport.Conn }

func (waits) Stale() bool   { return true }
func (waits) Mark()         {}
func (waits) Untaken() bool { return false }
