package compile

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/test/material"
)

// TestPatches reads like the table of the manual: what each operation does to each kind
// of object. A case wants texts that are there afterwards, and texts behind "no " that are
// not.
func TestPatches(t *testing.T) {
	const sidecar, gateway = "sidecar default 10.1.1.1 app=web", "router istio-system 10.1.1.2 istio=ingressgateway"
	router := inHTTPFilter("envoy.filters.http.router")
	for _, c := range []struct {
		name, proxy, patch string
		want               []string
	}{
		{"EX-013 EX-003 LISTENER MERGE", sidecar, do("LISTENER", "context: SIDECAR_OUTBOUND, listener: {portNumber: 80}", "MERGE", "value: {per_connection_buffer_limit_bytes: 9}"),
			[]string{`"name":"0.0.0.0_80"`, `"per_connection_buffer_limit_bytes":9`}},
		{"EX-013 EX-003 LISTENER ADD", sidecar, do("LISTENER", "context: SIDECAR_OUTBOUND", "ADD", "value: {name: new, address: {socket_address: {address: 127.0.0.1, port_value: 9}}}"),
			[]string{"\nnew []"}},
		{"EX-013 EX-003 LISTENER REMOVE", sidecar, do("LISTENER", "context: SIDECAR_OUTBOUND, listener: {name: 0.0.0.0_80}", "REMOVE", ""),
			[]string{"virtualInbound", "no \n0.0.0.0_80"}},
		{"EX-006 a port of the listener that takes all is one of its chains'", sidecar, do("LISTENER", "context: SIDECAR_INBOUND, listener: {portNumber: 8080}", "REMOVE", ""),
			[]string{"virtualInbound"}},

		{"EX-013 EX-003 LISTENER_FILTER ADD", sidecar, do("LISTENER_FILTER", "context: SIDECAR_INBOUND", "ADD", inspect), []string{"[original_dst tls_inspector new]", "0.0.0.0_80 []"}},
		{"EX-013 EX-003 LISTENER_FILTER INSERT_FIRST", sidecar, do("LISTENER_FILTER", "context: SIDECAR_INBOUND", "INSERT_FIRST", inspect), []string{"[new original_dst tls_inspector]"}},
		{"EX-006 LISTENER_FILTER INSERT_BEFORE", sidecar, do("LISTENER_FILTER", "context: SIDECAR_INBOUND, listener: {listenerFilter: envoy.filters.listener.tls_inspector}", "INSERT_BEFORE", inspect), []string{"[original_dst new tls_inspector]"}},
		{"EX-006 LISTENER_FILTER INSERT_AFTER", sidecar, do("LISTENER_FILTER", "context: SIDECAR_INBOUND, listener: {listenerFilter: envoy.filters.listener.original_dst}", "INSERT_AFTER", inspect), []string{"[original_dst new tls_inspector]"}},
		{"EX-006 LISTENER_FILTER by its old name", sidecar, do("LISTENER_FILTER", "context: SIDECAR_INBOUND, listener: {listenerFilter: envoy.listener.tls_inspector}", "REMOVE", ""), []string{"[original_dst]"}},
		{"EX-013 EX-003 LISTENER_FILTER REPLACE", sidecar, do("LISTENER_FILTER", "context: SIDECAR_INBOUND, listener: {listenerFilter: envoy.filters.listener.tls_inspector}", "REPLACE", inspect), []string{"[original_dst new]"}},
		{"EX-013 EX-003 LISTENER_FILTER REMOVE of none", sidecar, do("LISTENER_FILTER", "context: SIDECAR_INBOUND", "REMOVE", ""), []string{"[original_dst tls_inspector]"}},

		{"EX-013 EX-003 FILTER_CHAIN MERGE", sidecar, do("FILTER_CHAIN", "context: SIDECAR_INBOUND, listener: {filterChain: {name: db}}", "MERGE", "value: {transport_socket_connect_timeout: 3s}"),
			[]string{`"transport_socket_connect_timeout":"3s","name":"db"`}},
		{"EX-013 FILTER_CHAIN MERGE into its transport socket", sidecar, do("FILTER_CHAIN", "context: SIDECAR_INBOUND, listener: {filterChain: {name: web}}", "MERGE",
			`value: {transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {alpn_protocols: [h2]}}}}`),
			[]string{`"common_tls_context":{"alpn_protocols":["h2"]},"require_client_certificate":true`}},
		{"EX-013 EX-003 FILTER_CHAIN ADD", sidecar, do("FILTER_CHAIN", "context: SIDECAR_OUTBOUND", "ADD", "value: {name: new, filter_chain_match: {destination_port: 1}}"), []string{"router)) new()"}},
		{"EX-013 EX-003 FILTER_CHAIN REMOVE", sidecar, do("FILTER_CHAIN", "context: SIDECAR_INBOUND, listener: {portNumber: 5432}", "REMOVE", ""), []string{"tls_inspector] web(", "no  db("}},
		{"EX-013 FILTER_CHAIN REMOVE of the last is the listener's end", sidecar, do("FILTER_CHAIN", "context: SIDECAR_OUTBOUND", "REMOVE", ""), []string{"no \n0.0.0.0_80"}},
		{"EX-007 FILTER_CHAIN REMOVE of the default", sidecar, do("FILTER_CHAIN", "context: SIDECAR_INBOUND, listener: {filterChain: {name: rest}}", "REMOVE", ""), []string{" db(", "no default("}},
		{"EX-007 by SNI", gateway, do("FILTER_CHAIN", "context: GATEWAY, listener: {filterChain: {sni: b.test}}", "REMOVE", ""), []string{" a(http", "no  b("}},
		{"EX-007 by transport protocol", sidecar, do("FILTER_CHAIN", "context: SIDECAR_INBOUND, listener: {filterChain: {transportProtocol: tls}}", "REMOVE", ""), []string{" db(", "no web("}},
		{"EX-007 by all application protocols", sidecar, do("FILTER_CHAIN", `context: SIDECAR_INBOUND, listener: {filterChain: {applicationProtocols: "istio,h2"}}`, "REMOVE", ""), []string{" db(", "no web("}},
		{"EX-007 by one too many", sidecar, do("FILTER_CHAIN", `context: SIDECAR_INBOUND, listener: {filterChain: {applicationProtocols: "istio,h3"}}`, "REMOVE", ""), []string{"web("}},
		{"EX-007 by destination port", sidecar, do("FILTER_CHAIN", "context: SIDECAR_INBOUND, listener: {filterChain: {destinationPort: 5432}}", "REMOVE", ""), []string{"web(", "no  db("}},

		{"EX-013 EX-003 NETWORK_FILTER ADD stands before the one that ends the chain", sidecar, do("NETWORK_FILTER", "context: SIDECAR_INBOUND, listener: {portNumber: 5432}", "ADD", echo), []string{"db(rbac new tcp_proxy)", "rest", "default(tcp_proxy)"}},
		{"EX-013 EX-003 NETWORK_FILTER INSERT_FIRST", sidecar, do("NETWORK_FILTER", "context: SIDECAR_INBOUND, listener: {portNumber: 5432}", "INSERT_FIRST", echo), []string{"db(new rbac tcp_proxy)"}},
		{"EX-008 NETWORK_FILTER INSERT_BEFORE", sidecar, do("NETWORK_FILTER", "context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.tcp_proxy}}}", "INSERT_BEFORE", echo), []string{"db(rbac new tcp_proxy)", "default(new tcp_proxy)", "no web(new"}},
		{"EX-008 NETWORK_FILTER INSERT_AFTER", sidecar, do("NETWORK_FILTER", "context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.rbac}}}", "INSERT_AFTER", echo), []string{"db(rbac new tcp_proxy)", "default(tcp_proxy)"}},
		{"EX-013 EX-003 NETWORK_FILTER REPLACE", sidecar, do("NETWORK_FILTER", "context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.rbac}}}", "REPLACE", echo), []string{"db(new tcp_proxy)"}},
		{"EX-008 NETWORK_FILTER by its old name", sidecar, do("NETWORK_FILTER", "context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.tcp_proxy}}}", "REMOVE", ""), []string{"db(rbac)"}},
		{"EX-013 NETWORK_FILTER MERGE: durations are replaced, lists grow", sidecar, do("NETWORK_FILTER", inHTTPFilter(""), "MERGE",
			`value: {typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stream_idle_timeout: 0.5s, use_remote_address: false, upgrade_configs: [{upgrade_type: CONNECT}]}}`),
			[]string{`"stream_idle_timeout":"0.500s"`, `"use_remote_address":false`, `"upgrade_configs":[{"upgrade_type":"websocket"},{"upgrade_type":"CONNECT"}]`}},
		{"EX-013 NETWORK_FILTER MERGE_AND_REPLACE_LIST", sidecar, do("NETWORK_FILTER", inHTTPFilter(""), "MERGE_AND_REPLACE_LIST",
			`value: {typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, upgrade_configs: [{upgrade_type: CONNECT}]}}`),
			[]string{`"upgrade_configs":[{"upgrade_type":"CONNECT"}]`, `"stream_idle_timeout":"5s"`}},
		{"EX-013 MERGE for every filter is for those of its type", sidecar, do("NETWORK_FILTER", "context: SIDECAR_INBOUND", "MERGE",
			`value: {typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, idle_timeout: 4s}}`),
			[]string{`"cluster":"db","idle_timeout":"4s"`, "web(http(jwt_authn"}},

		{"EX-013 EX-003 HTTP_FILTER ADD", sidecar, do("HTTP_FILTER", inHTTPFilter(""), "ADD", buffer), []string{"http(jwt_authn rbac cors istio.stats new router)"}},
		{"EX-015 AUTHN", sidecar, do("HTTP_FILTER", inHTTPFilter(""), "ADD", "filterClass: AUTHN, "+buffer), []string{"http(jwt_authn new rbac cors istio.stats router)"}},
		{"EX-015 AUTHZ", sidecar, do("HTTP_FILTER", inHTTPFilter(""), "ADD", "filterClass: AUTHZ, "+buffer), []string{"http(jwt_authn rbac new cors istio.stats router)"}},
		{"EX-015 STATS", sidecar, do("HTTP_FILTER", inHTTPFilter(""), "ADD", "filterClass: STATS, "+buffer), []string{"http(jwt_authn rbac cors new istio.stats router)"}},
		{"EX-015 where there are none of the class", sidecar, do("HTTP_FILTER", "context: SIDECAR_OUTBOUND", "ADD", "filterClass: AUTHZ, "+buffer), []string{"(http(cors new router))"}},
		{"EX-013 EX-003 HTTP_FILTER INSERT_FIRST", sidecar, do("HTTP_FILTER", inHTTPFilter(""), "INSERT_FIRST", buffer), []string{"http(new jwt_authn"}},
		{"EX-008 HTTP_FILTER INSERT_BEFORE the router", sidecar, do("HTTP_FILTER", router, "INSERT_BEFORE", buffer), []string{"http(jwt_authn rbac cors istio.stats new router)", "(http(cors router))"}},
		{"EX-008 HTTP_FILTER INSERT_BEFORE by old names", sidecar, do("HTTP_FILTER", strings.NewReplacer("envoy.filters.network.", "envoy.", "envoy.filters.http.", "envoy.").Replace(router), "INSERT_BEFORE", buffer), []string{"istio.stats new router)"}},
		{"EX-008 HTTP_FILTER INSERT_BEFORE nothing in particular", sidecar, do("HTTP_FILTER", inHTTPFilter(""), "INSERT_BEFORE", buffer), []string{"http(new jwt_authn"}},
		{"EX-008 HTTP_FILTER INSERT_BEFORE what is not there", sidecar, do("HTTP_FILTER", inHTTPFilter("other"), "INSERT_BEFORE", buffer), []string{"no new"}},
		{"EX-008 HTTP_FILTER INSERT_AFTER", sidecar, do("HTTP_FILTER", inHTTPFilter("envoy.filters.http.cors"), "INSERT_AFTER", buffer), []string{"cors new istio.stats router)"}},
		{"EX-013 EX-003 HTTP_FILTER REPLACE", sidecar, do("HTTP_FILTER", inHTTPFilter("envoy.filters.http.cors"), "REPLACE", buffer), []string{"http(jwt_authn rbac new istio.stats router)"}},
		{"EX-013 EX-003 HTTP_FILTER REMOVE", sidecar, do("HTTP_FILTER", inHTTPFilter("envoy.filters.http.cors"), "REMOVE", ""), []string{"http(jwt_authn rbac istio.stats router)", "(http(cors router))"}},
		{"EX-013 EX-003 HTTP_FILTER MERGE", sidecar, do("HTTP_FILTER", router, "MERGE", `value: {typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}}`),
			[]string{`"suppress_envoy_headers":true`}},
		{"EX-014 keys in lower camel case, and a TypedStruct", sidecar, do("HTTP_FILTER", inHTTPFilter(""), "INSERT_FIRST",
			`value: {name: new, typedConfig: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, typeUrl: type.googleapis.com/some.Filter, value: {a: 1}}}`),
			[]string{"http(new jwt_authn", `"type_url":"type.googleapis.com/some.Filter","value":{"a":1}`}},

		{"EX-009 EX-003 ROUTE_CONFIGURATION MERGE", sidecar, do("ROUTE_CONFIGURATION", `context: SIDECAR_OUTBOUND, routeConfiguration: {name: "80"}`, "MERGE", "value: {request_headers_to_remove: [x-a]}"), []string{`"request_headers_to_remove":["x-a"]`}},
		{"EX-009 by port", sidecar, do("ROUTE_CONFIGURATION", "context: SIDECAR_OUTBOUND, routeConfiguration: {portNumber: 81}", "MERGE", "value: {request_headers_to_remove: [x-a]}"), []string{"no x-a"}},
		{"EX-009 the table of an inbound port", sidecar, do("ROUTE_CONFIGURATION", "context: SIDECAR_INBOUND, routeConfiguration: {portNumber: 8080}", "MERGE", "value: {request_headers_to_remove: [x-a]}"), []string{`"request_headers_to_remove":["x-a"]`}},
		{"EX-009 by gateway and port name", gateway, do("ROUTE_CONFIGURATION", "context: GATEWAY, routeConfiguration: {portNumber: 443, portName: https, gateway: istio-system/gw}", "MERGE", "value: {request_headers_to_remove: [x-a]}"),
			[]string{`{"name":"https.443.https.gw.istio-system","virtual_hosts":[{"name":"a.test:443","domains":["a.test"],"routes":[{"name":"secure","match":{"prefix":"/"},"route":{"cluster":"a"}}]}],"request_headers_to_remove":["x-a"]}`}},
		{"EX-009 another gateway's", gateway, do("ROUTE_CONFIGURATION", "context: GATEWAY, routeConfiguration: {gateway: default/gw}", "MERGE", "value: {request_headers_to_remove: [x-a]}"), []string{"no x-a"}},
		{"EX-010 EX-003 VIRTUAL_HOST MERGE", sidecar, do("VIRTUAL_HOST", "context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {name: allow_any}}", "MERGE", "value: {include_request_attempt_count: true}"),
			[]string{`"cluster":"PassthroughCluster"}}],"include_request_attempt_count":true`}},
		{"EX-010 by domain", sidecar, do("VIRTUAL_HOST", "context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {domainName: web}}", "REMOVE", ""), []string{"host allow_any: rest", "no host web.default"}},
		{"EX-013 EX-003 VIRTUAL_HOST ADD", sidecar, do("VIRTUAL_HOST", "context: SIDECAR_OUTBOUND, routeConfiguration: {portNumber: 80}", "ADD", "value: {name: new, domains: [new.test]}"), []string{"host allow_any: rest\nhost new: "}},
		{"EX-013 EX-003 VIRTUAL_HOST REPLACE", sidecar, do("VIRTUAL_HOST", "context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {name: allow_any}}", "REPLACE", `value: {name: new, domains: ["*"]}`), []string{"three\nhost new: "}},
		{"EX-013 EX-003 HTTP_ROUTE MERGE", sidecar, do("HTTP_ROUTE", "context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {route: {name: one}}}", "MERGE", "value: {route: {timeout: 9s}}"), []string{`"route":{"cluster":"one","timeout":"9s"}`}},
		{"EX-010 by action", sidecar, do("HTTP_ROUTE", "context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {route: {action: REDIRECT}}}", "REMOVE", ""), []string{": one three\n"}},
		{"EX-013 EX-003 HTTP_ROUTE INSERT_FIRST", sidecar, do("HTTP_ROUTE", "context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {name: allow_any}}", "INSERT_FIRST", answer), []string{"allow_any: new rest", ": one two three"}},
		{"EX-013 EX-003 HTTP_ROUTE INSERT_BEFORE", sidecar, do("HTTP_ROUTE", "context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {route: {name: three}}}", "INSERT_BEFORE", answer), []string{": one two new three", "allow_any: rest"}},
		{"EX-013 EX-003 HTTP_ROUTE INSERT_AFTER", sidecar, do("HTTP_ROUTE", "context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {route: {action: ROUTE}}}", "INSERT_AFTER", answer), []string{": one new two three", "allow_any: rest new"}},
		{"EX-013 EX-003 HTTP_ROUTE INSERT_FIRST where a route is", sidecar, do("HTTP_ROUTE", "context: SIDECAR_OUTBOUND, routeConfiguration: {vhost: {route: {name: three}}}", "INSERT_FIRST", answer), []string{": new one two three", "allow_any: rest\n"}},

		{"EX-011 EX-003 CLUSTER MERGE by service and port: lists grow", sidecar, do("CLUSTER", "context: SIDECAR_OUTBOUND, cluster: {service: web.default.svc.cluster.local, portNumber: 80}", "MERGE", "value: {connect_timeout: 0.25s, circuit_breakers: {thresholds: [{max_connections: 2}]}}"),
			[]string{`"connect_timeout":"0.250s"`, `"thresholds":[{"max_connections":1},{"max_connections":2}]`, `{"name":"outbound|80|v1|web.default.svc.cluster.local","type":"EDS","connect_timeout":"0.250s"`, "no EDS\",\"connect_timeout\":\"10s"}},
		{"EX-011 by subset", sidecar, do("CLUSTER", "context: SIDECAR_OUTBOUND, cluster: {subset: v1}", "REMOVE", ""), []string{"clusters outbound|80||web.default.svc.cluster.local inbound|8080|| mutual\n"}},
		{"EX-011 by name", sidecar, do("CLUSTER", "context: SIDECAR_OUTBOUND, cluster: {name: mutual}", "REMOVE", ""), []string{"v1|web.default.svc.cluster.local inbound|8080||\n"}},
		{"EX-011 an inbound one by its service", sidecar, do("CLUSTER", "context: SIDECAR_INBOUND, cluster: {service: web.default.svc.cluster.local}", "REMOVE", ""), []string{"web.default.svc.cluster.local mutual\n"}},
		{"EX-011 that of a gateway which forwards by SNI", gateway, do("CLUSTER", "context: GATEWAY, cluster: {service: web.default.svc.cluster.local, portNumber: 80}", "REMOVE", ""), []string{"clusters \n"}},
		{"EX-013 EX-003 CLUSTER ADD", sidecar, do("CLUSTER", "", "ADD", "value: {name: new, type: STATIC}"), []string{" mutual new\n"}},
		{"EX-013 a transport socket goes to that of its name", sidecar, do("CLUSTER", "cluster: {name: mutual}", "MERGE", `value: {connect_timeout: 1s, transport_socket: {name: envoy.transport_sockets.tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, allow_renegotiation: true}}}`),
			[]string{`"sni":"web","allow_renegotiation":true`, `"connect_timeout":"1s"`, `no "transport_socket":{"name":"envoy.transport_sockets.tls"},"`}},

		{"EX-004 context GATEWAY is not for sidecars", sidecar, do("CLUSTER", "context: GATEWAY", "REMOVE", ""), []string{"mutual\n"}},
		{"EX-004 context ANY is for both sides", sidecar, do("NETWORK_FILTER", "context: ANY", "INSERT_FIRST", echo), []string{"db(new rbac", "(new http(cors"}},
		{"EX-004 ANY adds once", sidecar, do("LISTENER", "", "ADD", "value: {name: new}"), []string{"\nnew []", "no \nnew []\n{\"name\":\"new\"}\nnew []"}},
		{"EX-012 a match of waypoints is for no other", sidecar, do("HTTP_FILTER", "context: WAYPOINT, waypoint: {filter: {name: envoy.filters.network.http_connection_manager}}", "INSERT_FIRST", buffer), []string{"no new"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, flaws := patched(t, parseProxy(t, c.proxy), envoyFilter(c.patch))
			if len(flaws) > 0 {
				t.Errorf("flaws: %q", flaws)
			}
			expect(t, got.String(), c.want)
		})
	}
}

