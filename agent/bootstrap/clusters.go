package bootstrap

import (
	"cmp"
	"path/filepath"

	meshpb "istio.io/api/mesh/v1alpha1"
	networkingpb "istio.io/api/networking/v1alpha3"
)

// clusters are those that the proxy has before its control plane says anything.
func (in Input) clusters() ([]any, error) {
	pages := in.loopback(in.Agent)
	if in.Agent == 0 {
		pages = in.loopback(in.Admin)
	}
	all := []any{
		in.static("prometheus_stats", "0.250s", in.loopback(in.Admin)),
		in.static("agent", "0.250s", pages),
	}
	if in.SDSSocket != "" {
		all = append(all, spoken(in.static("sds-grpc", "1s", object{"pipe": object{"path": in.SDSSocket}})))
	}
	all = append(all, in.xdsCluster())
	add := func(c object, err error) error {
		if c != nil {
			all = append(all, c)
		}
		return err
	}
	if err := add(in.tracingCluster()); err != nil {
		return nil, err
	}
	if err := add(in.remote("envoy_metrics_service", "envoyMetricsService.address", in.Config.GetEnvoyMetricsService())); err != nil {
		return nil, err
	}
	if err := add(in.remote("envoy_accesslog_service", "envoyAccessLogService.address", in.Config.GetEnvoyAccessLogService())); err != nil {
		return nil, err
	}
	return all, nil
}

func (in Input) static(name, timeout string, address object) object {
	return object{
		"name": name, "alt_stat_name": name + ";", "type": "STATIC", "connect_timeout": timeout, "lb_policy": "ROUND_ROBIN",
		"load_assignment": object{"cluster_name": name, "endpoints": []any{object{
			"lb_endpoints": []any{object{"endpoint": object{"address": address}}}}}},
	}
}

// named is a cluster whose host is found by name.
func (in Input) named(name, field, address string) (object, error) {
	at, err := hostPort(field, address)
	if err != nil {
		return nil, err
	}
	c := in.static(name, "1s", at)
	c["type"], c["respect_dns_ttl"], c["dns_lookup_family"] = "STRICT_DNS", true, "V4_ONLY"
	if in.six() {
		c["dns_lookup_family"] = "V6_ONLY"
	}
	return c, nil
}

// spoken is a cluster that speaks HTTP/2.
func spoken(c object) object {
	c["typed_extension_protocol_options"] = object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
		"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
		"explicit_http_config": object{"http2_protocol_options": object{}},
	}}
	return c
}

func (in Input) xdsCluster() object {
	c := spoken(in.static("xds-grpc", "1s", object{"pipe": object{"path": in.XDSSocket}}))
	limits := func(priority string) object {
		return object{"priority": priority, "max_connections": 100000, "max_pending_requests": 100000, "max_requests": 100000}
	}
	c["circuit_breakers"] = object{"thresholds": []any{limits("DEFAULT"), limits("HIGH")}}
	c["upstream_connection_options"] = object{"tcp_keepalive": object{"keepalive_time": 300}}
	c["max_requests_per_connection"] = 1
	return c
}

// remote is the cluster of a gRPC service, nil if it is not asked for.
func (in Input) remote(name, field string, s *meshpb.RemoteService) (object, error) {
	if s.GetAddress() == "" {
		return nil, nil
	}
	c, err := in.named(name, field, s.GetAddress())
	if err != nil {
		return nil, err
	}
	if k := s.GetTcpKeepalive(); k != nil {
		c["upstream_connection_options"] = object{"tcp_keepalive": object{
			"keepalive_probes": k.GetProbes(), "keepalive_time": k.GetTime().GetSeconds(), "keepalive_interval": k.GetInterval().GetSeconds()}}
	}
	secured(c, s.GetTlsSettings(), "h2")
	return spoken(c), nil
}

// zipkinAddress is where Zipkin's spans go, "" for nowhere.
func (in Input) zipkinAddress() string {
	if in.Config.GetTracing() == nil {
		return in.Config.GetZipkinAddress() //nolint:staticcheck // the older name of the same
	}
	return in.Config.GetTracing().GetZipkin().GetAddress()
}

