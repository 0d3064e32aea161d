package tcpproxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	accesslogpb "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	tcpproxypb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
	backends "github.com/lateen-mesh/lateen/test/fixture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a listening socket whose connections a filter serves.
type fixture struct {
	t        *testing.T
	store    *stats.Store
	clusters *cluster.Clusters
	lines    chan string
	wg       sync.WaitGroup
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{t: t, store: stats.NewStore(), lines: make(chan string, 10)}
	f.clusters = cluster.New(cluster.Options{Stats: f.store})
	t.Cleanup(func() { f.wg.Wait(); f.clusters.Close() })
	return f
}

func (f *fixture) LogTCP(i *streaminfo.Info) {
	host := "-"
	if i.Upstream != nil {
		host = i.Upstream.Address
	}
	f.lines <- fmt.Sprintf("%s %q %d %d %s %s attempts=%d local=%v", i.Flags, i.UpstreamFailureReason, i.BytesReceived, i.BytesSent, host, i.Cluster, i.Attempts, i.UpstreamLocal.IsValid())
}

func (f *fixture) Close() {}

// cluster adds a static cluster with the given endpoints ("ip:port").
func (f *fixture) cluster(name, rest string, endpoints ...string) {
	f.t.Helper()
	var eps []string
	for _, e := range endpoints {
		host, port, _ := net.SplitHostPort(e)
		eps = append(eps, fmt.Sprintf(`{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}}`, host, port))
	}
	text := fmt.Sprintf(`{"name": %q, "type": "STATIC", %s "load_assignment": {"cluster_name": %q, "endpoints": [{"lb_endpoints": [%s]}]}}`, name, rest, name, strings.Join(eps, ","))
	var c clusterpb.Cluster
	if err := protojson.Unmarshal([]byte(text), &c); err != nil {
		f.t.Fatal(err)
	}
	if err := f.clusters.AddStatic(&c); err != nil {
		f.t.Fatal(err)
	}
}

func (f *fixture) compile(text string) (*filter, error) {
	f.t.Helper()
	var c tcpproxypb.TcpProxy
	if err := protojson.Unmarshal([]byte(text), &c); err != nil {
		f.t.Fatal(err)
	}
	return compile(&c, Env{
		Stats: f.store, AccessLog: func([]*accesslogpb.AccessLog) ([]Logger, error) { return []Logger{f}, nil },
		Cluster: func(name string) Cluster {
			if c := f.clusters.Get(name); c != nil {
				return c
			}
			return nil
		},
	})
}

// serve accepts connections for the filter and returns the address.
func (f *fixture) serve(text string) string {
	f.t.Helper()
	flt, err := f.compile(text)
	if err != nil {
		f.t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = ln.Close() })
	f.wg.Go(func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() {
				c := &network.Conn{Conn: transport.NewConn(raw), Info: &streaminfo.Info{Start: time.Now()}}
				flt.Serve(context.Background(), c)
			})
		}
	})
	f.t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String()
}

// backend runs one handler per connection.
func (f *fixture) backend(handle func(*net.TCPConn)) string {
	f.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = ln.Close() })
	f.wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			})
		}
	})
	f.t.Cleanup(func() { _ = ln.Close() })
	return ln.Addr().String()
}