func expect(t *testing.T, got string, want []string) {
	t.Helper()
	for _, w := range want {
		absent, no := strings.CutPrefix(w, "no ")
		if no == strings.Contains(got, absent) {
			t.Errorf("want %q in\n%s", w, got)
		}
	}
}

// TestPatchFlaws says what becomes of patches that cannot be used: they are left out where
// they do not fit, and nothing else is.
func TestPatchFlaws(t *testing.T) {
	const untouched = "http(jwt_authn rbac cors istio.stats router)"
	other := do("HTTP_FILTER", inHTTPFilter("envoy.filters.http.cors"), "REMOVE", "")
	for _, c := range []struct {
		name, patch string
		flaw        string
		want        []string
	}{
		{"EX-014 a type that nobody knows", do("HTTP_FILTER", inHTTPFilter(""), "INSERT_FIRST", `value: {name: new, typed_config: {"@type": type.googleapis.com/envoy.Nothing}}`),
			"patch.value: ", []string{"no new"}},
		{"EX-014 a value of another shape", do("HTTP_FILTER", inHTTPFilter(""), "INSERT_FIRST", `value: {name: [new]}`), "patch.value: ", []string{"no new"}},
		{"EX-014 a field that Envoy does not have is left out, the rest is not", do("HTTP_FILTER", inHTTPFilter(""), "INSERT_FIRST", strings.Replace(buffer, "max_request_bytes: 7", "max_request_bytes: 7, colour: red", 1)),
			`patch.value: unknown field "colour": it is left out`, []string{"http(new ", `"max_request_bytes":7`}},
		{"what Envoy would refuse", do("HTTP_FILTER", inHTTPFilter(""), "INSERT_FIRST", strings.Replace(buffer, "max_request_bytes: 7", "max_request_bytes: 0", 1)),
			"MaxRequestBytes: value must be greater than 0", []string{"no new"}},
		{"what Envoy would refuse after a merge", do("CLUSTER", "cluster: {name: mutual}", "MERGE", "value: {connect_timeout: -1s}"), "connect_timeout: must not be negative", []string{`no "-1s"`}},
		{"an expression that is none", do("HTTP_ROUTE", "context: SIDECAR_OUTBOUND", "INSERT_FIRST", `value: {name: new, match: {safe_regex: {regex: "("}}, direct_response: {status: 204}}`), "missing closing )", []string{"no new"}},
		{"a domain that another virtual host has", do("VIRTUAL_HOST", "context: SIDECAR_OUTBOUND", "ADD", "value: {name: new, domains: [web]}"), "80: domain web would be in two virtual hosts", []string{"no new"}},
		{"a filter behind the router", do("HTTP_FILTER", inHTTPFilter("envoy.filters.http.router"), "INSERT_AFTER", buffer), "virtualInbound: nothing can stand behind", []string{"no new"}},
		{"a network filter behind the proxy", do("NETWORK_FILTER", "context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.tcp_proxy}}}", "INSERT_AFTER", echo), "virtualInbound: nothing can stand behind", []string{"no new"}},
		{"settings of another filter", do("HTTP_FILTER", inHTTPFilter("envoy.filters.http.router"), "MERGE", buffer), "a envoy.extensions.filters.http.buffer.v3.Buffer cannot be merged", []string{"no Buffer"}},
		{"EX-013 ADD of a cluster that is there", do("CLUSTER", "", "ADD", "value: {name: mutual, type: STATIC}"), "there is a cluster mutual already", []string{" mutual\n"}},
		{"EX-013 ADD of a listener that is there", do("LISTENER", "", "ADD", "value: {name: 0.0.0.0_80}"), "there is a listener 0.0.0.0_80 already", nil},
		{"EX-013 ADD is nothing for a table of routes", do("ROUTE_CONFIGURATION", "", "ADD", "value: {name: new}"), "patch.operation: ADD does nothing to ROUTE_CONFIGURATION", []string{"no new"}},
		{"EX-013 REPLACE is nothing for clusters", do("CLUSTER", "", "REPLACE", "value: {name: new}"), "patch.operation: REPLACE does nothing to CLUSTER", []string{"no new"}},
		{"a filter without a type", do("HTTP_FILTER", inHTTPFilter(""), "INSERT_FIRST", "value: {name: new}"), "patch.value.typed_config: a filter is known by its type", []string{"no new"}},
		{"a chain that matches what another does", do("FILTER_CHAIN", "context: SIDECAR_OUTBOUND", "ADD", "value: {name: new}"), `0.0.0.0_80: patch.value.filter_chain_match: the chain "" matches the same`, []string{"no new"}},
		{"EX-003 BOOTSTRAP", do("BOOTSTRAP", "", "MERGE", "value: {stats_flush_interval: 1s}"), "applyTo: BOOTSTRAP has no effect", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := envoyFilter(c.patch) + "  - {" + other + "}\n"
			got, flaws := patched(t, parseProxy(t, "sidecar default 10.1.1.1 app=web"), text)
			if len(flaws) != 1 || !strings.Contains(flaws[0], c.flaw) || !strings.HasPrefix(flaws[0], "f configPatches[0]: ") {
				t.Errorf("flaws %q, want %q", flaws, c.flaw)
			}
			expect(t, got.String(), c.want)
			if strings.Contains(got.String(), untouched) {
				t.Error("the patch after it has no effect")
			}
		})
	}
}

