package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"testing"
	"time"
)

// tunnelling is a listener that lets CONNECT through to a cluster; config is what the
// route says of it.
func tunnelling(name, cluster, config string) string {
	return fmt.Sprintf(`{name: %s, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: http, typed_config:
      {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: %[1]s,
       http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}],
       route_config: {name: m, virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {connect_matcher: {}}, route: {cluster: %s, timeout: 0s, upgrade_configs: [{upgrade_type: CONNECT%s}]}}]}]}}}]}]}`,
		name, cluster, config)
}

// tunnels are two proxies one behind the other: CONNECT ends in the second one, where the
// endpoint is at addr; the first hands it on by HTTP/1 and by HTTP/2.
func tunnels(t *testing.T, addr string) (front, back *running) {
	t.Helper()
	back = start(t, "static_resources:\n  clusters: ["+staticCluster("end", addr)+"]\n  listeners: ["+tunnelling("ends", "end", ", connect_config: {}")+"]\n")
	one := staticCluster("one", back.listener("ends"))
	two := staticCluster("two", back.listener("ends"))
	two = two[:len(two)-1] + `, typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}}`
	front = start(t, "static_resources:\n  clusters: ["+one+", "+two+"]\n  listeners: ["+tunnelling("to-one", "one", "")+", "+tunnelling("to-two", "two", "")+"]\n")
	return front, back
}

// A tunnel is the client's end of one. Its connection c carries nothing else.
type tunnel struct {
	io.Reader
	io.Writer
	c *net.TCPConn
}

// throughHTTP1 opens a tunnel by HTTP/1.1.
func throughHTTP1(t *testing.T, addr string) tunnel {
	t.Helper()
	c := dial(t, addr)
	_, _ = io.WriteString(c, "CONNECT far.test:80 HTTP/1.1\r\nhost: far.test:80\r\n\r\n")
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	return tunnel{r, c, c}
}

// throughHTTP2 opens a tunnel by HTTP/2.
func throughHTTP2(t *testing.T, addr string) tunnel {
	t.Helper()
	c := dial(t, addr)
	by := &http.Transport{Protocols: &http.Protocols{}, DialContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}
	by.Protocols.SetUnencryptedHTTP2(true)
	r, w := io.Pipe()
	req, err := http.NewRequest(http.MethodConnect, "http://far.test:80", r)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := by.RoundTrip(req)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	t.Cleanup(func() { _ = w.Close(); _ = resp.Body.Close(); by.CloseIdleConnections() })
	return tunnel{resp.Body, w, c}
}

// ways are all ways through the two proxies.
var ways = []struct {
	name     string
	listener string
	open     func(*testing.T, string) tunnel
}{
	{"1 ends", "ends", throughHTTP1}, {"2 ends", "ends", throughHTTP2},
	{"1 to 1", "to-one", throughHTTP1}, {"1 to 2", "to-two", throughHTTP1},
	{"2 to 1", "to-one", throughHTTP2}, {"2 to 2", "to-two", throughHTTP2},
}

// at is the address of a listener of one of the two.
func at(name string, front, back *running) string {
	if name == "ends" {
		return back.listener(name)
	}
	return front.listener(name)
}

// trickle reads in pieces that are too small for the writer at first.
type trickle struct {
	r io.Reader
	n int
}

func (s *trickle) Read(p []byte) (int, error) {
	if s.n < 64<<10 {
		p = p[:min(len(p), 7)]
	}
	n, err := s.r.Read(p)
	s.n += n
	return n, err
}

// TestTunnelsCarryMuch has a tunnel carry far more both ways than anything on the way can
// hold, to a client that reads slowly: the writer waits for the reader, and no byte is lost.
func TestTunnelsCarryMuch(t *testing.T) {
	front, back := tunnels(t, backend(t))
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			x := way.open(t, at(way.listener, front, back))
			_ = x.c.SetDeadline(time.Time{}) // how long so much takes depends on what else runs
			const size = 64 << 20
			sent := sha256.New()
			done := make(chan error, 1)
			go func() {
				_, err := io.CopyN(io.MultiWriter(x, sent), rand.NewChaCha8([32]byte{}), size)
				done <- err
			}()
			got := sha256.New()
			if _, err := io.CopyN(got, &trickle{r: x}, size); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
				t.Error("other bytes came back than were sent")
			}
		})
	}
}

// TestTunnelsCutOff ends the client's connection, or the endpoint's, while bytes are on
// their way: the other side ends as well, and nothing is left behind.
func TestTunnelsCutOff(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	front, back := tunnels(t, accepting(t, ln, func(c net.Conn) { // echoes but the first byte
		b := make([]byte, 1)
		if _, err := io.ReadFull(c, b); err != nil || b[0] == 'x' {
			_ = c.(*net.TCPConn).SetLinger(0) // ends by a reset
			return
		}
		_, _ = io.Copy(c, c)
	}))
	rest := func() {
		front.eventually("/stats?filter=^http.to-one.downstream_cx_active", "cx_active: 0\n")
		front.eventually("/stats?filter=^http.to-two.downstream_cx_active", "cx_active: 0\n")
		front.eventually("/stats?filter=^cluster.one.upstream_cx_active", "cx_active: 0\n")
		back.eventually("/stats?filter=^http.ends.downstream_cx_upgrades_active", "upgrades_active: 0\n")
		back.eventually("/stats?filter=^cluster.end.upstream_cx_active", "cx_active: 0\n")
		front.http.CloseIdleConnections()
	}
	way := func(i int) tunnel { return ways[i].open(t, at(ways[i].listener, front, back)) }
	for i := range ways { // connections between the two stay
		x := way(i)
		_, _ = x.Write([]byte("hello"))
		if _, err := io.ReadFull(x, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		_ = x.c.Close()
	}
	rest()
	before := settled(t, back)
	for i, w := range ways {
		for _, e := range endings {
			t.Run(w.name+", the client, "+e.name, func(*testing.T) {
				x := way(i)
				go func() { _, _ = x.Write(bytes.Repeat([]byte("y"), 1<<20)) }()
				_, _ = io.ReadFull(x, make([]byte, 1000))
				e.end(x.c)
			})
		}
		t.Run(w.name+", the endpoint", func(t *testing.T) {
			x := way(i)
			_, _ = x.Write([]byte("x"))
			if n, err := io.Copy(io.Discard, x); n > 0 {
				t.Errorf("%d bytes, %v", n, err)
			}
			_ = x.c.Close()
		})
	}
	rest()
	after := settled(t, back)
	for n := 0; n < 20 && (after.goroutines > before.goroutines || after.descriptors > before.descriptors); n++ {
		after = settled(t, back)
	}
	if after.goroutines > before.goroutines || after.descriptors > before.descriptors {
		t.Errorf("%+v after, %+v before", after, before)
	}
}