func (f *fixture) dial(addr string) *net.TCPConn {
	f.t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

func (f *fixture) line() string {
	f.t.Helper()
	select {
	case l := <-f.lines:
		return l
	case <-time.After(10 * time.Second):
		f.t.Fatal("no access log line")
		return ""
	}
}

func read(t *testing.T, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	switch {
	case err == nil:
		return string(b)
	case errors.Is(err, syscall.ECONNRESET):
		return string(b) + "<reset>"
	}
	t.Error(err)
	return string(b)
}

func say(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

func counter(f *fixture, name string) uint64 { return f.store.Scope("").Counter(name).Value() }

const simple = `{"stat_prefix": "p", "cluster": "c"}`

func TestRelay(t *testing.T) {
	t.Run("the client's half close arrives, the answer comes back", func(t *testing.T) {
		f := newFixture(t)
		up := f.backend(func(c *net.TCPConn) { b, _ := io.ReadAll(c); _, _ = c.Write(append([]byte("got "), b...)) })
		f.cluster("c", "", up)
		c := f.dial(f.serve(simple))
		say(t, c, "hello")
		_ = c.CloseWrite()
		if got := read(t, c); got != "got hello" {
			t.Error(got)
		}
		if got, want := f.line(), `- "" 5 9 `+up+` c attempts=1 local=true`; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		t.Run("OB-022 OB-017 counters", func(t *testing.T) {
			for name, want := range map[string]uint64{
				"tcp.p.downstream_cx_total": 1, "tcp.p.downstream_cx_rx_bytes_total": 5, "tcp.p.downstream_cx_tx_bytes_total": 9,
				"cluster.c.upstream_cx_total": 1, "cluster.c.upstream_cx_tx_bytes_total": 5, "cluster.c.upstream_cx_rx_bytes_total": 9,
			} {
				if got := counter(f, name); got != want {
					t.Errorf("%s: got %d, want %d", name, got, want)
				}
			}
		})
	})
	t.Run("the backend's half close arrives, the client may go on", func(t *testing.T) {
		f := newFixture(t)
		rest := make(chan string, 1)
		f.cluster("c", "", f.backend(func(c *net.TCPConn) {
			_, _ = c.Write([]byte("bye"))
			_ = c.CloseWrite()
			b, _ := io.ReadAll(c)
			rest <- string(b)
		}))
		c := f.dial(f.serve(simple))
		if got := read(t, c); got != "bye" {
			t.Error(got)
		}
		say(t, c, "after")
		_ = c.CloseWrite()
		if got := <-rest; got != "after" {
			t.Error(got)
		}
	})
	t.Run("WI-019 a reset of the backend: reset, UR", func(t *testing.T) {
		f := newFixture(t)
		f.cluster("c", "", f.backend(func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 3)); _ = c.SetLinger(0) }))
		c := f.dial(f.serve(simple))
		say(t, c, "rst")
		if got := read(t, c); got != "<reset>" {
			t.Error(got)
		}
		if got := f.line(); !strings.HasPrefix(got, `UR "" 3 0 `) {
			t.Error(got)
		}
	})
	t.Run("a reset of the client reaches the backend", func(t *testing.T) {
		f := newFixture(t)
		end := make(chan string, 1)
		f.cluster("c", "", f.backend(func(c *net.TCPConn) { _, _ = c.Write([]byte("x")); end <- read(t, c) }))
		c := f.dial(f.serve(simple))
		say(t, c, "hi")
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
		_ = c.Close()
		if got := <-end; got != "hi<reset>" && got != "<reset>" {
			t.Error(got)
		}
		if got := f.line(); !strings.HasPrefix(got, `- "" 2 1 `) {
			t.Error(got)
		}
	})
	t.Run("bulk both ways, by splice", func(t *testing.T) {
		f := newFixture(t)
		f.cluster("c", "", f.backend(func(c *net.TCPConn) { _, _ = io.Copy(c, c) }))
		c := f.dial(f.serve(simple))
		data := bytes.Repeat([]byte("0123456789abcdef"), 1<<19) // 8 MiB
		f.wg.Go(func() { _, _ = c.Write(data); _ = c.CloseWrite() })
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, data) {
			t.Errorf("%d of %d bytes, %v", len(got), len(data), err)
		}
		if l := f.line(); !strings.HasPrefix(l, fmt.Sprintf(`- "" %d %d `, len(data), len(data))) {
			t.Error(l)
		}
	})
}

