// Package bootstrap writes the file that a proxy starts from: who it is, where its control
// plane, its certificates and its own pages are, which statistics it keeps, where spans and
// metrics go.
//
//	Input ─► JSON: an Envoy v3 bootstrap
//
// It is pure: what the environment, annotations and files of a pod say is read by package
// agent. The result means, field by field, what the original's bootstrap means, so that a
// stock Envoy runs from it as well as our proxy.
package bootstrap

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	meshpb "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/wellknown"
)

// Version is the release of the original whose behaviour a node claims.
const Version = "1.31.0"

// An Input is all that a bootstrap depends on.
type Input struct {
	Type      string // "router" or "sidecar"
	Name      string // of the pod
	Namespace string
	Addresses []string // of the workload; the first is in the node's id
	Domain    string   // DNS suffix of services, "" is cluster.local
	ID        string   // of the node; "" is made of the above

	// Config is the proxy's configuration; nil is the empty one.
	Config *meshpb.ProxyConfig
	// Labels and Annotations are the pod's. Static ones were given as ISTIO_METAJSON_…: they
	// stand in the metadata under their own names too.
	Labels, Annotations             map[string]string
	StaticLabels, StaticAnnotations map[string]string
	// Metadata is further metadata of the node, which wins over what is made here.
	Metadata map[string]any
	PilotSAN []string // names that the control plane's certificate may have

	XDSSocket string // path of the Unix socket of the discovery service
	SDSSocket string // path of the Unix socket of the certificates; "" is none
	// Certificates is the directory with the workload's certificate in files, for programs that
	// read no SDS; "" is none.
	Certificates string
	Whole        bool   // ask for whole states of resources, not for their changes
	Agent        int    // port of the agent's pages; 0: there is none, and health is the admin API's
	Bind         string // address of the health and metrics pages, "" is loopback
	// Ports of the proxy's pages. The admin API is on loopback in any case. 0 for the last two
	// is none.
	Admin, Health, Metrics, SecureMetrics, SecureMergedMetrics int

	OutlierLog string // path of the log of ejected hosts; "" is none
	FIPS       bool   // the compliance policy asks for FIPS 140-2
	// Mark is set on the packets of upstream connections (SO_MARK), where the redirection of the
	// pod has nothing else to know the proxy by. 0 is none.
	Mark int

	DNS     int    // port of a resolver on loopback; 0 is the system's
	Publish string // where ports of listeners are on this machine: "80=8080,…"
	Offset  int    // added to ports below 1024 that Publish does not name
}

type object = map[string]any

// JSON is the bootstrap.
func (in Input) JSON() ([]byte, error) {
	node, err := in.node()
	if err != nil {
		return nil, err
	}
	clusters, err := in.clusters()
	if err != nil {
		return nil, err
	}
	stats, err := in.statsConfig()
	if err != nil {
		return nil, err
	}
	b := object{
		"application_log_config": object{"log_format": object{"text_format": "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t"}},
		"node":                   node,
		"admin":                  in.admin(),
		"dynamic_resources":      in.dynamicResources(),
		"layered_runtime":        in.runtime(),
		"bootstrap_extensions":   in.extensions(),
		"stats_config":           stats,
		"static_resources":       object{"clusters": clusters, "listeners": in.listeners()},
		"overload_manager":       in.overload(),
		"deferred_stat_options":  object{"enable_deferred_creation_stats": true},
	}
	in.flush(b)
	if m, err := in.clusterManager(); err != nil {
		return nil, err
	} else if len(m) > 0 {
		b["cluster_manager"] = m
	}
	if sinks, err := in.sinks(); err != nil {
		return nil, err
	} else if len(sinks) > 0 {
		b["stats_sinks"] = sinks
	}
	if t := in.tracer(); t != nil {
		b["tracing"] = object{"http": t}
	}
	if in.DNS != 0 {
		b["typed_dns_resolver_config"] = object{"name": "envoy.network.dns_resolver.cares", "typed_config": object{
			"@type":     "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
			"resolvers": []any{in.loopback(in.DNS)},
		}}
	}
	return json.MarshalIndent(b, "", "  ")
}

func (in Input) admin() object {
	return object{
		"profile_path": "/var/lib/istio/data/envoy.prof", "address": in.loopback(in.Admin),
		"access_log": []any{object{"name": "envoy.access_loggers.file", "typed_config": object{
			"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": "/dev/null"}}},
	}
}

func (in Input) dynamicResources() object {
	form := "DELTA_GRPC"
	if in.Whole {
		form = "GRPC"
	}
	source := object{"ads": object{}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}
	return object{
		"lds_config": source, "cds_config": source,
		"ads_config": object{
			"api_type": form, "transport_api_version": "V3", "set_node_on_first_message_only": true,
			"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": "xds-grpc"}}},
		},
	}
}

