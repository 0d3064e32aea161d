package mixed

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointpb "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlspb "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"
)

const (
	listenerURL = "type.googleapis.com/envoy.config.listener.v3.Listener"
	routeURL    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	clusterURL  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	endpointURL = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	secretURL   = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

const listenerText = `
name: %[1]s
address: {socket_address: {address: 127.0.0.1, port_value: %[2]d}}
traffic_direction: OUTBOUND
filter_chains:
- %[4]s
  filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: %[1]s
      server_name: generation-%[3]d
      stream_idle_timeout: 0s
      upgrade_configs: [{upgrade_type: websocket}]
      rds: {route_config_name: routes, config_source: {ads: {}, resource_api_version: V3}}
      http_filters:
      - name: envoy.filters.http.fault
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}
      - name: envoy.filters.http.router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`

const secureText = `transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
      common_tls_context:
        alpn_protocols: [h2, http/1.1]
        tls_certificate_sds_secret_configs: [{name: server, sds_config: {ads: {}, resource_api_version: V3}}]`

const bytesText = `
name: tcp
address: {socket_address: {address: 127.0.0.1, port_value: %d}}
filter_chains:
- filters:
  - name: envoy.filters.network.tcp_proxy
    typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: tcp-%d, cluster: echo, idle_timeout: 0s}
`

const routeText = `
name: routes
virtual_hosts:
- name: all
  domains: ["*"]
  response_headers_to_add: [{header: {key: x-generation, value: "%d"}}]
  routes:
  - match: {prefix: /steady.Echo/}
    route: {cluster: steady-h2, timeout: 0s}
  - match: {prefix: /socket}
    route: {cluster: steady, timeout: 0s}
  - match: {prefix: /steady}
    route: {cluster: %s, timeout: 0s}
  - match: {prefix: /shaky}
    route: {cluster: shaky, timeout: 0s}
`

const clusterText = `
name: %[1]s
type: EDS
connect_timeout: 1.%[2]ds
lb_policy: LEAST_REQUEST
eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}, service_name: %[3]s}
circuit_breakers: {thresholds: [{max_connections: 100000, max_pending_requests: 100000, max_requests: 100000}]}
%[4]s
`

const http2Text = `
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}`

// change puts the next generation in force: every resource of every type is another one.
func (m *mesh) change(t *testing.T) {
	t.Helper()
	m.n++
	cert, key, err := m.ca.Issue("mixed.test")
	if err != nil {
		t.Fatal(err)
	}
	secret := map[string]any{"name": "server", "tls_certificate": map[string]any{
		"certificate_chain": map[string]string{"inline_string": string(cert)}, "private_key": map[string]string{"inline_string": string(key)}}}
	text, err := json.Marshal(secret)
	if err != nil {
		t.Fatal(err)
	}
	m.set(t, "server", &tlspb.Secret{}, string(text))
	for _, c := range []struct{ name, service, more string }{
		{"steady", "steady", ""}, {"steady-h2", "steady", http2Text}, {"shaky", "shaky", ""}, {"echo", "echo", ""},
	} {
		m.set(t, c.name, &clusterpb.Cluster{}, fmt.Sprintf(clusterText, c.name, 100+m.n%100, c.service, c.more))
	}
	m.endpoints(t, "steady", m.most(m.steady))
	m.endpoints(t, "shaky", m.shaky)
	m.endpoints(t, "echo", []*backend{m.echo})
	m.set(t, "http", &listenerpb.Listener{}, fmt.Sprintf(listenerText, "http", m.ports[0], m.n, "name: plain"))
	m.set(t, "tls", &listenerpb.Listener{}, fmt.Sprintf(listenerText, "tls", m.ports[1], m.n, secureText))
	m.set(t, "tcp", &listenerpb.Listener{}, fmt.Sprintf(bytesText, m.ports[2], m.n))
	m.set(t, "routes", &routepb.RouteConfiguration{}, fmt.Sprintf(routeText, m.n, []string{"steady", "steady-h2"}[m.n%2]))
}

// most are all but one of the backends, another one each time: it is taken away in order,
// and goes on answering.
func (m *mesh) most(all []*backend) []*backend {
	out := m.n % len(all)
	return append(append([]*backend{}, all[:out]...), all[out+1:]...)
}

func (m *mesh) endpoints(t *testing.T, name string, list []*backend) {
	t.Helper()
	var lines []string
	for _, b := range list {
		lines = append(lines, fmt.Sprintf(`{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}}}`, b.port))
	}
	m.set(t, name, &endpointpb.ClusterLoadAssignment{}, fmt.Sprintf(`{"cluster_name": %q, "endpoints": [{"lb_endpoints": [%s]}]}`, name, strings.Join(lines, ",")))
}

func (m *mesh) set(t *testing.T, name string, message proto.Message, text string) {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if err := protojson.Unmarshal(data, message); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	m.server.Set(name, message)
}