func TestNoUpstream(t *testing.T) {
	for _, c := range []struct{ name, clusterRest, filter, endpoints, want string }{
		{"WI-019 refused: UF,URX", "", simple, "127.0.0.1:1", `UF,URX "delayed connect error: Connection refused" 0 0 127.0.0.1:1 c attempts=1 local=false`},
		{"three attempts", "", `{"stat_prefix": "p", "cluster": "c", "max_connect_attempts": 3}`, "127.0.0.1:1",
			`UF,URX "delayed connect error: Connection refused" 0 0 127.0.0.1:1 c attempts=3 local=false`},
		{"WI-019 no endpoint: UH", "", simple, "", `UH "" 0 0 - c attempts=0 local=false`},
		{"too many connections: UO", `"circuit_breakers": {"thresholds": [{"max_connections": 0}]},`, simple, "127.0.0.1:1", `UO "" 0 0 - c attempts=0 local=false`},
		{"no such cluster: NC", "", `{"stat_prefix": "p", "cluster": "other"}`, "", `NC "" 0 0 -  attempts=0 local=false`},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFixture(t)
			f.cluster("c", c.clusterRest, strings.Fields(c.endpoints)...)
			addr := f.serve(c.filter)
			if got := read(t, f.dial(addr)); got != "" {
				t.Errorf("client got %q", got)
			}
			if got := f.line(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
	t.Run("bytes that nobody read make it a reset", func(t *testing.T) {
		f := newFixture(t)
		full := backends.StartFullBackend(t, backends.BackendSpec{Name: "full"}) // does not answer: the bytes are there by then
		f.cluster("c", `"connect_timeout": "0.2s",`, full.Addr.String())
		c := f.dial(f.serve(simple))
		say(t, c, "GET / HTTP/1.1\r\n\r\n")
		if got := read(t, c); got != "<reset>" {
			t.Error(got)
		}
	})
}

func TestTimeouts(t *testing.T) {
	t.Run("idle", func(t *testing.T) {
		f := newFixture(t)
		f.cluster("c", "", f.backend(func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }))
		c := f.dial(f.serve(`{"stat_prefix": "p", "cluster": "c", "idle_timeout": "1s"}`))
		say(t, c, "x")
		if got := read(t, c); got != "" {
			t.Error(got)
		}
		if got := f.line(); !strings.HasPrefix(got, `- "" 1 0 `) {
			t.Error(got)
		}
		if counter(f, "tcp.p.idle_timeout") != 1 {
			t.Error("not counted")
		}
	})
	t.Run("bytes in one direction keep both alive", func(t *testing.T) {
		f := newFixture(t)
		f.cluster("c", "", f.backend(func(c *net.TCPConn) {
			for range 10 {
				time.Sleep(20 * time.Millisecond)
				_, _ = c.Write([]byte("."))
			}
		}))
		c := f.dial(f.serve(`{"stat_prefix": "p", "cluster": "c", "idle_timeout": "0.150s"}`))
		b := make([]byte, 10)
		if _, err := io.ReadFull(c, b); err != nil {
			t.Error(err)
		}
	})
	t.Run("longest duration", func(t *testing.T) {
		f := newFixture(t)
		f.cluster("c", "", f.backend(func(c *net.TCPConn) { _, _ = io.Copy(c, c) }))
		c := f.dial(f.serve(`{"stat_prefix": "p", "cluster": "c", "max_downstream_connection_duration": "0.03s"}`))
		if got := read(t, c); got != "" {
			t.Error(got)
		}
		f.line()
		if counter(f, "tcp.p.max_downstream_connection_duration") != 1 {
			t.Error("not counted")
		}
	})
}

func TestWeights(t *testing.T) {
	f := newFixture(t)
	flt, err := f.compile(`{"stat_prefix": "p", "weighted_clusters": {"clusters": [{"name": "b", "weight": 3}, {"name": "c", "weight": 1}]}}`)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for range 4000 {
		seen[flt.choose(&streaminfo.Info{}).name]++
	}
	if seen["b"] < 2700 || seen["b"] > 3300 {
		t.Error(seen)
	}
}

func TestRefusals(t *testing.T) {
	f := newFixture(t)
	for text, want := range map[string]string{
		`{"stat_prefix": "p"}`: "cluster_specifier: no cluster with a weight",
		`{"cluster": "c"}`:     "invalid TcpProxy.StatPrefix: value length must be at least 1 runes",
		`{"stat_prefix": "p", "cluster": "c", "max_connect_attempts": 0}`:                                                                            "invalid TcpProxy.MaxConnectAttempts: value must be greater than or equal to 1",
		`{"stat_prefix": "p", "weighted_clusters": {"clusters": [{"name": "a", "weight": 0}, {"name": "b", "weight": 3}]}}`:                          "invalid TcpProxy.WeightedClusters: embedded message failed validation | caused by: invalid TcpProxy_WeightedCluster.Clusters[0]: embedded message failed validation | caused by: invalid TcpProxy_WeightedCluster_ClusterWeight.Weight: value must be greater than or equal to 1",
		`{"stat_prefix": "p", "weighted_clusters": {"clusters": [{"name": "a", "weight": 4294967295}, {"name": "b", "weight": 1}]}}`:                 "weighted_clusters: weights must sum up to at most 4294967295, got 4294967296",
		`{"stat_prefix": "p", "cluster": "c", "on_demand": {"resources_locator": "x"}}`:                                                              "on_demand: not supported",
		`{"stat_prefix": "p", "cluster": "c", "tunneling_config": {"hostname": "x", "post_path": "/y"}}`:                                             "tunneling_config.post_path: Can't set a post path when POST method isn't used",
		`{"stat_prefix": "p", "cluster": "c", "tunneling_config": {"hostname": "x", "request_id_header": "y"}}`:                                      "tunneling_config.request_id_header: not supported",
		`{"stat_prefix": "p", "cluster": "c", "tunneling_config": {"hostname": "x", "headers_to_add": [{"header": {"key": "host", "value": "y"}}]}}`: "tunneling_config.headers_to_add[0]: :-prefixed or host headers may not be modified",
		`{"stat_prefix": "p", "cluster": "c", "upstream_connect_mode": "ON_DOWNSTREAM_DATA"}`:                                                        "max_early_data_bytes must be set when upstream_connect_mode is not IMMEDIATE",
		`{"stat_prefix": "p", "cluster": "c", "backoff_options": {"base_interval": "2s", "max_interval": "1s"}}`:                                     "backoff_options: max_backoff_interval must be greater or equal to base_backoff_interval",
		`{"stat_prefix": "p", "cluster": "c", "proxy_protocol_tlvs": [{"type": 256}]}`:                                                               "invalid TcpProxy.ProxyProtocolTlvs[0]: embedded message failed validation | caused by: invalid TlvEntry.Type: value must be less than 256",
	} {
		if _, err := f.compile(text); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAConnectionWhoseHandshakeFailedIsLogged(t *testing.T) {
	f := newFixture(t)
	f.cluster("up", "", "127.0.0.1:1")
	flt, err := f.compile(`{"stat_prefix": "t", "cluster": "up"}`)
	if err != nil {
		t.Fatal(err)
	}
	flt.Refused(&streaminfo.Info{})
	if got, want := <-f.lines, `- "" 0 0 - up attempts=0 local=false`; got != want {
		t.Errorf("logged %s, want %s", got, want)
	}
}
