package bootstrap

import "strconv"

// listeners serve the proxy's pages: metrics and health, with the secure ones between them. Paths
// are normalized before they are matched: a proxy's admin API, where requests go on, makes
// /quitquitquit of /stats/prometheus/../../quitquitquit, and whoever reaches the port could end it.
func (in Input) listeners() []any {
	metrics := object{"match": object{"prefix": "/stats/prometheus"}, "route": object{"cluster": "prometheus_stats"}}
	all := []any{in.page(in.Metrics, 15090, "stats", in.compressors(), metrics)}
	if in.SecureMetrics != 0 {
		all = append(all, secure(in.page(in.SecureMetrics, in.SecureMetrics, "secure_stats", nil, metrics)))
	}
	if in.SecureMergedMetrics != 0 {
		toAgent := func(prefix string) object {
			return object{"match": object{"prefix": prefix}, "route": object{"cluster": "agent"}}
		}
		all = append(all, secure(in.page(in.SecureMergedMetrics, in.SecureMergedMetrics, "secure_merged_stats", nil, toAgent("/stats/prometheus"), toAgent("/metrics"))))
	}
	health := object{"cluster": "agent"}
	if in.Agent == 0 {
		health["prefix_rewrite"] = "/ready"
	}
	return append(all, in.page(in.Health, 15021, "agent", nil, object{"match": object{"prefix": "/healthz/ready"}, "route": health}))
}

// page is a listener with routes and, before the router, filters. It is named by the port that
// it has in a pod.
func (in Input) page(port, named int, stat string, filters []any, routes ...object) object {
	router := object{"name": "envoy.filters.http.router",
		"typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}
	host := "0.0.0.0_"
	if in.six() {
		host = "::_"
	}
	return object{
		"name": host + strconv.Itoa(named), "address": in.bind(port), "ignore_global_conn_limit": true, "bypass_overload_manager": true,
		"filter_chains": []any{object{"filters": []any{object{
			"name": "envoy.filters.network.http_connection_manager",
			"typed_config": object{
				"@type":          "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
				"codec_type":     "AUTO",
				"stat_prefix":    stat,
				"normalize_path": true, "merge_slashes": true, "path_with_escaped_slashes_action": "REJECT_REQUEST",
				"route_config": object{"virtual_hosts": []any{object{"name": "backend", "domains": []any{"*"}, "routes": routes}}},
				"http_filters": append(filters, router),
			},
		}}}},
	}
}

// secure lets only those in who have a certificate of the mesh.
func secure(listener object) object {
	chain := listener["filter_chains"].([]any)[0].(object)
	chain["filter_chain_match"] = object{"transport_protocol": "tls"}
	chain["transport_socket"] = object{"name": "envoy.transport_sockets.tls", "typed_config": object{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
		"common_tls_context": object{
			"tls_certificate_sds_secret_configs": []any{secret("default")},
			"combined_validation_context":        object{"default_validation_context": object{}, "validation_context_sds_secret_config": secret("ROOTCA")},
		},
		"require_client_certificate": true,
	}}
	listener["listener_filters"] = []any{object{"name": "envoy.filters.listener.tls_inspector",
		"typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"}}}
	return listener
}

// compressors make the page of metrics small on the wire, for clients that ask for it.
func (in Input) compressors() []any {
	if c := in.Config.GetStatsCompression(); c != nil && !c.GetValue() || in.annotations()[compressionAnnotation] == "false" {
		return nil
	}
	var all []any
	for _, c := range [][2]string{{"brotli", "Brotli"}, {"zstd", "Zstd"}, {"gzip", "Gzip"}} {
		all = append(all, object{"name": "envoy.filters.http.compressor." + c[0], "typed_config": object{
			"@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
			"compressor_library": object{"name": "stats_" + c[0],
				"typed_config": object{"@type": "type.googleapis.com/envoy.extensions.compression." + c[0] + ".compressor.v3." + c[1]}},
			"response_direction_config": object{"common_config": object{"content_type": []any{
				"text/plain", "application/vnd.google.protobuf", "application/openmetrics-text", "application/openmetrics-protobuf"}}},
		}})
	}
	return all
}