// TestPatchOrder says which EnvoyFilters select a proxy, and in which order they apply:
// each puts its name first.
func TestPatchOrder(t *testing.T) {
	object := func(namespace, name, spec string) string {
		return "---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {namespace: " + namespace + ", name: " + name + spec
	}
	first := func(name, more string) string {
		return "}\nspec:\n" + more + "  configPatches: [{" + do("HTTP_FILTER", inHTTPFilter(""), "INSERT_FIRST", strings.Replace(buffer, "name: new", "name: "+name, 1)) + "}]\n"
	}
	matching := func(name, proxy string) string {
		return strings.Replace(first(name, ""), "context: SIDECAR_INBOUND", "context: SIDECAR_INBOUND, proxy: {"+proxy+"}", 1)
	}
	for _, c := range []struct{ name, objects, want string }{
		{"EX-001 the root namespace is first", object("default", "a", first("own", "")) + object("istio-system", "b", first("root", "")), "own root"},
		{"EX-001 other namespaces are not for the proxy", object("other", "a", first("x", "")), ""},
		{"EX-001 by labels", object("default", "a", first("web", "  workloadSelector: {labels: {app: web}}\n")) + object("default", "b", first("db", "  workloadSelector: {labels: {app: db}}\n")), "web"},
		{"EX-016 by priority", object("default", "a", first("last", "  priority: 5\n")) + object("default", "b", first("early", "  priority: -5\n")) + object("default", "c", first("zero", "")), "last zero early"},
		{"EX-016 then by age", object("default", "a", `, creationTimestamp: "2026-02-01T00:00:00Z"`+first("young", "")) + object("default", "b", `, creationTimestamp: "2026-01-01T00:00:00Z"`+first("old", "")), "young old"},
		{"EX-016 then by name", object("default", "b", first("b", "")) + object("default", "a", first("a", "")), "b a"},
		{"EX-002 a Gateway is no sidecar", object("default", "a", first("x", "  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: gw}]\n")), ""},
		{"EX-005 by version", object("default", "a", matching("this", `proxyVersion: '^1\.31.*'`)) + object("default", "b", matching("that", `proxyVersion: '^1\.30.*'`)), "this"},
		{"EX-005 by metadata", object("default", "a", matching("this", `metadata: {CLUSTER_ID: east, DNS_CAPTURE: "true"}`)) + object("default", "b", matching("that", `metadata: {CLUSTER_ID: west}`)), "this"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := parseProxy(t, "sidecar default 10.1.1.1 app=web")
			p.IstioVersion, p.Metadata = "1.31.2", map[string]any{"CLUSTER_ID": "east", "DNS_CAPTURE": true}
			got, flaws := patched(t, p, c.objects)
			if len(flaws) > 0 {
				t.Errorf("flaws: %q", flaws)
			}
			_, line, _ := strings.Cut(got.String(), "http(")
			line, _, _ = strings.Cut(line, "jwt_authn")
			if got := strings.Fields(line); !slices.Equal(got, strings.Fields(c.want)) {
				t.Errorf("first are %q, want %q", got, c.want)
			}
		})
	}
	t.Run("EX-002 a gateway by reference", func(t *testing.T) {
		p := parseProxy(t, "router default 10.1.1.1 gateway.networking.k8s.io/gateway-name=gw")
		remove := "}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: %}]\n  configPatches: [{" + do("CLUSTER", "", "REMOVE", "") + "}]\n"
		other, _ := patched(t, p, object("default", "a", strings.Replace(remove, "%", "other", 1)))
		mine, _ := patched(t, p, object("default", "a", strings.Replace(remove, "%", "gw", 1)))
		if len(other.clusters) == 0 || len(mine.clusters) > 0 {
			t.Errorf("clusters %v with a reference to another gateway, %v with one to this", other.clusters, mine.clusters)
		}
	})
}

