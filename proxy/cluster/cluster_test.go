package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/wellknown"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parse reads a proto of the case, written as JSON.
func parse[T proto.Message](t testing.TB, m T, json string) T {
	t.Helper()
	if err := protojson.Unmarshal([]byte(json), m); err != nil {
		t.Fatalf("%v in %s", err, json)
	}
	return m
}

func newCluster(t testing.TB, json string) *clusterv3.Cluster {
	return parse(t, &clusterv3.Cluster{}, json)
}

// to is a load_assignment with one locality.
func to(addresses ...string) string {
	var list []string
	for _, a := range addresses {
		host, port, _ := net.SplitHostPort(a)
		list = append(list, fmt.Sprintf(`{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}}`, host, port))
	}
	return `{"cluster_name": "a", "endpoints": [{"lb_endpoints": [` + strings.Join(list, ",") + `]}]}`
}

func assignmentOf(t testing.TB, name string, addresses ...string) *endpointv3.ClusterLoadAssignment {
	a := parse(t, &endpointv3.ClusterLoadAssignment{}, to(addresses...))
	a.ClusterName = name
	return a
}

// statics returns clusters with those of the bootstrap.
func statics(t testing.TB, list ...string) *Clusters {
	t.Helper()
	cs := New(Options{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(cs.Close)
	for _, json := range list {
		if err := cs.AddStatic(newCluster(t, json)); err != nil {
			t.Fatal(err)
		}
	}
	cs.Start(nil, 0)
	return cs
}

// dynamic returns clusters that follow a management server, which setup fills first.
func dynamic(t testing.TB, delta bool, setup func(*xdstest.Server)) (*Clusters, *xdstest.Server) {
	t.Helper()
	srv := xdstest.New(t)
	setup(srv)
	client := xds.New(xds.Options{Dial: srv.Dial, Delta: delta, Logger: slog.New(slog.DiscardHandler)})
	cs := New(Options{
		Source: func(*corev3.ConfigSource) (*xds.Client, error) { return client, nil },
		Logger: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); client.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done; cs.Close() })
	cs.Start(client, 0)
	return cs, srv
}

const ads = `"eds_cluster_config": {"eds_config": {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}}`

func addresses(c *Cluster) []string {
	var list []string
	for _, e := range c.Endpoints() {
		list = append(list, e.Address)
	}
	return list
}

func TestWarming(t *testing.T) {
	for _, delta := range []bool{false, true} {
		t.Run(fmt.Sprintf("delta %v", delta), func(t *testing.T) {
			cs, srv := dynamic(t, delta, func(srv *xdstest.Server) {
				srv.Set("a", newCluster(t, `{"name": "a", "type": "EDS", `+ads+`}`))
			})
			srv.Await(t, wellknown.EndpointType, 0, func(r xdstest.Request) bool { return len(r.Names)+len(r.Subscribe) == 1 })
			if slices.ContainsFunc(srv.Requests(wellknown.ClusterType), func(r xdstest.Request) bool { return r.Nonce != "" }) {
				t.Error("acknowledged before it is warm")
			}
			if cs.Get("a") != nil {
				t.Fatal("live without endpoints")
			}
			select {
			case <-cs.Initialized():
				t.Fatal("initialized without endpoints")
			default:
			}
			srv.Set("a", assignmentOf(t, "a", "127.0.0.1:1", "127.0.0.1:2"))
			<-cs.Initialized()
			c := cs.Get("a")
			if diff := cmp.Diff([]string{"127.0.0.1:1", "127.0.0.1:2"}, addresses(c)); diff != "" {
				t.Errorf("endpoints (-want +got):\n%s", diff)
			}
			kept := c.Endpoints()[1]
			srv.Set("a", assignmentOf(t, "a", "127.0.0.1:2", "127.0.0.1:3"))
			srv.Settle(t, wellknown.EndpointType)
			if c.Endpoints()[0] != kept || cs.Get("a") != c {
				t.Error("an endpoint that an update does not touch is another one after it")
			}
			srv.Remove(wellknown.ClusterType, "a")
			srv.Settle(t, wellknown.ClusterType)
			if cs.Get("a") != nil {
				t.Error("removed and still there")
			}
		})
	}
}

// Requests may come for a cluster that is not warm yet: they wait for it, but not for
// ever, and not for one that goes.
func TestSoon(t *testing.T) {
	cs, srv := dynamic(t, true, func(srv *xdstest.Server) {
		srv.Set("a", newCluster(t, `{"name": "a", "type": "EDS", `+ads+`}`))
		srv.Set("b", newCluster(t, `{"name": "b", "type": "EDS", `+ads+`}`))
		srv.Set("c", newCluster(t, `{"name": "c", "type": "EDS", `+ads+`}`))
	})
	srv.Await(t, wellknown.EndpointType, 0, func(r xdstest.Request) bool { return len(r.Subscribe) == 3 })
	found := map[string]chan *Cluster{}
	for _, name := range []string{"a", "b", "c", "unknown"} {
		c := make(chan *Cluster)
		found[name] = c
		go func() { c <- cs.Soon(name) }()
	}
	if c := <-found["unknown"]; c != nil {
		t.Error("what does not exist is found")
	}
	srv.Set("a", assignmentOf(t, "a", "127.0.0.1:1"))
	if c := <-found["a"]; c == nil || len(addresses(c)) != 1 {
		t.Error("a cluster that becomes warm is not waited for")
	}
	srv.Remove(wellknown.ClusterType, "b")
	if c := <-found["b"]; c != nil {
		t.Error("a removed cluster is found")
	}
	if c := <-found["c"]; c != nil {
		t.Error("live without endpoints")
	}
}

// A changed cluster takes the old one's place without a gap, and with its endpoints at once.
func TestReplace(t *testing.T) {
	cs, srv := dynamic(t, true, func(srv *xdstest.Server) {
		srv.Set("a", assignmentOf(t, "a", "127.0.0.1:1"))
		srv.Set("a", newCluster(t, `{"name": "a", "type": "EDS", "connect_timeout": "1s", `+ads+`}`))
	})
	<-cs.Initialized()
	old := cs.Get("a")
	srv.Set("a", newCluster(t, `{"name": "a", "type": "EDS", "connect_timeout": "2s", `+ads+`}`))
	srv.Settle(t, wellknown.ClusterType)
	srv.Set("b", newCluster(t, `{"name": "b", "load_assignment": `+to("127.0.0.1:1")+`}`))
	srv.Settle(t, wellknown.ClusterType)
	c := cs.Get("a")
	if c == old || c.ConnectTimeout() != 2*time.Second || len(c.Endpoints()) != 1 {
		t.Errorf("in force: timeout %v, endpoints %v", c.ConnectTimeout(), addresses(c))
	}
	if old.Pick(&lb.Context{}) == nil {
		t.Error("a stream that holds the old cluster has no endpoint")
	}
	if got := cs.View(); len(got) != 2 || !got[0].Dynamic || got[0].Warming || got[0].EDSService != "" {
		t.Errorf("view %+v", got)
	}
}

// TestForgetStats: a cluster that goes takes its stats along, and nobody else's.
func TestForgetStats(t *testing.T) {
	store := stats.NewStore()
	cs := New(Options{Stats: store, Logger: slog.New(slog.DiscardHandler)})
	defer cs.Close()
	for name, as := range map[string]string{"a": "", "a.b": "", "shared": "a.c", "other": "a.c"} {
		if err := cs.AddStatic(newCluster(t, fmt.Sprintf(`{"name": %q, "alt_stat_name": %q, "load_assignment": %s}`, name, as, to("127.0.0.1:1")))); err != nil {
			t.Fatal(err)
		}
		cs.Get(name).Stats().RqTotal.Inc()
	}
	for _, gone := range []string{"a", "other"} {
		cs.remove(gone)
	}
	var b strings.Builder
	if err := store.WriteText(&b, stats.Query{UsedOnly: true, Filter: regexp.MustCompile("upstream_rq_total")}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("cluster.a.b.upstream_rq_total: 1\ncluster.a.c.upstream_rq_total: 2\n", b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRefused(t *testing.T) {
	cs, srv := dynamic(t, true, func(srv *xdstest.Server) {
		srv.Set("good", newCluster(t, `{"name": "good", "load_assignment": `+to("127.0.0.1:1")+`}`))
		srv.Set("bad", newCluster(t, `{"name": "bad", "track_timeout_budgets": true}`))
	})
	nack := srv.Await(t, wellknown.ClusterType, 0, func(r xdstest.Request) bool { return r.Error != nil })
	if want := "Error adding/updating cluster(s) bad: track_timeout_budgets: not supported"; nack.Error.GetMessage() != want {
		t.Errorf("NACK %q, want %q", nack.Error.GetMessage(), want)
	}
	t.Run("a bad socket is refused each time it comes", func(t *testing.T) {
		bad := newCluster(t, `{"name": "bad", "transport_socket": {"name": "x", "typed_config": {"@type": "type.googleapis.com/google.protobuf.Empty"}}}`)
		for range 2 {
			n := len(srv.Requests(wellknown.ClusterType))
			srv.Set("bad", bad)
			srv.Await(t, wellknown.ClusterType, n, func(r xdstest.Request) bool { return r.Error != nil })
		}
	})
	<-cs.Initialized()
	if cs.Get("good") == nil || cs.Get("bad") != nil {
		t.Error("the good cluster must live, the bad one must not")
	}
}

// echoServer answers every connection with its name and then echoes.
func echoServer(t testing.TB, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.WriteString(c, name+" "+c.RemoteAddr().(*net.TCPAddr).IP.String()+"\n")
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

// greeting reads the line of an echoServer.
func greeting(t testing.TB, c transport.Conn) string {
	t.Helper()
	var line []byte
	for b := make([]byte, 1); ; line = append(line, b[0]) {
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
		if b[0] == '\n' {
			return string(line)
		}
	}
}

func counters(t testing.TB, s *stats.Store, names ...string) map[string]int64 {
	t.Helper()
	var b strings.Builder
	if err := s.WriteText(&b, stats.Query{}); err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for line := range strings.SplitSeq(b.String(), "\n") {
		name, value, ok := strings.Cut(line, ": ")
		for _, want := range names {
			if ok && strings.HasSuffix(name, want) {
				var n int64
				if _, err := fmt.Sscan(value, &n); err == nil {
					got[want] = n
				}
			}
		}
	}
	return got
}

func TestDial(t *testing.T) {
	store := stats.NewStore()
	cs := New(Options{Stats: store})
	t.Cleanup(cs.Close)
	if err := cs.AddStatic(newCluster(t, `{"name": "a", "load_assignment": `+to(echoServer(t, "one"))+`,
		"circuit_breakers": {"thresholds": [{"max_connections": 1, "track_remaining": true}]},
		"upstream_bind_config": {"source_address": {"address": "127.0.0.6", "port_value": 0}}}`)); err != nil {
		t.Fatal(err)
	}
	c := cs.Get("a")
	ep := c.Pick(&lb.Context{})
	conn, err := c.Dial(t.Context(), ep, transport.Target{})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("NM-013 the application sees 127.0.0.6", func(t *testing.T) {
		if got := greeting(t, conn); got != "one 127.0.0.6" {
			t.Errorf("greeted %q", got)
		}
	})
	t.Run("DR-020 a connection too many overflows", func(t *testing.T) {
		if _, err := c.Dial(t.Context(), ep, transport.Target{}); !errors.Is(err, ErrOverflow) {
			t.Errorf("error %v", err)
		}
		want := map[string]int64{"a.upstream_cx_overflow": 1, "a.upstream_cx_active": 1, "default.cx_open": 1, "default.remaining_cx": 0}
		if diff := cmp.Diff(want, counters(t, store, "a.upstream_cx_overflow", "a.upstream_cx_active", "default.cx_open", "default.remaining_cx")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	if conn.TCP() == nil {
		t.Error("a plain connection cannot be spliced")
	}
	conn.Close()
	conn.Close()
	t.Run("OB-015 OB-017 closing gives back", func(t *testing.T) {
		names := []string{"a.upstream_cx_total", "a.upstream_cx_active", "a.upstream_cx_destroy", "default.cx_open", "default.remaining_cx", "a.membership_total"}
		want := map[string]int64{"a.upstream_cx_total": 1, "a.upstream_cx_active": 0, "a.upstream_cx_destroy": 1, "default.cx_open": 0, "default.remaining_cx": 1, "a.membership_total": 1}
		if diff := cmp.Diff(want, counters(t, store, names...)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if ep.Active.Load() != 0 || ep.ActiveConns.Load() != 0 || ep.Connects.Load() != 1 {
			t.Errorf("endpoint counts %d %d %d", ep.Active.Load(), ep.ActiveConns.Load(), ep.Connects.Load())
		}
	})
}

func TestDialFails(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	cs := statics(t, `{"name": "a", "load_assignment": `+to(l.Addr().String())+`}`)
	c := cs.Get("a")
	ep := c.Pick(&lb.Context{})
	if _, err := c.Dial(t.Context(), ep, transport.Target{}); err == nil || err.Error() != "delayed connect error: Connection refused" {
		t.Errorf("error %v", err)
	}
	if ep.ConnectFails.Load() != 1 || c.Limits(0).Connections.Used() != 0 {
		t.Error("the failure is not counted, or still takes a place")
	}
}

func TestOriginalDst(t *testing.T) {
	addr := netip.MustParseAddrPort(echoServer(t, "there"))
	cs := statics(t, `{"name": "PassthroughCluster", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "cleanup_interval": "9223372035s"}`,
		fmt.Sprintf(`{"name": "ported", "type": "ORIGINAL_DST", "lb_policy": "CLUSTER_PROVIDED", "original_dst_lb_config": {"upstream_port_override": %d}}`, addr.Port()))
	c := cs.Get("PassthroughCluster")
	t.Run("WI-032 goes where the client wanted to", func(t *testing.T) {
		ep := c.Pick(&lb.Context{OriginalDst: addr})
		conn, err := c.Dial(t.Context(), ep, transport.Target{})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if got := greeting(t, conn); !strings.HasPrefix(got, "there") {
			t.Errorf("greeted %q", got)
		}
		if c.Pick(&lb.Context{OriginalDst: addr}) != ep {
			t.Error("the same destination is another endpoint")
		}
	})
	t.Run("without a destination nowhere", func(t *testing.T) {
		if ep := c.Pick(&lb.Context{}); ep != nil {
			t.Errorf("picked %v", ep.Address)
		}
	})
	t.Run("upstream_port_override", func(t *testing.T) {
		ep := cs.Get("ported").Pick(&lb.Context{OriginalDst: netip.AddrPortFrom(addr.Addr(), 1)})
		if ep.Address != addr.String() {
			t.Errorf("picked %v", ep.Address)
		}
	})
	t.Run("what is not used goes", func(t *testing.T) {
		c.Pick(&lb.Context{OriginalDst: netip.MustParseAddrPort("10.0.0.1:1")})
		c.sweepOriginals() // all were used since they came
		c.Pick(&lb.Context{OriginalDst: addr})
		c.sweepOriginals()
		if diff := cmp.Diff([]string{addr.String()}, addresses(c)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// Transport sockets are chosen by endpoint metadata.
func TestSocketMatches(t *testing.T) {
	cs := statics(t, `{"name": "a", "transport_socket_matches": [
		{"name": "tlsMode-istio", "match": {"tlsMode": "istio"}, "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config":
			{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "sni": "outbound_.80_._.a"}}},
		{"name": "tlsMode-disabled", "match": {}, "transport_socket": {"name": "envoy.transport_sockets.raw_buffer", "typed_config":
			{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"}}}],
		"load_assignment": {"cluster_name": "a", "endpoints": [{"lb_endpoints": [
			{"endpoint": {"address": {"pipe": {"path": "/meshed"}}}, "metadata": {"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}}},
			{"endpoint": {"address": {"pipe": {"path": "/plain"}}}}]}]}}`)
	c := cs.Get("a")
	for i, want := range []bool{true, false} {
		ep := c.Endpoints()[i]
		if got := c.Secure(ep); got != want {
			t.Errorf("%s: TLS %v, want %v", ep.Address, got, want)
		}
	}
}

func TestEndpointHealth(t *testing.T) {
	first := assignmentOf(t, "a", "127.0.0.1:1", "127.0.0.1:2")
	cs, srv := dynamic(t, true, func(srv *xdstest.Server) {
		srv.Set("a", newCluster(t, `{"name": "a", "type": "EDS", "common_lb_config": {"healthy_panic_threshold": {}}, `+ads+`}`))
		srv.Set("a", first)
	})
	<-cs.Initialized()
	c := cs.Get("a")
	sick := proto.Clone(first).(*endpointv3.ClusterLoadAssignment)
	sick.Endpoints[0].LbEndpoints[0].HealthStatus = corev3.HealthStatus_UNHEALTHY
	sick.Endpoints[0].LbEndpoints[1].HealthStatus = corev3.HealthStatus_DRAINING
	eps := c.Endpoints()
	srv.Set("a", sick)
	srv.Settle(t, wellknown.EndpointType)
	if ep := c.Pick(&lb.Context{}); ep != nil {
		t.Errorf("picked %s though none is healthy", ep.Address)
	}
	if got := c.Endpoints(); got[0] != eps[0] || got[0].Unhealthy.Load() != endpoint.FailedEDSHealth || got[1].Unhealthy.Load() != endpoint.Draining {
		t.Errorf("flags %d %d", got[0].Unhealthy.Load(), got[1].Unhealthy.Load())
	}
	srv.Set("a", first)
	srv.Settle(t, wellknown.EndpointType)
	if c.Pick(&lb.Context{}) == nil {
		t.Error("healthy again and not picked")
	}
}

// What is used before it exists must not be, what exists is found without allocating.
func TestGetAllocatesNothing(t *testing.T) {
	cs := statics(t, `{"name": "a", "load_assignment": `+to("127.0.0.1:1", "127.0.0.1:2")+`}`)
	x := &lb.Context{}
	ep := cs.Get("a").Pick(x)
	cs.Get("a").HTTP(ep, upstream.Wish{})
	if n := testing.AllocsPerRun(100, func() {
		c := cs.Get("a")
		c.HTTP(c.Pick(x), upstream.Wish{})
		c.Report(ep, 200)
		c.Limits(0)
		c.Stats()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if cs.Get("b") != nil {
		t.Error("an unknown cluster is found")
	}
}

func TestDialer(t *testing.T) {
	srv := xdstest.New(t)
	srv.Set("b", newCluster(t, `{"name": "b"}`))
	cs := statics(t, `{"name": "xds-grpc", "load_assignment": `+to(srv.Addr())+`, "typed_extension_protocol_options":
		{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {"@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": {"http2_protocol_options": {}}}}}`)
	client := xds.New(xds.Options{Dial: cs.Dialer("xds-grpc"), Authority: "xds-grpc", Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); client.Run(ctx) }()
	defer func() { cancel(); <-done }()
	got := make(chan string, 1)
	raw := xds.Type[string]{URL: wellknown.ClusterType, Decode: func(name string, _ *anypb.Any) (string, error) { return name, nil }}
	xds.SubscribeAll(client, raw, func(ch xds.Changes[string]) error {
		got <- ch.Updated[0].Value
		return nil
	})
	if name := <-got; name != "b" {
		t.Errorf("got %s", name)
	}
	if _, err := cs.Dialer("nowhere")(t.Context()); err == nil || err.Error() != `unknown cluster "nowhere"` {
		t.Errorf("error %v", err)
	}
}

func TestPipe(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := statics(t, fmt.Sprintf(`{"name": "agent", "load_assignment": {"cluster_name": "agent", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": %q}}}}]}]}}`, path)).Get("agent")
	ep := c.Pick(&lb.Context{})
	if ep.Address != "unix:"+path {
		t.Errorf("address %s", ep.Address)
	}
	conn, err := c.Dial(t.Context(), ep, transport.Target{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	go func() { _, _ = conn.Write([]byte("x")) }()
	if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if conn.TCP() != nil || conn.RemoteAddr().IsValid() {
		t.Error("a pipe has neither a TCP socket nor an IP address")
	}
}

// TestPriorities: requests of high priority have circuit breakers and connections of
// their own.
func TestPriorities(t *testing.T) {
	cs := statics(t, `{"name": "a", "load_assignment": `+to("127.0.0.1:1")+`, "circuit_breakers": {"thresholds": [
		{"priority": "DEFAULT", "max_pending_requests": 0}, {"priority": "HIGH", "max_pending_requests": 1}]}}`)
	c := cs.Get("a")
	ep := c.Endpoints()[0]
	reset := func(priority int) http.ResetReason {
		var r *http.Reset
		if _, err := c.HTTP(ep, upstream.Wish{Priority: priority}).Acquire(nil, time.Time{}); !errors.As(err, &r) {
			t.Fatal(err)
		}
		return r.Reason
	}
	if got := reset(0); got != http.Overflow {
		t.Errorf("default priority: %s", got)
	}
	if got := reset(1); got != http.RemoteConnectionFailure {
		t.Errorf("high priority: %s", got)
	}
}
