package agent

import (
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"strconv"

	"github.com/lateen-mesh/lateen/wellknown"
)

// istioVersion is the release whose behaviour a node claims.
const istioVersion = "1.31.0"

// A Bootstrap is what a proxy starts from: who it is, where its control plane and its
// own pages are.
type Bootstrap struct {
	Type           string // "router" or "sidecar"
	Name           string // of the pod
	Namespace      string
	Address        string // of the workload
	Workload       string // Deployment or the like
	ServiceAccount string
	Labels         map[string]string
	Annotations    map[string]string
	Domain         string // DNS suffix of services, "" is cluster.local

	XDSSocket              string // path of the control plane's Unix socket
	Bind                   string // address of the health and metrics pages, "" is loopback
	Admin, Health, Metrics int    // ports; the admin API is on loopback in any case
	DNS                    int    // port of a resolver on loopback; 0 is the system's
	Publish                string // where ports of listeners are on this machine: "80=8080,…"
	Offset                 int    // added to ports below 1024 that Publish does not name
}

type object = map[string]any

// JSON is an Envoy v3 bootstrap in the shape of the original's; the health page is the
// admin API's.
func (c Bootstrap) JSON() ([]byte, error) {
	b := object{
		"node":              c.node(),
		"admin":             object{"profile_path": "/dev/null", "address": loopback(c.Admin)},
		"dynamic_resources": dynamicResources(),
		"layered_runtime": object{"layers": []any{
			object{"name": "global config", "static_layer": object{
				"envoy.reloadable_features.http_reject_path_with_fragment": false,
				"re2.max_program_size.error_level":                         "32768",
			}},
			object{"name": "admin", "admin_layer": object{}},
		}},
		"stats_config": object{"use_all_default_tags": false, "stats_tags": statsTags()},
		"static_resources": object{
			"clusters": []any{
				staticCluster("prometheus_stats", "0.250s", loopback(c.Admin)),
				staticCluster("agent", "0.250s", loopback(c.Admin)),
				xdsCluster(c.XDSSocket),
			},
			"listeners": []any{
				pageListener("0.0.0.0_15090", c.bind(c.Metrics), "stats", "/stats/prometheus", object{"cluster": "prometheus_stats"}),
				pageListener("0.0.0.0_15021", c.bind(c.Health), "agent", "/healthz/ready", object{"cluster": "agent", "prefix_rewrite": "/ready"}),
			},
		},
	}
	if c.DNS != 0 {
		b["typed_dns_resolver_config"] = object{"name": "envoy.network.dns_resolver.cares", "typed_config": object{
			"@type":     "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
			"resolvers": []any{loopback(c.DNS)},
		}}
	}
	return json.MarshalIndent(b, "", "  ")
}

// NodeJSON is the node of the bootstrap alone.
func (c Bootstrap) NodeJSON() ([]byte, error) { return json.Marshal(c.node()) }

func (c Bootstrap) node() object {
	metadata := object{
		"NAME": c.Name, "NAMESPACE": c.Namespace, "LABELS": c.Labels, "CLUSTER_ID": "Kubernetes", "MESH_ID": "cluster.local",
		"WORKLOAD_NAME": c.Workload, "SERVICE_ACCOUNT": c.ServiceAccount, "INSTANCE_IPS": c.Address,
		"ISTIO_VERSION": istioVersion, "ENVOY_STATUS_PORT": c.Health, "ENVOY_PROMETHEUS_PORT": c.Metrics,
		"PROXY_CONFIG": object{"serviceCluster": c.cluster(), "statusPort": c.Health, "proxyAdminPort": c.Admin},
	}
	if len(c.Annotations) > 0 {
		metadata["ANNOTATIONS"] = c.Annotations
	}
	if c.Publish != "" {
		metadata[wellknown.PublishKey] = c.Publish
	}
	if c.Offset != 0 {
		metadata[wellknown.PublishOffsetKey] = strconv.Itoa(c.Offset)
	}
	if c.DNS != 0 {
		metadata[wellknown.ResolversKey] = net.JoinHostPort("127.0.0.1", strconv.Itoa(c.DNS))
	}
	domain := c.Domain
	if domain == "" {
		domain = "cluster.local"
	}
	return object{
		"id":       fmt.Sprintf("%s~%s~%s.%s~%s.svc.%s", c.Type, c.Address, c.Name, c.Namespace, c.Namespace, domain),
		"cluster":  c.cluster(),
		"locality": object{}, "metadata": metadata,
	}
}

// cluster is the proxy's own name in stats and spans: WORKLOAD.NAMESPACE.
func (c Bootstrap) cluster() string { return c.Workload + "." + c.Namespace }

func (c Bootstrap) bind(port int) object {
	if c.Bind == "" {
		return loopback(port)
	}
	return socketAddress(c.Bind, port)
}

func dynamicResources() object {
	source := object{"ads": object{}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	return object{
		"lds_config": source, "cds_config": source,
		"ads_config": object{
			"api_type": "DELTA_GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
			"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": "xds-grpc"}}},
		},
	}
}

func loopback(port int) object { return socketAddress("127.0.0.1", port) }

func socketAddress(host string, port int) object {
	return object{"socket_address": object{"protocol": "TCP", "address": host, "port_value": port}}
}

func staticCluster(name, timeout string, address object) object {
	return object{
		"name": name, "alt_stat_name": name + ";", "type": "STATIC", "connect_timeout": timeout, "lb_policy": "ROUND_ROBIN",
		"load_assignment": object{"cluster_name": name, "endpoints": []any{object{
			"lb_endpoints": []any{object{"endpoint": object{"address": address}}}}}},
	}
}

func xdsCluster(socket string) object {
	c := staticCluster("xds-grpc", "1s", object{"pipe": object{"path": socket}})
	c["typed_extension_protocol_options"] = object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
		"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": object{"http2_protocol_options": object{}},
	}}
	limits := object{"max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
	c["circuit_breakers"] = object{"thresholds": []any{merged(limits, "priority", "DEFAULT"), merged(limits, "priority", "HIGH")}}
	return c
}

func merged(o object, key string, value any) object {
	out := object{key: value}
	maps.Copy(out, o)
	return out
}

// pageListener serves one path of the admin API.
func pageListener(name string, address object, statPrefix, prefix string, route object) object {
	return object{
		"name": name, "address": address, "ignore_global_conn_limit": true, "bypass_overload_manager": true,
		"filter_chains": []any{object{"filters": []any{object{
			"name": "envoy.filters.network.http_connection_manager",
			"typed_config": object{
				"@type":       "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
				"codec_type":  "AUTO",
				"stat_prefix": statPrefix,
				"route_config": object{"virtual_hosts": []any{object{"name": "backend", "domains": []any{"*"},
					"routes": []any{object{"match": object{"prefix": prefix}, "route": route}}}}},
				"http_filters": []any{object{"name": "envoy.filters.http.router",
					"typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}},
			},
		}}}},
	}
}

// statsTags take the labels out of stat names, as the original's bootstrap does.
func statsTags() []any {
	var tags []any
	for _, t := range [][2]string{
		{"cluster_name", `^cluster(\.(.+);)`},
		{"http_conn_manager_prefix", `^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)`},
		{"tcp_prefix", `^tcp\.((.*?)\.)\w+?$`},
		{"response_code", `_rq(_(\d{3}))$`},
		{"response_code_class", `_rq(_(\dxx))$`},
		{"listener_address", `^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)`},
	} {
		tags = append(tags, object{"tag_name": t[0], "regex": t[1]})
	}
	return tags
}
