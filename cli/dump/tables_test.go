package dump_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/cli/dump"
)

// sidecar is a dump of what a sidecar has, with one of each that tables tell apart.
const sidecar = `{"configs": [
{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump",
 "static_clusters": [{"cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "agent", "type": "STATIC"}}],
 "dynamic_active_clusters": [
  {"cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "outbound|9080|v2|reviews.default.svc.cluster.local", "type": "EDS",
   "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"}}}}},
  {"cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "outbound|80||reviews.default.svc.cluster.local", "type": "EDS"}},
  {"cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "inbound|9080||", "type": "ORIGINAL_DST"}}]},
{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump",
 "dynamic_listeners": [
  {"name": "virtualInbound", "active_state": {"listener": {"@type": "type.googleapis.com/envoy.config.listener.v3.Listener", "name": "virtualInbound",
   "address": {"socket_address": {"address": "0.0.0.0", "port_value": 15006}}, "additional_addresses": [{"address": {"socket_address": {"address": "::", "port_value": 15006}}}],
   "filter_chains": [
    {"filter_chain_match": {"destination_port": 15006}, "filters": [{"name": "t", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "BlackHoleCluster"}}]},
    {"filter_chain_match": {"destination_port": 9080, "transport_protocol": "tls", "server_names": ["a.example", "b.example"], "application_protocols": ["istio-peer-exchange", "istio"]},
     "filters": [{"name": "t", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", "cluster": "inbound|9080||"}}]},
    {"filter_chain_match": {"destination_port": 80, "prefix_ranges": [{"address_prefix": "10.0.0.1", "prefix_len": 32}, {"address_prefix": "10.1.0.0", "prefix_len": 16}, {"address_prefix": "fd00::1", "prefix_len": 128}]},
     "filters": [{"name": "x", "typed_config": {"@type": "type.example.com/mine", "y": 1}}]}],
   "default_filter_chain": {"filters": [{"name": "h", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "rds": {"route_config_name": "9080"}}}]}}}},
  {"name": "refused", "error_state": {"details": "no"}}]},
{"@type": "type.googleapis.com/envoy.admin.v3.RoutesConfigDump",
 "dynamic_route_configs": [
  {"route_config": {"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "reviews.default.svc.cluster.local:80"}},
  {"route_config": {"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "9080", "virtual_hosts": [
   {"name": "reviews:9080", "domains": ["reviews.default.svc.cluster.local", "reviews.default.svc.cluster.local.", "reviews", "reviews:9080", "reviews.default", "reviews.default.svc", "10.0.0.7", "10.0.0.7:9080", "[fd00::7]", "[fd00::7]:9080"],
    "routes": [
     {"match": {"safe_regex": {"regex": "/v[0-9]"}}, "route": {"cluster": "x"}, "metadata": {"filter_metadata": {"istio": {"config": "/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews"}}}},
     {"match": {"path": "/health"}, "route": {"cluster": "x"}}]},
   {"name": "allow_any", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "PassthroughCluster"}}]},
   {"name": "empty", "domains": ["a.example", "b.example"]}]}},
  {"route_config": {"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "80", "virtual_hosts": [{"name": "a\tb\nc", "domains": ["*"], "routes": [{"match": {"prefix": "/"}}]}]}}]}]}`