// tracingCluster is where spans go, nil for nowhere.
func (in Input) tracingCluster() (c object, err error) {
	t := in.Config.GetTracing()
	switch {
	case in.zipkinAddress() != "":
		c, err = in.named("zipkin", "tracing.zipkin.address", in.zipkinAddress())
		if c != nil {
			c["dns_refresh_rate"] = "30s"
		}
	case t.GetLightstep().GetAddress() != "":
		c, err = in.named("lightstep", "tracing.lightstep.address", t.GetLightstep().GetAddress())
		if c != nil {
			spoken(c)
		}
	case t.GetDatadog().GetAddress() != "":
		c, err = in.named("datadog_agent", "tracing.datadog.address", t.GetDatadog().GetAddress())
	}
	if c != nil {
		secured(c, t.GetTlsSettings())
	}
	return c, err
}

// tracer makes the spans, nil for none.
func (in Input) tracer() object {
	t := in.Config.GetTracing()
	driver := func(name, message string, config object) object {
		config["@type"] = "type.googleapis.com/envoy.config.trace.v3." + message
		return object{"name": "envoy.tracers." + name, "typed_config": config}
	}
	switch {
	case in.zipkinAddress() != "":
		return driver("zipkin", "ZipkinConfig", object{"collector_cluster": "zipkin", "collector_endpoint": "/api/v2/spans",
			"collector_endpoint_version": "HTTP_JSON", "trace_id_128bit": true, "shared_span_context": false})
	case t.GetLightstep().GetAddress() != "":
		return driver("lightstep", "LightstepConfig", object{"collector_cluster": "lightstep", "access_token_file": in.tokenFile()})
	case t.GetDatadog().GetAddress() != "":
		return driver("datadog", "DatadogConfig", object{"collector_cluster": "datadog_agent", "service_name": cmp.Or(in.Config.GetServiceCluster(), "istio-proxy")})
	}
	return nil
}

// tokenFile is where the access token of a tracer is, beside the bootstrap.
func (in Input) tokenFile() string {
	return filepath.Join(in.Config.GetConfigPath(), "lightstep_access_token.txt")
}

// secured has a cluster speak TLS as settings say; certificates come by the agent's socket.
func secured(c object, s *networkingpb.ClientTLSSettings, alpn ...string) {
	if s == nil || s.GetMode() == networkingpb.ClientTLSSettings_DISABLE {
		return
	}
	common := object{}
	if len(alpn) > 0 {
		common["alpn_protocols"] = alpn
	}
	root, pair := "", ""
	switch s.GetMode() {
	case networkingpb.ClientTLSSettings_ISTIO_MUTUAL:
		root, pair = "ROOTCA", "default"
	default:
		if s.GetCaCertificates() != "" {
			root = "file-root:" + s.GetCaCertificates()
		}
		if s.GetMode() == networkingpb.ClientTLSSettings_MUTUAL {
			pair = "file-cert:" + s.GetClientCertificate() + "~" + s.GetPrivateKey()
		}
	}
	if pair != "" {
		common["tls_certificate_sds_secret_configs"] = []any{secret(pair)}
	}
	if root != "" {
		validation := object{}
		if names := s.GetSubjectAltNames(); len(names) > 0 {
			var match []any
			for _, n := range names {
				match = append(match, object{"exact": n})
			}
			validation["match_subject_alt_names"] = match
		}
		common["combined_validation_context"] = object{"default_validation_context": validation, "validation_context_sds_secret_config": secret(root)}
	}
	tls := object{"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": common}
	if s.GetSni() != "" {
		tls["sni"] = s.GetSni()
	}
	c["transport_socket"] = object{"name": "envoy.transport_sockets.tls", "typed_config": tls}
}

// secret is one that the agent's socket serves.
func secret(name string) object {
	return object{"name": name, "sds_config": object{"resource_api_version": "V3", "api_config_source": object{
		"api_type": "GRPC", "transport_api_version": "V3", "set_node_on_first_message_only": true,
		"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": "sds-grpc"}}},
	}}}
}
