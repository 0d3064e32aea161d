package proxy

import (
	"net/netip"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/listener"
)

// read decodes a resource of a test.
func read[M proto.Message](t *testing.T, text string, m M) M {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), m); err != nil {
		t.Fatal(err)
	}
	return m
}

// shop is a gateway's listener with its routes; one of its clusters comes with EDS, one
// is found by DNS.
func shop(t *testing.T) Resources {
	t.Helper()
	return Resources{
		Listeners: []*listenerpb.Listener{read(t, `{"name": "0.0.0.0_8080", "address": {"socket_address": {"address": "0.0.0.0", "port_value": 8080}}, "filter_chains": [{"filters": [{
			"name": "envoy.filters.network.http_connection_manager", "typed_config": {
			"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"stat_prefix": "shop", "rds": {"route_config_name": "http.8080", "config_source": {"ads": {}, "resource_api_version": "V3"}},
			"normalize_path": true,
			"access_log": [{"name": "file", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "/dev/stdout"}}],
			"http_filters": [
				{"name": "envoy.filters.http.fault", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"}},
				{"name": "envoy.filters.http.router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}`, &listenerpb.Listener{})},
		Routes: []*routepb.RouteConfiguration{read(t, `{"name": "http.8080", "virtual_hosts": [{"name": "shop", "domains": ["shop.test"], "routes": [
			{"name": "slow", "match": {"prefix": "/slow"}, "route": {"cluster": "backend"}, "typed_per_filter_config": {"envoy.filters.http.fault": {
				"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault",
				"delay": {"fixed_delay": "3600s", "percentage": {"numerator": 100}}, "abort": {"http_status": 418, "percentage": {"numerator": 50}}}}},
			{"name": "broken", "match": {"prefix": "/broken"}, "route": {"cluster": "backend"}, "typed_per_filter_config": {"envoy.filters.http.fault": {
				"@type": "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault", "abort": {"http_status": 418, "percentage": {"numerator": 100}}}}},
			{"name": "old", "match": {"path": "/old"}, "redirect": {"path_redirect": "/new"}},
			{"name": "beta", "match": {"prefix": "/", "headers": [{"name": "x-user", "string_match": {"exact": "beta"}}]}, "route": {"cluster": "far"}},
			{"name": "lost", "match": {"prefix": "/lost"}, "route": {"cluster": "nowhere"}},
			{"name": "rest", "match": {"prefix": "/"}, "route": {"cluster": "backend"}}]}]}`, &routepb.RouteConfiguration{})},
		Clusters: []*clusterpb.Cluster{
			read(t, `{"name": "backend", "type": "EDS", "eds_cluster_config": {"eds_config": {"ads": {}, "resource_api_version": "V3"}}}`, &clusterpb.Cluster{}),
			read(t, `{"name": "far", "type": "STRICT_DNS", "load_assignment": {"cluster_name": "far", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "far.invalid", "port_value": 443}}}}]}]}}`, &clusterpb.Cluster{}),
			read(t, `{"name": "wrong", "type": "STATIC", "load_assignment": {"cluster_name": "wrong", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "no.ip", "port_value": 1}}}}]}]}}`, &clusterpb.Cluster{}),
		},
		Endpoints: []*endpointpb.ClusterLoadAssignment{read(t, `{"cluster_name": "backend", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": "10.0.0.7", "port_value": 80}}}}]}]}`, &endpointpb.ClusterLoadAssignment{})},
	}
}

func TestModelDecidesAsAProxyWould(t *testing.T) {
	m, err := NewModel(&corepb.Node{Id: "router~10.0.0.1~gw.ns~ns.svc", Cluster: "gw"}, shop(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if r := m.Refused(); len(r) != 1 || r[0].Name != "wrong" || !strings.Contains(r[0].Err.Error(), "malformed IP address: no.ip") {
		t.Errorf("refused are %v", r)
	}
	for _, c := range []struct {
		name, host, path, user   string
		status                   int
		route, details, location string
		cluster, endpoint, note  string
	}{
		{name: "a route to endpoints of EDS", path: "/x", status: 503, route: "rest", details: "no_healthy_upstream", cluster: "backend", endpoint: "10.0.0.7:80"},
		{name: "a header decides, and nothing is resolved", path: "/x", user: "beta", status: 503, route: "beta", details: "no_healthy_upstream", cluster: "far", endpoint: "far.invalid:443"},
		{name: "the path is normalized first", path: "/a/../lost", status: 503, route: "lost", details: "cluster_not_found"},
		{name: "a redirect", path: "/old", status: 301, route: "old", details: "direct_response", location: "http://shop.test/new"},
		{name: "no such host", host: "other.test", path: "/", status: 404, details: "route_not_found"},
		{name: "a delay is told and not waited for, half an abort too", path: "/slow", status: 503, route: "slow", details: "no_healthy_upstream", cluster: "backend", endpoint: "10.0.0.7:80",
			note: "fault: all requests are delayed by 1h0m0s; fault: 50% of the requests are aborted with 418"},
		{name: "an abort of all is the answer", path: "/broken", status: 418, route: "broken", details: "fault_filter_abort", note: "fault: all requests are aborted with 418"},
	} {
		t.Run(c.name, func(t *testing.T) {
			host := c.host
			if host == "" {
				host = "shop.test"
			}
			q := Question{Facts: listener.Facts{Socket: netip.MustParseAddrPort("0.0.0.0:8080"), From: netip.MustParseAddrPort("10.1.1.1:4000")}, Method: "GET", Target: c.path}
			q.Fields = []http.Field{{Name: []byte("host"), Value: []byte(host)}}
			if c.user != "" {
				q.Fields = append(q.Fields, http.Field{Name: []byte("x-user"), Value: []byte(c.user)})
			}
			d := m.Decide(q)
			r := &d.Request
			if d.Listener != "0.0.0.0_8080" || r.Target == nil {
				t.Fatalf("decision: %+v", d)
			}
			endpoint := ""
			if ep := d.Picked[c.cluster]; ep != nil {
				endpoint = ep.Address
			}
			if r.Status != c.status || r.Target.RouteName() != c.route || r.Details != c.details || r.Location != c.location || endpoint != c.endpoint {
				t.Errorf("status %d route %q details %q location %q endpoint %q", r.Status, r.Target.RouteName(), r.Details, r.Location, endpoint)
			}
			if notes := strings.Join(r.Notes, "; "); notes != c.note {
				t.Errorf("notes %q, want %q", notes, c.note)
			}
		})
	}
}

func TestModelHasNoListener(t *testing.T) {
	m, err := NewModel(&corepb.Node{Id: "n", Cluster: "c"}, shop(t))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	d := m.Decide(Question{Facts: listener.Facts{Socket: netip.MustParseAddrPort("0.0.0.0:9")}, Method: "GET", Target: "/"})
	if d.Listener != "" || d.Request.Target != nil {
		t.Errorf("decision: %+v", d)
	}
}
