package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"

	"github.com/lateen-mesh/lateen/wellknown"
)

// TestRollingRestarts: a gateway loses no request while the sidecars behind it are replaced
// one after the other, some of them after the gateway was told, some before.
func TestRollingRestarts(t *testing.T) {
	app := answering(t)
	for _, c := range []struct {
		name   string
		leave  func(fleet *fleet, old *running)
		rounds int
	}{
		{"WI-030 the gateway hears of it first", func(f *fleet, old *running) { f.tell(); old.leave() }, 15},
		{"WI-031 a draining sidecar ends its connections in order", func(f *fleet, old *running) {
			old.call(http.MethodPost, "/drain_listeners?graceful&skip_exit")
			f.tell()
			old.leave()
		}, 15},
		{"WI-032 the gateway hears of it later", func(f *fleet, old *running) { old.leave(); f.tell() }, 15},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t, app)
			l := f.load(8)
			for range c.rounds {
				f.sidecars = append(f.sidecars, f.sidecar())
				f.tell()
				old := f.sidecars[0]
				f.sidecars = f.sidecars[1:]
				c.leave(f, old)
				l.pass(t)
			}
			if served := l.end(); served < 100 {
				t.Errorf("%d requests are no load", served)
			}
		})
	}
}

// answering is an application that takes a moment for each answer.
func answering(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		time.Sleep(5 * time.Millisecond)
		_, _ = io.WriteString(w, "hello")
	})}
	var wg sync.WaitGroup
	wg.Go(func() { _ = srv.Serve(ln) })
	t.Cleanup(func() { _ = srv.Close(); wg.Wait() })
	return ln.Addr().String()
}

// A fleet is a gateway with the sidecars that it knows.
type fleet struct {
	t        *testing.T
	app      string
	m        *management
	gateway  *running
	addr     string // of the gateway
	sidecars []*running
}

func newFleet(t *testing.T, app string) *fleet {
	f := &fleet{t: t, app: app, m: newManagement(t)}
	f.sidecars = []*running{f.sidecar(), f.sidecar()}
	f.m.set(t, wellknown.ClusterType, message(t, &clusterpb.Cluster{}, `{"name": "app", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}},
		"circuit_breakers": {"thresholds": [{"max_retries": 4294967295}]}}`)) // as in a mesh
	f.m.set(t, wellknown.ListenerType, message(t, &listenerpb.Listener{}, retrying("gateway", "app")))
	f.tell()
	f.gateway = start(t, f.m.bootstrap(""))
	f.addr = f.gateway.listener("gateway")
	return f
}

// retrying sends everything to a cluster, with the retries that routes of a mesh have.
func retrying(name, cluster string) string {
	return fmt.Sprintf(`{"name": %q, "traffic_direction": %q, "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}, "filter_chains": [{"filters": [{"name": "h", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "h",
		"http_filters": [{"name": "r", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
		"route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "include_request_attempt_count": true, "routes": [{"match": {"prefix": "/"}, "route": {"cluster": %q, "timeout": "0s",
			"retry_policy": {"retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes", "num_retries": 2,
			"retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": {"@type":
				"type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"}}], "host_selection_retry_max_attempts": 5}}}]}]}}}]}]}`, name, map[bool]string{true: "INBOUND", false: "OUTBOUND"}[name == "in"], cluster)
}

// sidecar starts one in front of the application.
func (f *fleet) sidecar() *running {
	s := start(f.t, "node: {id: n, cluster: c}\nstatic_resources:\n  clusters: ["+staticCluster("app", f.app)+"]\n  listeners: ["+retrying("in", "app")+"]",
		"--drain-time-s", "10")
	s.eventually("/ready", "LIVE\n") // a mesh waits for that, too, before it tells others
	return s
}