// TestPatchSamples reads every patch of the samples that users know.
func TestPatchSamples(t *testing.T) {
	dir := material.Path(t)
	for _, file := range []string{"samples/ratelimit/local-rate-limit-service.yaml", "samples/bookinfo/policy/productpage_envoy_ratelimit.yaml"} {
		t.Run("EX-014 "+file, func(t *testing.T) {
			configs, problems := config.DecodeYAML(file, mustRead(t, filepath.Join(dir, "data", "samples-extra", file)))
			if config.HasErrors(problems) {
				t.Fatal(problems)
			}
			list := AllPatches(mesh.Build(config.NewSet(1, configs), mesh.Options{}))
			if len(list) == 0 {
				t.Error("no patches")
			}
			for _, f := range envoy.NewPatches(list, false).Flaws() {
				t.Errorf("%s %s: %v", f.Origin.Name, f.Origin.Field, f.Err)
			}
		})
	}
}

// TestPatchesOfLike says that proxies with different patches are not taken for alike.
func TestPatchesOfLike(t *testing.T) {
	objects := strings.Replace(envoyFilter(do("CLUSTER", "proxy: {metadata: {%: web-1}}", "REMOVE", "")), "namespace: istio-system", "namespace: default", 1)
	for _, c := range []struct {
		name, key string
		different bool
	}{{"EX-005 by name", "NAME", true}, {"EX-005 by what both have", "CLUSTER_ID", false}} {
		t.Run(c.name, func(t *testing.T) {
			configs, problems := config.DecodeYAML("filter.yaml", []byte(strings.Replace(objects, "%", c.key, 1)))
			if config.HasErrors(problems) {
				t.Fatal(problems)
			}
			s := mesh.Build(config.NewSet(1, configs), mesh.Options{})
			var keys []Likeness
			for _, name := range []string{"web-1", "web-2"} {
				p := parseProxy(t, "sidecar default 10.1.1.1 app=web")
				p.Metadata = map[string]any{"NAME": name, "CLUSTER_ID": "east"}
				like, key := Like(s, p)
				keys = append(keys, key)
				if got, want := len(Patches(s, like)), len(Patches(s, p)); got != want {
					t.Errorf("%s: %d patches for its like, %d for it", name, got, want)
				}
			}
			if different := keys[0] != keys[1]; different != c.different {
				t.Errorf("different: %v, want %v", different, c.different)
			}
		})
	}
}
