package istiostats

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	statspb "istio.io/api/envoy/extensions/stats"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/peer"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// deps are those of a workload "web" that knows one cluster.
func deps(t testing.TB, log *bytes.Buffer) Deps {
	t.Helper()
	m, err := structpb.NewStruct(map[string]any{"WORKLOAD_NAME": "web-v1", "NAMESPACE": "shop", "CLUSTER_ID": "c1", "LABELS": map[string]any{"app": "web", "version": "v1"}})
	if err != nil {
		t.Fatal(err)
	}
	d := Deps{ID: "sidecar~1.2.3.4~web.shop~shop.svc", ServiceCluster: "web.shop", Metadata: m, Stats: stats.NewStore(), Log: slog.New(slog.DiscardHandler),
		Service: func(cluster string) (host, name, namespace string) {
			if cluster == "outbound|80||db" {
				return "db.data.svc.cluster.local", "db", "data"
			}
			return "", "", ""
		}}
	if log != nil {
		d.Log = slog.New(slog.NewTextHandler(log, nil))
	}
	return d
}

func build(t testing.TB, d Deps, direction string, c *statspb.PluginConfig) *filter {
	t.Helper()
	f, err := newHTTP(d, direction, c)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func newHTTP(d Deps, direction string, c *statspb.PluginConfig) (*filter, error) {
	a, err := anypb.New(c)
	if err != nil {
		return nil, err
	}
	f, err := Factory(d).New(a, http.Env{Direction: direction})
	if err != nil {
		return nil, err
	}
	return f.(*filter), nil
}

// request is one that has ended.
func request(cluster, host string, code int) *http.Stream {
	s := &http.Stream{}
	s.Begin(nil, 1, nil)
	s.Request.Method, s.Request.Authority, s.Request.Path, s.Request.Body = []byte("GET"), []byte(host), []byte("/a?b"), http.NoBody
	s.Response.Status, s.Response.Body = code, http.NoBody
	start := time.Unix(1000, 0)
	s.Info = streaminfo.Info{Cluster: cluster, Code: code, Start: start, End: start.Add(7 * time.Millisecond), Protocol: "HTTP/1.1", RouteName: "r1"}
	return s
}

func page(t testing.TB, d Deps) string {
	t.Helper()
	var b strings.Builder
	if err := d.Stats.WritePrometheus(&b, stats.Query{}); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// lineOf is the line of a metric with these pairs among its labels.
func lineOf(page, metric string, pairs ...string) string {
next:
	for line := range strings.SplitSeq(page, "\n") {
		if !strings.HasPrefix(line, metric+"{") {
			continue
		}
		for _, p := range pairs {
			if !strings.Contains(line, p) {
				continue next
			}
		}
		return line
	}
	return ""
}

// TestDestinations: what tells the destination, in the order in which it is asked.
func TestDestinations(t *testing.T) {
	for name, c := range map[string]struct {
		cluster, endpoint string
		config            *statspb.PluginConfig
		want              []string
	}{
		"OB-011 the cluster's service": {"outbound|80||db", "", &statspb.PluginConfig{}, []string{
			`destination_service="db.data.svc.cluster.local"`, `destination_service_name="db"`, `destination_service_namespace="data"`, `destination_workload="unknown"`}},
		"OB-011 its endpoint says who it is": {"outbound|80||db", "db-0;data;db;v2;c2", &statspb.PluginConfig{}, []string{
			`destination_workload="db-0"`, `destination_workload_namespace="data"`, `destination_canonical_service="db"`,
			`destination_canonical_revision="v2"`, `destination_cluster="c2"`, `destination_app="unknown"`}},
		"OB-011 the request's host": {"outbound|80||other", "", &statspb.PluginConfig{}, []string{
			`destination_service="www.example.com"`, `destination_service_name="www.example.com"`, `destination_service_namespace="unknown"`}},
		"OB-011 not the host where it is the client's": {"outbound|80||other", "", &statspb.PluginConfig{DisableHostHeaderFallback: true}, []string{
			`destination_service="unknown"`, `destination_service_name="unknown"`}},
		"OB-011 passed through": {"PassthroughCluster", "", &statspb.PluginConfig{}, []string{
			`destination_service="www.example.com"`, `destination_service_name="PassthroughCluster"`}},
		"OB-011 nowhere": {"BlackHoleCluster", "", &statspb.PluginConfig{DisableHostHeaderFallback: true}, []string{
			`destination_service="unknown"`, `destination_service_name="BlackHoleCluster"`}},
	} {
		t.Run(name, func(t *testing.T) {
			d := deps(t, nil)
			f := build(t, d, "OUTBOUND", c.config)
			s := request(c.cluster, "www.example.com", 200)
			if c.endpoint != "" {
				s.Info.Upstream = new(endpoint.Endpoint)
				s.Info.Upstream.Metadata.Store(map[string]map[string]any{"istio": {"workload": c.endpoint}})
			}
			f.OnEnd(s, 0)
			common := []string{`reporter="source"`, `source_workload="web-v1"`, `source_workload_namespace="shop"`, `source_canonical_service="web"`,
				`source_app="web"`, `source_version="v1"`, `source_cluster="c1"`, `request_protocol="http"`, `response_code="200"`}
			if line := lineOf(page(t, d), "istio_requests_total", append(common, c.want...)...); !strings.HasSuffix(line, " 1") {
				t.Errorf("no such series in\n%s", page(t, d))
			}
		})
	}
}

// TestSecurity: what certificates say.
func TestSecurity(t *testing.T) {
	d := deps(t, nil)
	f := build(t, d, "INBOUND", &statspb.PluginConfig{})
	s := request("inbound|80||", "web", 503)
	s.Info.PeerURISANs, s.Info.LocalURISANs = []string{"spiffe://t/ns/a/sa/b"}, []string{"spiffe://t/ns/shop/sa/web"}
	s.Info.Flags.Set(streaminfo.UpstreamConnectionFailure)
	s.Info.DownstreamPeer = &peer.Workload{Name: "client-v1", Namespace: "a"}
	f.OnEnd(s, 0)
	for _, want := range [][]string{{
		`reporter="destination"`, `source_principal="spiffe://t/ns/a/sa/b"`, `destination_principal="spiffe://t/ns/shop/sa/web"`,
		`response_flags="UF"`, `response_code="503"`, `source_workload="client-v1"`, `connection_security_policy="none"`,
	}} {
		if lineOf(page(t, d), "istio_requests_total", want...) == "" {
			t.Errorf("no %v in\n%s", want, page(t, d))
		}
	}
}

// TestDenials: a 403 of the proxy's own can be told from one of the application's, by a label that nothing
// else has; it can be taken off as any (PO-018).
func TestDenials(t *testing.T) {
	for _, c := range []struct{ details, want string }{
		{"rbac_access_denied_matched_policy[ns[a]-policy[b]-rule[0]]", `denied_by="rbac"`},
		{"jwt_authn_access_denied{Jwt_is_expired}", `denied_by="jwt_authn"`},
		{"ext_authz_denied", `denied_by="ext_authz"`},
		{"ext_authz_error", `denied_by="ext_authz"`},
		{"via_upstream", ""},
		{"route_not_found", ""},
	} {
		for _, off := range []bool{false, true} {
			d, config := deps(t, nil), &statspb.PluginConfig{}
			if off {
				config.Metrics = []*statspb.MetricConfig{{TagsToRemove: []string{"denied_by"}}}
			}
			f := build(t, d, "INBOUND", config)
			s := request("inbound|80||", "web", 403)
			s.Info.CodeDetails = c.details
			f.OnEnd(s, 0)
			line := lineOf(page(t, d), "istio_requests_total", `response_code="403"`)
			if want := c.want != "" && !off; line == "" || strings.Contains(line, "denied_by=") != want || want && !strings.Contains(line, c.want) {
				t.Errorf("%s, off %v: %s", c.details, off, line)
			}
		}
	}
}

// TestUpstreamSecurity: what the certificates of the connection upstream say to its client.
func TestUpstreamSecurity(t *testing.T) {
	d := deps(t, nil)
	f := build(t, d, "OUTBOUND", &statspb.PluginConfig{})
	s := request("outbound|80||db", "db", 200)
	s.Info.UpstreamTLS = &streaminfo.TLS{
		Peer: &streaminfo.Certificate{URIs: []string{"spiffe://t/ns/data/sa/db"}}, Local: &streaminfo.Certificate{URIs: []string{"spiffe://t/ns/shop/sa/web"}},
	}
	f.OnEnd(s, 0)
	want := []string{`reporter="source"`, `source_principal="spiffe://t/ns/shop/sa/web"`, `destination_principal="spiffe://t/ns/data/sa/db"`, `connection_security_policy="unknown"`}
	if lineOf(page(t, d), "istio_requests_total", want...) == "" {
		t.Errorf("no %v in\n%s", want, page(t, d))
	}
}

// TestOverrides: labels by expressions, taken off, metrics dropped and defined.
func TestOverrides(t *testing.T) {
	d := deps(t, nil)
	f := build(t, d, "OUTBOUND", &statspb.PluginConfig{
		Definitions: []*statspb.MetricDefinition{{Name: "posts", Value: "request.method == 'GET' ? 2 : 0"}},
		Metrics: []*statspb.MetricConfig{
			{Dimensions: map[string]string{"request_protocol": "request.protocol", "path": "request.url_path", "who": "node.metadata['WORKLOAD_NAME'] + '!'"}},
			{Name: "request_bytes", Drop: true},
			{Name: "requests_total", TagsToRemove: []string{"response_flags", "who"}},
			{Name: "posts", Dimensions: map[string]string{"route": "xds.route_name"}},
		},
	})
	f.OnEnd(request("outbound|80||db", "db", 200), 0)
	text := page(t, d)
	t.Run("TM-011 labels", func(t *testing.T) {
		line := lineOf(text, "istio_requests_total", `request_protocol="HTTP/1.1"`, `path="/a"`)
		if line == "" || strings.Contains(line, "response_flags") || strings.Contains(line, "who=") {
			t.Errorf("%s", text)
		}
		if lineOf(text, "istio_response_bytes_count", `who="web-v1!"`) == "" {
			t.Errorf("no label of another metric:\n%s", text)
		}
	})
	t.Run("TM-010 a metric is dropped", func(t *testing.T) {
		if strings.Contains(text, "istio_request_bytes") {
			t.Errorf("%s", text)
		}
	})
	t.Run("TM-009 a metric of its own", func(t *testing.T) {
		if line := lineOf(text, "istio_posts", `route="r1"`, `path="/a"`); !strings.HasSuffix(line, " 2") {
			t.Errorf("%q", line)
		}
	})
}

func TestRefused(t *testing.T) {
	for want, c := range map[string]*statspb.PluginConfig{
		"metrics[0]: dimensions[a]: expression \"nobody.x\": nobody: no such attribute": {Metrics: []*statspb.MetricConfig{{Dimensions: map[string]string{"a": "nobody.x"}}}},
		"metrics[0]: name: no metric \"x\"":                                             {Metrics: []*statspb.MetricConfig{{Name: "x", Drop: true}}},
		"metrics[0]: match: not supported":                                              {Metrics: []*statspb.MetricConfig{{Match: "x"}}},
		"definitions[0]: name: must not be empty":                                       {Definitions: []*statspb.MetricDefinition{{Value: "1"}}},
		"definitions[0]: type: GAUGE: not supported":                                    {Definitions: []*statspb.MetricDefinition{{Name: "a", Value: "1", Type: statspb.MetricType_GAUGE}}},
		"reporter: not supported":                                                       {Reporter: statspb.Reporter_SERVER_GATEWAY},
	} {
		if _, err := newHTTP(deps(t, nil), "", c); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestNoAllocations: one series costs nothing once it is known.
func TestNoAllocations(t *testing.T) {
	d := deps(t, nil)
	f := build(t, d, "OUTBOUND", &statspb.PluginConfig{})
	s := request("outbound|80||other", "www.example.com", 200)
	s.Info.UpstreamPeer = &peer.Workload{Name: "x"}
	if n := testing.AllocsPerRun(1000, func() { f.OnEnd(s, 0) }); n != 0 {
		t.Errorf("%v allocations for each request", n)
	}
}

// TestBounded: clients that make up hosts make no end of series, and the log says which
// label it was.
func TestBounded(t *testing.T) {
	var log bytes.Buffer
	d := deps(t, &log)
	f := build(t, d, "OUTBOUND", &statspb.PluginConfig{Metrics: []*statspb.MetricConfig{
		{Name: "request_duration_milliseconds", Drop: true}, {Name: "request_bytes", Drop: true}, {Name: "response_bytes", Drop: true}}})
	for i := range maxSeries + 500 {
		f.OnEnd(request("outbound|80||other", fmt.Sprintf("h%d.example.com", i), 200), 0)
	}
	if n := strings.Count(page(t, d), "istio_requests_total{"); n > maxSeries+2 {
		t.Errorf("%d series", n)
	}
	if !strings.Contains(log.String(), "label=destination_service") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("log:\n%s", &log)
	}
}

// TestTCP: a connection is counted when it gets upstream or ends, and its bytes once.
func TestTCP(t *testing.T) {
	d := deps(t, nil)
	a, err := anypb.New(&statspb.PluginConfig{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := NetworkFactory(d).New(a, network.Env{Direction: "OUTBOUND"})
	if err != nil {
		t.Fatal(err)
	}
	c := &network.Conn{Info: &streaminfo.Info{Cluster: "outbound|80||db", UpstreamPeer: &peer.Workload{Name: "db-0"}}}
	if !b.Filter.OnConnect(c) {
		t.Fatal("the connection is closed")
	}
	c.Relaying(func() (received, sent uint64) { return 10, 20 })
	v, _ := b.Filter.(*connections).open.Load(c)
	v.(*connection).tick()
	labels := []string{`reporter="source"`, `destination_workload="db-0"`, `destination_service_name="db"`, `request_protocol="tcp"`, `response_flags="-"`}
	wants := func(name, metric, value string) {
		t.Run(name, func(t *testing.T) {
			line := lineOf(page(t, d), metric, labels...)
			if !strings.HasSuffix(line, "} "+value) || strings.Contains(line, "response_code") {
				t.Errorf("%s: %q", metric, line)
			}
		})
	}
	wants("OB-006 opened", "istio_tcp_connections_opened_total", "1")
	wants("OB-005 sent so far", "istio_tcp_sent_bytes_total", "20")
	c.Info.BytesReceived, c.Info.BytesSent = 15, 40
	b.Filter.(network.Closer).OnClose(c)
	wants("OB-006 opened once", "istio_tcp_connections_opened_total", "1")
	wants("OB-006 closed", "istio_tcp_connections_closed_total", "1")
	wants("OB-005 sent", "istio_tcp_sent_bytes_total", "40")
	wants("OB-005 received", "istio_tcp_received_bytes_total", "15")
}

func TestExpressions(t *testing.T) {
	d := deps(t, nil)
	f := build(t, d, "OUTBOUND", &statspb.PluginConfig{})
	s := request("outbound|80||db", "www.example.com", 404)
	s.Request.Headers.Add([]byte("x-team"), []byte("blue"))
	s.Info.UpstreamPeer = &peer.Workload{Name: "db-0", Labels: map[string]string{"role": "primary"}}
	r := record{info: &s.Info, stream: s, env: f.environment}
	for text, want := range map[string]string{
		"'a'": "a", `"a\"b"`: `a"b`, "1 + 2": "3", "true": "true", "request.method": "GET", "request.headers['x-team']": "blue",
		"request.headers['nope']": "unknown", "has(request.headers['nope'])": "false", "has(request.headers['nope']) ? 'y' : 'n'": "n",
		"response.code == 404 && request.host.startsWith('www.')": "true", "!(response.code == 200) || false": "true",
		"string(response.code) + '-' + request.url_path": "404-/a", "upstream_peer.labels['role'].value": "primary", "upstream_peer.workload": "db-0",
		"filter_state.upstream_peer.workload": "db-0", "xds.cluster_name": "outbound|80||db", "size('abc')": "3", "request.host.contains('exam')": "true",
		"listener_direction": "outbound", "response.code + 'x'": "unknown",
	} {
		x, err := parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := x.String(&r); got != want {
			t.Errorf("%s is %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"", "'", "request.", "a.b", "1 +", "(1", "has(", "request.method.upper('x')", "'a'['b']", "1 2", strings.Repeat("(", 100), strings.Repeat("!", 100)} {
		if _, err := parse(text); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"request.headers['a'] == 'b' ? 1 : 2", "has(a.b) && !c", "'\\", "((("} {
		f.Add(s)
	}
	f.Fuzz(func(_ *testing.T, s string) { _, _ = parse(s) })
}