// runtime has the layers of runtime settings: a static one and the admin API's.
func (in Input) runtime() object {
	static := object{
		"envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": true,
		"envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update":                                       false,
		"envoy.reloadable_features.fixed_heap_use_allocated":                                                   true,
		"envoy.reloadable_features.http_reject_path_with_fragment":                                             false,
		"re2.max_program_size.error_level":                                                                     "32768",
	}
	if in.FIPS {
		static["envoy.reloadable_features.google_grpc_disable_tls_13"] = true
	}
	for name, value := range in.Config.GetRuntimeValues() {
		switch value {
		case "true", "false":
			static[name] = value == "true"
		default:
			static[name] = value
		}
	}
	return object{"layers": []any{
		object{"name": "global config", "static_layer": static},
		object{"name": "admin", "admin_layer": object{}},
	}}
}

func (in Input) extensions() []any {
	typed := func(name, typeURL string, value object) object {
		return object{"name": name, "typed_config": object{"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": typeURL, "value": value}}
	}
	all := []any{typed("envoy.bootstrap.internal_listener",
		"type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener", object{"buffer_size_kb": 64})}
	if in.discoversWorkloads() {
		all = append([]any{typed("metadata_discovery", "type.googleapis.com/istio.workload.BootstrapExtension",
			object{"config_source": object{"ads": object{}}})}, all...)
	}
	return all
}

// discoversWorkloads reports whether the proxy asks for workloads by address, as proxies that
// speak HBONE do.
func (in Input) discoversWorkloads() bool { return in.Metadata["ENABLE_HBONE"] == "true" }

// overload bounds the connections of clients, by the first of these that is said: the
// settings of connections, metadata, a runtime value.
func (in Input) overload() object {
	limit := int64(1<<31 - 1)
	if n, ok := number(in.Config.GetRuntimeValues()["overload.global_downstream_max_connections"]); ok {
		limit = n
	}
	if text, ok := in.Metadata["GLOBAL_DOWNSTREAM_MAX_CONNECTIONS"].(string); ok {
		if n, ok := number(text); ok {
			limit = n
		}
	}
	if n := in.Config.GetConnectionSettings().GetGlobalDownstreamConnectionLimit(); n != nil {
		limit = int64(n.GetValue())
	}
	return object{"resource_monitors": []any{object{
		"name": "envoy.resource_monitors.global_downstream_max_connections",
		"typed_config": object{
			"@type":                             "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
			"max_active_downstream_connections": limit,
		}}}}
}

func number(text string) (int64, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil && n > 0
}

func (in Input) clusterManager() (object, error) {
	m := object{}
	if in.OutlierLog != "" {
		m["outlier_detection"] = object{"event_log_path": in.OutlierLog}
		m["enable_deferred_cluster_creation"] = true
	}
	if text, ok := in.Metadata["LOAD_STATS_CONFIG_JSON"].(string); ok {
		var config object
		if err := json.Unmarshal([]byte(text), &config); err != nil {
			return nil, fmt.Errorf("ISTIO_META_LOAD_STATS_CONFIG_JSON: %w", err)
		}
		m["load_stats_config"] = config
	}
	if in.Mark != 0 {
		m["upstream_bind_config"] = object{"socket_options": []any{object{
			"description": "redirection knows the proxy by it", "level": 1, "name": 36, "int_value": in.Mark, "state": "STATE_PREBIND"}}}
	}
	return m, nil
}

// six reports whether the workload has IPv6 addresses only.
func (in Input) six() bool {
	for _, a := range in.Addresses {
		if ip, err := netip.ParseAddr(a); err != nil || ip.Is4() {
			return false
		}
	}
	return len(in.Addresses) > 0
}

func (in Input) loopback(port int) object {
	if in.six() {
		return socketAddress("::1", port)
	}
	return socketAddress("127.0.0.1", port)
}

// bind is where pages for others listen.
func (in Input) bind(port int) object {
	if in.Bind == "" {
		return in.loopback(port)
	}
	return socketAddress(in.Bind, port)
}

func socketAddress(host string, port int) object {
	return object{"socket_address": object{"protocol": "TCP", "address": host, "port_value": port}}
}

// hostPort is the address that HOST:PORT names.
func hostPort(field, text string) (object, error) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", field, err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%s: port of %q: %w", field, text, err)
	}
	return object{"socket_address": object{"address": host, "port_value": int(n)}}, nil
}

// resolvers is the value of the metadata that says where the gateway's resolver is.
func (in Input) resolvers() (key, value string) {
	return wellknown.ResolversKey, net.JoinHostPort("127.0.0.1", strconv.Itoa(in.DNS))
}