// tell gives the gateway the present sidecars and waits until it has them.
func (f *fleet) tell() {
	f.t.Helper()
	a := &endpointpb.ClusterLoadAssignment{ClusterName: "app", Endpoints: []*endpointpb.LocalityLbEndpoints{{}}}
	var want []string
	for _, s := range f.sidecars {
		host, port, _ := net.SplitHostPort(s.listener("in"))
		want = append(want, host+":"+port)
		a.Endpoints[0].LbEndpoints = append(a.Endpoints[0].LbEndpoints, message(f.t, &endpointpb.LbEndpoint{}, fmt.Sprintf(
			`{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}}`, host, port)))
	}
	f.m.set(f.t, wellknown.EndpointType, a)
	if f.gateway == nil {
		return
	}
	slices.Sort(want)
	for range 1000 {
		var got []string
		for line := range strings.Lines(f.gateway.get("/clusters")) {
			if rest, ok := strings.CutPrefix(line, "app::"); ok && strings.Contains(rest, "::health_flags::") {
				got = append(got, strings.Split(rest, "::")[0])
			}
		}
		if slices.Sort(got); slices.Equal(got, want) {
			return
		}
		time.Sleep(2 * time.Millisecond)
	}
	f.t.Fatalf("the gateway never knew %v", want)
}

// leave ends a proxy as SIGTERM does and waits until it is gone.
func (r *running) leave() {
	r.drain()
	err := <-r.done
	r.done <- err // the cleanup waits too
	if err != nil {
		r.t.Errorf("proxy ended: %v", err)
	}
}

// A visiting is clients that send one request after the other on connections that they
// keep, until they are told not to.
type visiting struct {
	t      *testing.T
	stop   atomic.Bool
	served atomic.Int64
	wg     sync.WaitGroup
}

func (f *fleet) load(clients int) *visiting {
	l := &visiting{t: f.t}
	for i := range clients {
		l.wg.Go(func() { l.visit(f.addr, i%2 == 0) })
	}
	return l
}

// visit sends requests without a body, or with one.
func (l *visiting) visit(addr string, body bool) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		l.t.Error(err)
		return
	}
	defer c.Close()
	r := bufio.NewReader(c)
	request := "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	if body {
		request = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
	}
	for !l.stop.Load() {
		if _, err := io.WriteString(c, request); err != nil {
			l.t.Error(err)
			return
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			l.t.Error(err)
			return
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || string(text) != "hello" {
			l.t.Errorf("%s %q %v", resp.Status, text, err)
		}
		_ = resp.Body.Close()
		l.served.Add(1)
	}
}

// pass returns when each client has had some answers more: a request that has met one
// proxy that left, and waits before it tries again, is not to meet the next, and the next.
func (l *visiting) pass(t *testing.T) {
	t.Helper()
	for now := l.served.Load(); l.served.Load() < now+64; time.Sleep(time.Millisecond) {
		if t.Context().Err() != nil || t.Failed() {
			return
		}
	}
}

// end stops the clients and returns how many answers they got.
func (l *visiting) end() int64 {
	l.stop.Store(true)
	l.wg.Wait()
	return l.served.Load()
}

// TestApplicationEndsFirst: an application that exits at once when its pod is to end, before
// anybody else knows of it, costs no request: its sidecar says that nothing was sent.
func TestApplicationEndsFirst(t *testing.T) {
	f := &fleet{t: t, app: answering(t), m: newManagement(t)}
	deserted := &fleet{t: t, app: nobody(t)}
	f.sidecars = []*running{f.sidecar(), deserted.sidecar()}
	f.m.set(t, wellknown.ClusterType, message(t, &clusterpb.Cluster{}, `{"name": "app", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}}}}`))
	f.m.set(t, wellknown.ListenerType, message(t, &listenerpb.Listener{}, retrying("gateway", "app")))
	f.tell()
	f.gateway = start(t, f.m.bootstrap(""))
	f.addr = f.gateway.listener("gateway")
	t.Run("WI-020 another endpoint is asked", func(t *testing.T) {
		k := newKeeper(t, f.addr)
		for range 20 {
			k.ask()
		}
	})
	t.Run("who is no sidecar hears nothing of it", func(t *testing.T) {
		resp, err := http.Get("http://" + f.sidecars[1].listener("in"))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get(wellknown.UnsentHeader) != "" {
			t.Errorf("%s %v", resp.Status, resp.Header)
		}
	})
}
