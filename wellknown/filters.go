package wellknown

// Families of Envoy's filters, as their names have them.
const (
	HTTPFilters     = "http"
	NetworkFilters  = "network"
	ListenerFilters = "listener"
)

// CurrentFilterName is what Envoy calls a filter of a family today that had another name
// before Envoy 1.14; not ok if the name is not such an old one. Users' EnvoyFilters still
// have them.
func CurrentFilterName(family, old string) (name string, ok bool) {
	name, ok = oldFilterNames()[family][old]
	return "envoy.filters." + family + "." + name, ok
}

func oldFilterNames() map[string]map[string]string {
	return map[string]map[string]string{
		HTTPFilters: {
			"envoy.buffer": "buffer", "envoy.cors": "cors", "envoy.csrf": "csrf", "envoy.ext_authz": "ext_authz",
			"envoy.fault": "fault", "envoy.grpc_http1_bridge": "grpc_http1_bridge", "envoy.grpc_json_transcoder": "grpc_json_transcoder",
			"envoy.grpc_web": "grpc_web", "envoy.gzip": "gzip", "envoy.health_check": "health_check",
			"envoy.http_dynamo_filter": "dynamo", "envoy.ip_tagging": "ip_tagging", "envoy.lua": "lua",
			"envoy.rate_limit": "ratelimit", "envoy.router": "router", "envoy.squash": "squash",
		},
		NetworkFilters: {
			"envoy.client_ssl_auth": "client_ssl_auth", "envoy.echo": "echo", "envoy.ext_authz": "ext_authz",
			"envoy.http_connection_manager": "http_connection_manager", "envoy.mongo_proxy": "mongo_proxy",
			"envoy.ratelimit": "ratelimit", "envoy.redis_proxy": "redis_proxy", "envoy.tcp_proxy": "tcp_proxy",
		},
		ListenerFilters: {
			"envoy.listener.http_inspector": "http_inspector", "envoy.listener.original_dst": "original_dst",
			"envoy.listener.original_src": "original_src", "envoy.listener.proxy_protocol": "proxy_protocol",
			"envoy.listener.tls_inspector": "tls_inspector",
		},
	}
}
