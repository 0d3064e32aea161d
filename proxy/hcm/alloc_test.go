//go:build !race

// The race detector allocates by itself; allocations are counted without it.

package hcm_test

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// quiet is a backend without allocations: it answers each head it reads with the same bytes.
func quiet(t testing.TB) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := []byte("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\nx-b: 1\r\nserver: me\r\n\r\nhello")
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var b [8 << 10]byte
		for {
			if _, err := c.Read(b[:]); err != nil { // one read is one request here
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return l.Addr().String()
}

const gatewayManager = `"use_remote_address": true, "server_name": "istio-envoy", "normalize_path": true, "stream_idle_timeout": "300s",
	"tracing": {"random_sampling": {"value": 1}, "provider": {"name": "envoy.tracers.zipkin", "typed_config": {
		"@type": "type.googleapis.com/envoy.config.trace.v3.ZipkinConfig", "trace_id_128bit": true}}}`

const gatewayRoute = `{"match": {"prefix": "/nothing"}, "direct_response": {"status": 200}},
	{"match": {"prefix": "/x", "headers": [{"name": "x-not", "present_match": true}]}, "direct_response": {"status": 200}},
	{"match": {"prefix": "/"}, "decorator": {"operation": "b:80/*"}, "route": {"cluster": "b", "timeout": "0s", "retry_policy": {
		"retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", "num_retries": 2,
		"retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config":
			{"@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}]}},
	"request_headers_to_add": [{"header": {"key": "x-add", "value": "a"}}], "response_headers_to_add": [{"header": {"key": "x-resp", "value": "r"}}]}`

const plainRequest = "GET /x/y?z=1 HTTP/1.1\r\nHost: svc3.default.svc.cluster.local\r\nUser-Agent: test\r\nAccept: */*\r\n" +
	"Cookie: session=0123456789abcdef\r\nAuthorization: Bearer abc.def.ghi\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n"

const bodyRequest = "POST /x/y?z=1 HTTP/1.1\r\nHost: svc3.default.svc.cluster.local\r\nContent-Length: 5\r\nUser-Agent: test\r\n\r\nhello"

// TestAllocations sends many requests on one connection: in steady state none of
// them allocates, from the client's socket through router and pool to the backend's
// and back, access log included.
func TestAllocations(t *testing.T) {
	for name, text := range map[string]string{"without body": plainRequest, "with a body at hand": bodyRequest} {
		t.Run(name, func(t *testing.T) {
			g := start(t, setup{manager: gatewayManager, routes: gatewayRoute, clusters: map[string]string{"b": quiet(t)}, direction: "OUTBOUND"})
			request := []byte(text)
			c := g.dial(t)
			buf := make([]byte, 4096)
			exchange := func() {
				if _, err := c.Write(request); err != nil {
					t.Fatal(err)
				}
				if _, err := c.Read(buf); err != nil {
					t.Fatal(err)
				}
			}
			for range 2000 {
				exchange()
			}
			const n = 20000
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range n {
				exchange()
			}
			runtime.ReadMemStats(&after)
			// The date's text, the log's flushes, timers and emptied pools of a collection
			// are per second, not per request.
			if got := after.Mallocs - before.Mallocs; got > n/100 {
				t.Errorf("%d allocations in %d requests", got, n)
			}
		})
	}
}

// The budget of a request of HTTP/2, from the client's socket to a backend of HTTP/1 and
// back: its values are strings in the decoder of heads, and one wakes who waits.
const allocsPerHTTP2 = 8

// TestHTTP2Allocations sends streams one after the other on one connection.
func TestHTTP2Allocations(t *testing.T) {
	g := start(t, setup{manager: gatewayManager, routes: gatewayRoute, clusters: map[string]string{"b": quiet(t)}, direction: "OUTBOUND"})
	c := g.dialHTTP2(t)
	if s := c.status(c.get("/x/y?z=1")); s != "200" {
		t.Fatal(s)
	}
	// From here on by hand: the client must not allocate either.
	c.block.Reset()
	for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":authority", "svc3.default.svc.cluster.local"}, {":path", "/x/y?z=1"},
		{"user-agent", "test"}, {"accept", "*/*"}, {"authorization", "Bearer abc.def.ghi"}} {
		if err := c.heads.WriteField(hpack.HeaderField{Name: f[0], Value: f[1], Sensitive: true}); err != nil {
			t.Fatal(err)
		}
	}
	frame := append([]byte{0, 0, byte(c.block.Len()), byte(http2.FrameHeaders), byte(http2.FlagHeadersEndStream | http2.FlagHeadersEndHeaders), 0, 0, 0, 0}, c.block.Bytes()...)
	r := bufio.NewReader(c.conn)
	var head [9]byte
	exchange := func() {
		binary.BigEndian.PutUint32(frame[5:], c.next)
		c.next += 2
		if _, err := c.conn.Write(frame); err != nil {
			t.Fatal(err)
		}
		for over := false; !over; {
			if _, err := io.ReadFull(r, head[:]); err != nil {
				t.Fatal(err)
			}
			over = binary.BigEndian.Uint32(head[5:]) == c.next-2 && http2.Flags(head[4]).Has(http2.FlagDataEndStream) && head[3] <= byte(http2.FrameHeaders)
			if _, err := r.Discard(int(head[0])<<16 | int(head[1])<<8 | int(head[2])); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2000 {
		exchange()
	}
	const n = 10000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		exchange()
	}
	runtime.ReadMemStats(&after)
	got := float64(after.Mallocs-before.Mallocs) / n
	t.Logf("%.1f allocations, %.0f bytes", got, float64(after.TotalAlloc-before.TotalAlloc)/n)
	if got > allocsPerHTTP2 {
		t.Errorf("%.1f allocations a request, the budget is %d", got, allocsPerHTTP2)
	}
}

func BenchmarkRequest(b *testing.B) {
	g := start(b, setup{manager: gatewayManager, routes: gatewayRoute, clusters: map[string]string{"b": quiet(b)}, direction: "OUTBOUND"})
	c := g.dial(b)
	buf := make([]byte, 4096)
	request := []byte(plainRequest)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Write(request); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			b.Fatal(err)
		}
	}
}
