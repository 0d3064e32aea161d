package compile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// before is what the patches of the tests are done to: the resources of a sidecar and of
// a gateway, written as in Envoy's configuration. &manager is an HTTP connection manager
// with its HTTP filters.
const before = `
sidecar:
  listeners:
  - name: virtualInbound
    traffic_direction: INBOUND
    address: {socket_address: {address: 0.0.0.0, port_value: 15006}}
    listener_filters: [{name: envoy.filters.listener.original_dst}, {name: envoy.filters.listener.tls_inspector}]
    filter_chains:
    - name: web
      filter_chain_match: {destination_port: 8080, transport_protocol: tls, application_protocols: [istio, h2], server_names: [web.test]}
      transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: true}}
      filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config: &inbound
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          stream_idle_timeout: 5s
          use_remote_address: true
          upgrade_configs: [{upgrade_type: websocket}]
          route_config: {name: "inbound|8080||", virtual_hosts: [{name: "inbound|http|8080", domains: ["*"], routes: [{name: default, match: {prefix: /}, route: {cluster: "inbound|8080||"}}]}]}
          http_filters:
          - {name: envoy.filters.http.jwt_authn}
          - {name: envoy.filters.http.rbac}
          - {name: envoy.filters.http.cors, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}
          - {name: istio.stats}
          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
    - name: db
      filter_chain_match: {destination_port: 5432}
      filters:
      - &rbac {name: envoy.filters.network.rbac, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC, stat_prefix: tcp.}}
      - &tcp {name: envoy.filters.network.tcp_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: db, cluster: db}}
    default_filter_chain: {name: rest, filters: [*tcp]}
  - name: 0.0.0.0_80
    traffic_direction: OUTBOUND
    address: {socket_address: {address: 0.0.0.0, port_value: 80}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config: &outbound
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: out
          rds: {route_config_name: "80", config_source: {ads: {}}}
          http_filters:
          - {name: envoy.filters.http.cors, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}
          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - {name: "outbound|80||web.default.svc.cluster.local", type: EDS, connect_timeout: 10s, circuit_breakers: {thresholds: [{max_connections: 1}]}}
  - {name: "outbound|80|v1|web.default.svc.cluster.local", type: EDS, connect_timeout: 10s}
  - {name: "inbound|8080||", type: STATIC, metadata: {filter_metadata: {istio: {services: [{host: web.default.svc.cluster.local}]}}}}
  - name: mutual
    transport_socket_matches:
    - {name: tls, match: {tlsMode: istio}, transport_socket: {name: envoy.transport_sockets.tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, sni: web}}}
    - {name: plain, match: {}, transport_socket: {name: envoy.transport_sockets.raw_buffer}}
  routes:
  - name: "80"
    virtual_hosts:
    - name: web.default.svc.cluster.local:80
      domains: [web, web.default.svc.cluster.local]
      routes:
      - {name: one, match: {path: /one}, route: {cluster: one}}
      - {name: two, match: {path: /two}, redirect: {host_redirect: two.test}}
      - {name: three, match: {prefix: /}, direct_response: {status: 503}}
    - {name: allow_any, domains: ["*"], routes: [{name: rest, match: {prefix: /}, route: {cluster: PassthroughCluster}}]}
gateway:
  listeners:
  - name: 0.0.0.0_443
    address: {socket_address: {address: 0.0.0.0, port_value: 443}}
    filter_chains:
    - {name: a, filter_chain_match: {server_names: [a.test]}, filters: [{name: envoy.filters.network.http_connection_manager, typed_config: *outbound}]}
    - {name: b, filter_chain_match: {server_names: [b.test]}, filters: [*tcp]}
  clusters:
  - {name: "outbound_.80_._.web.default.svc.cluster.local", type: EDS}
  routes:
  - {name: http.80, virtual_hosts: [{name: "a.test:80", domains: [a.test], routes: [{name: plain, match: {prefix: /}, route: {cluster: a}}]}]}
  - {name: https.443.https.gw.istio-system, virtual_hosts: [{name: "a.test:443", domains: [a.test], routes: [{name: secure, match: {prefix: /}, route: {cluster: a}}]}]}
`

// resources are a proxy's, and the order in which they are shown.
type resources struct {
	listeners []*listenerv3.Listener
	routes    []*routev3.RouteConfiguration
	clusters  []*clusterv3.Cluster
}

func resourcesBefore(t *testing.T, proxy string) resources {
	t.Helper()
	var all map[string]map[string][]json.RawMessage
	if err := yaml.Unmarshal([]byte(before), &all); err != nil {
		t.Fatal(err)
	}
	return resources{
		listeners: read[*listenerv3.Listener](t, all[proxy]["listeners"]),
		routes:    read[*routev3.RouteConfiguration](t, all[proxy]["routes"]),
		clusters:  read[*clusterv3.Cluster](t, all[proxy]["clusters"]),
	}
}