func TestTables(t *testing.T) {
	d, err := dump.Parse([]byte(sidecar))
	if err != nil {
		t.Fatal(err)
	}
	clusters := func(f dump.ClusterFilter) func() (*dump.List, error) {
		return func() (*dump.List, error) { return d.Clusters(f) }
	}
	listeners := func(f dump.ListenerFilter, brief bool) func() (*dump.List, error) {
		return func() (*dump.List, error) { return d.Listeners(f, brief) }
	}
	routes := func(f dump.RouteFilter, brief bool) func() (*dump.List, error) {
		return func() (*dump.List, error) { return d.Routes(f, brief) }
	}
	for _, c := range []struct {
		name string
		list func() (*dump.List, error)
		want string
	}{
		{"CL-025 clusters", clusters(dump.ClusterFilter{}), `
SERVICE FQDN                          PORT     SUBSET     DIRECTION     TYPE             DESTINATION RULE
                                      9080     -          inbound       ORIGINAL_DST
agent                                 -        -          -             STATIC
reviews.default.svc.cluster.local     80       -          outbound      EDS
reviews.default.svc.cluster.local     9080     v2         outbound      EDS              reviews.default
`},
		{"CL-025 clusters of a subset", clusters(dump.ClusterFilter{FQDN: "reviews.default.svc.cluster.local", Subset: "v2", Direction: "outbound", Port: 9080}), `
SERVICE FQDN                          PORT     SUBSET     DIRECTION     TYPE     DESTINATION RULE
reviews.default.svc.cluster.local     9080     v2         outbound      EDS      reviews.default
`},
		{"CL-025 clusters of a direction", clusters(dump.ClusterFilter{Direction: "inbound"}), `
SERVICE FQDN     PORT     SUBSET     DIRECTION     TYPE             DESTINATION RULE
                 9080     -          inbound       ORIGINAL_DST
`},
		{"CL-026 listeners", listeners(dump.ListenerFilter{Port: 15006, Address: "::", Type: "http+tcp"}, false), `
ADDRESSES  PORT  MATCH                                                          DESTINATION
0.0.0.0,:: 15006 ALL                                                            Route: 9080
0.0.0.0,:: 15006 Addr: *:15006                                                  Non-HTTP/Non-TCP
0.0.0.0,:: 15006 Addr: 10.0.0.1:80,10.1.0.0/16:80,[fd00::1]:80                  Non-HTTP/Non-TCP
0.0.0.0,:: 15006 SNI: a.example,b.example; Trans: tls; App: TCP TLS; Addr: *:9080 Cluster: inbound|9080||
`},
		{"CL-026 listeners in brief", listeners(dump.ListenerFilter{}, true), `
ADDRESSES  PORT  TYPE
0.0.0.0,:: 15006 HTTP+TCP
`},
		{"CL-026 listeners of another type", listeners(dump.ListenerFilter{Type: "HTTP"}, false), `
ADDRESSES PORT MATCH DESTINATION
`},
		{"CL-027 routes", routes(dump.RouteFilter{}, false), `
NAME     VHOST NAME       DOMAINS                              MATCH             VIRTUAL SERVICE
80       a?b?c            *                                    /*
9080     reviews:9080     reviews, reviews.default + 2 more...     regex /v[0-9]     reviews.default
9080     reviews:9080     reviews, reviews.default + 2 more...     /health
9080     empty            a.example, b.example                 /*                404
`},
		{"CL-027 routes in brief", routes(dump.RouteFilter{Name: "9080"}, true), `
NAME     VIRTUAL HOSTS
9080     3
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := c.list()
			if err != nil {
				t.Fatal(err)
			}
			sameTable(t, l, c.want)
		})
	}
}

// TestHosts shows what a proxy thinks of the endpoints that it was told of.
func TestHosts(t *testing.T) {
	h, err := dump.ParseHosts([]byte(`{"cluster_statuses": [
 {"name": "outbound|80||httpbin.org", "host_statuses": [
  {"address": {"socket_address": {"address": "203.0.113.2", "port_value": 80}}, "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": true}},
  {"address": {"socket_address": {"address": "203.0.113.1", "port_value": 80}}, "health_status": {"eds_health_status": "HEALTHY"}},
  {"address": {"socket_address": {"address": "203.0.113.1", "port_value": 9}}, "health_status": {"eds_health_status": "DRAINING"}}]},
 {"name": "sds", "host_statuses": [{"address": {"pipe": {"path": "./socket"}}, "health_status": {"eds_health_status": "HEALTHY", "failed_active_health_check": true}}]},
 {"name": "tunnel", "host_statuses": [{"address": {"envoy_internal_address": {"server_listener_name": "originate", "endpoint_id": "10.0.0.1:80"}}, "health_status": {"eds_health_status": "HEALTHY"}}]},
 {"name": "empty"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		filter dump.EndpointFilter
		want   string
	}{
		{"CL-028 all", dump.EndpointFilter{}, `
ENDPOINT                          STATUS        OUTLIER CHECK     CLUSTER
envoy://originate/10.0.0.1:80     HEALTHY       OK                tunnel
203.0.113.1:9                     DRAINING      OK                outbound|80||httpbin.org
203.0.113.1:80                    HEALTHY       OK                outbound|80||httpbin.org
203.0.113.2:80                    HEALTHY       FAILED            outbound|80||httpbin.org
unix://./socket                   UNHEALTHY     OK                sds
`},
		{"CL-028 some", dump.EndpointFilter{Address: "203.0.113.1", Port: 80, Cluster: "outbound|80||httpbin.org", Status: "healthy"}, `
ENDPOINT           STATUS      OUTLIER CHECK     CLUSTER
203.0.113.1:80     HEALTHY     OK                outbound|80||httpbin.org
`},
		{"CL-028 none", dump.EndpointFilter{Status: "degraded"}, `
ENDPOINT     STATUS     OUTLIER CHECK     CLUSTER
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			if err := h.List(c.filter).Write(&out, "short"); err != nil {
				t.Fatal(err)
			}
			same(t, "short", out.Bytes(), []byte(strings.TrimPrefix(c.want, "\n")))
		})
	}
}

// TestCompare finds what a proxy has otherwise than its control plane sends it.
func TestCompare(t *testing.T) {
	control, err := dump.Parse([]byte(sidecar))
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.NewReplacer(`"name": "inbound|9080||", "type": "ORIGINAL_DST"`, `"name": "inbound|9080||", "type": "STATIC"`,
		`"name": "80"`, `"name": "81"`).Replace(sidecar)
	proxy, err := dump.Parse([]byte(changed))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := dump.Compare(&out, control, proxy); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Clusters Don't Match\n--- Istiod Clusters\n+++ Envoy Clusters\n@@ -1,4 +1,4 @@ inbound|9080||\n {\n   \"name\": \"inbound|9080||\",\n-  \"type\": \"ORIGINAL_DST\"\n+  \"type\": \"STATIC\"\n }\nListeners Match\nRoutes Don't Match\n",
		"\n@@ -1,18 +0,0 @@ 80\n-{\n-  \"name\": \"80\",\n",
		"\n@@ -0,0 +1,18 @@ 81\n+{\n+  \"name\": \"81\",\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no\n%s\nin\n%s", want, &out)
		}
	}
}