func read[M proto.Message](t *testing.T, raw []json.RawMessage) []M {
	t.Helper()
	var list []M
	for _, text := range raw {
		var zero M
		m := zero.ProtoReflect().New().Interface().(M)
		if err := protojson.Unmarshal(text, m); err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

// patched are the resources of a proxy after EnvoyFilters, and what is told of patches
// without effect.
func patched(t *testing.T, p *mesh.Proxy, objects string) (resources, []string) {
	t.Helper()
	configs, problems := config.DecodeYAML("filter.yaml", []byte(objects))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	proxy := "sidecar"
	if p.Type == mesh.Router {
		proxy = "gateway"
	}
	r := resourcesBefore(t, proxy)
	patches := envoy.NewPatches(Patches(mesh.Build(config.NewSet(1, configs), mesh.Options{}), p), p.Type == mesh.Router)
	r.clusters, r.listeners = patches.Clusters(r.clusters), patches.Listeners(r.listeners)
	for i, table := range r.routes {
		r.routes[i] = patches.Routes(table)
	}
	var flaws []string
	for _, f := range patches.Flaws() {
		flaws = append(flaws, fmt.Sprintf("%s %s: %s: %v", f.Origin.Name, f.Origin.Field, f.Resource, f.Err))
	}
	return r, flaws
}

// String shows each resource as a line of what is in it, and as JSON.
func (r resources) String() string {
	var b strings.Builder
	for _, l := range r.listeners {
		fmt.Fprintf(&b, "%s [%s]", l.Name, names(l.ListenerFilters))
		for _, c := range l.FilterChains {
			fmt.Fprintf(&b, " %s(%s)", c.Name, networkNames(c))
		}
		if l.DefaultFilterChain != nil {
			fmt.Fprintf(&b, " default(%s)", networkNames(l.DefaultFilterChain))
		}
		fmt.Fprintf(&b, "\n%s\n", compact(l))
	}
	for _, rc := range r.routes {
		fmt.Fprintf(&b, "table %s\n", rc.Name)
		for _, vh := range rc.VirtualHosts {
			fmt.Fprintf(&b, "host %s: %s\n", vh.Name, names(vh.Routes))
		}
		fmt.Fprintln(&b, compact(rc))
	}
	fmt.Fprintf(&b, "clusters %s\n", names(r.clusters))
	for _, c := range r.clusters {
		fmt.Fprintln(&b, compact(c))
	}
	return b.String()
}

func names[M interface{ GetName() string }](list []M) string {
	var all []string
	for _, m := range list {
		n := m.GetName()
		if strings.HasPrefix(n, "envoy.filters.") {
			n = n[strings.LastIndexByte(n, '.')+1:]
		}
		all = append(all, n)
	}
	return strings.Join(all, " ")
}

// networkNames are the network filters of a chain, with HTTP filters in parentheses.
func networkNames(c *listenerv3.FilterChain) string {
	out := names(c.Filters)
	for _, f := range c.Filters {
		m := &hcmv3.HttpConnectionManager{}
		if f.GetTypedConfig().UnmarshalTo(m) == nil {
			out = strings.Replace(out, "http_connection_manager", "http("+names(m.HttpFilters)+")", 1)
		}
	}
	return out
}

func compact(m proto.Message) string {
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return err.Error()
	}
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return err.Error()
	}
	return b.String()
}

// envoyFilter is an EnvoyFilter of one patch.
func envoyFilter(patch string) string {
	return "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: f, namespace: istio-system}\nspec:\n  configPatches:\n  - {" + patch + "}\n"
}

// Parts of patches.
const (
	inHTTP  = `context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager%s}}}`
	buffer  = `value: {name: new, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 7}}`
	echo    = `value: {name: new, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo}}`
	inspect = `value: {name: new, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}`
	answer  = `value: {name: new, match: {path: /new}, direct_response: {status: 204}}`
)

// inHTTPFilter is a match of an HTTP filter of inbound connections, or of none.
func inHTTPFilter(name string) string {
	if name == "" {
		return fmt.Sprintf(inHTTP, "")
	}
	return fmt.Sprintf(inHTTP, ", subFilter: {name: "+name+"}")
}

func do(applyTo, match, operation, rest string) string {
	text := "applyTo: " + applyTo
	if match != "" {
		text += ", match: {" + match + "}"
	}
	text += ", patch: {operation: " + operation
	if rest != "" {
		text += ", " + rest
	}
	return text + "}"
}
