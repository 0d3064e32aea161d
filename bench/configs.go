package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"strings"
)

// hosts and paths make the routing table that every contender has: 50 virtual hosts
// of 6 rules each.
const (
	hosts = 50
	paths = 6
)

// logFormat is the original's default access log line.
const logFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"

type object = map[string]any

// A config is one bootstrap of Envoy's form.
type config struct {
	base     int    // the first of its ports
	dir, log string // where certificates are, and the access log
	services int    // how many clusters and virtual hosts there are; more than one have 10 endpoints each
}

func socket(port int) object {
	return object{"socket_address": object{"address": "127.0.0.1", "port_value": port}}
}

func typed(name, typeURL string, fields object) object {
	message := object{"@type": "type.googleapis.com/" + typeURL}
	maps.Copy(message, fields)
	return object{"name": name, "typed_config": message}
}

// bootstrap has a listener for each kind of traffic.
func (c config) bootstrap() object {
	return object{
		"node":  object{"id": "router~127.0.0.1~bench.istio-system~istio-system.svc.cluster.local", "cluster": "bench"},
		"admin": object{"address": socket(c.base + int(adminPage))},
		"overload_manager": object{"resource_monitors": []any{typed("envoy.resource_monitors.global_downstream_max_connections",
			"envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig", object{"max_active_downstream_connections": 15_000})}},
		"static_resources": object{
			"listeners": []any{
				c.listener(mesh, c.manager("http", true), nil), c.listener(bare, c.manager("http", false), nil),
				c.listener(tlsIn, c.manager("http", false), c.serverTLS(false)), c.listener(tlsOut, c.manager("tls", false), nil),
				c.listener(mtlsIn, c.manager("http", false), c.serverTLS(true)),
				c.listener(http2, c.manager("http2", true), nil), c.listener(grpc, c.manager("grpc", true), nil),
				c.listener(tcp, typed("envoy.filters.network.tcp_proxy", "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
					object{"stat_prefix": "tcp", "cluster": "tcp"}), nil),
			},
			"clusters": append([]any{
				cluster("http", backendPort, nil), cluster("tls", backendTLS, object{"transport_socket": c.clientTLS()}),
				cluster("http2", backendHTTP2, speaksHTTP2), cluster("grpc", backendGRPC, speaksHTTP2), cluster("tcp", sinkPort, nil),
			}, c.others()...),
		},
	}
}

func (c config) listener(l listener, filter, socketConfig object) object {
	chain := object{"filters": []any{filter}}
	if socketConfig != nil {
		chain["transport_socket"] = socketConfig
	}
	return object{"name": fmt.Sprintf("0.0.0.0_%d", c.base+int(l)), "address": socket(c.base + int(l)), "filter_chains": []any{chain}}
}

func (c config) serverTLS(mutual bool) object {
	common := object{"tls_certificates": []any{c.pair()}}
	if mutual {
		common["validation_context"] = object{"trusted_ca": object{"filename": filepath.Join(c.dir, "ca.pem")}}
	}
	return typed("envoy.transport_sockets.tls", "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext", object{
		"common_tls_context": common, "require_client_certificate": mutual})
}

func (c config) clientTLS() object {
	return typed("envoy.transport_sockets.tls", "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext", object{
		"sni": serverName, "common_tls_context": object{"tls_params": object{"tls_maximum_protocol_version": "TLSv1_3"}, "tls_certificates": []any{c.pair()},
			"validation_context": object{"trusted_ca": object{"filename": filepath.Join(c.dir, "ca.pem")}}}})
}

func (c config) pair() object {
	return object{"certificate_chain": object{"filename": filepath.Join(c.dir, "cert.pem")}, "private_key": object{"filename": filepath.Join(c.dir, "key.pem")}}
}

// manager is an ingress gateway as the control plane configures it, but static: with all
// that a mesh adds text access log, fault and cors filters, request ids, retry policy.
func (c config) manager(upstream string, meshLike bool) object {
	fields := object{
		"stat_prefix": "outbound_0.0.0.0_80", "server_name": "istio-envoy", "use_remote_address": true, "normalize_path": true,
		"stream_idle_timeout": "0s", "generate_request_id": meshLike,
		"http_filters": []any{typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", nil)},
		"route_config": object{"name": "http.80", "ignore_port_in_host_matching": true, "virtual_hosts": []any{object{
			"name": "all", "domains": []any{"*"}, "routes": []any{object{"match": object{"prefix": "/"}, "route": object{"cluster": upstream, "timeout": "0s"}}}}}},
	}
	if meshLike {
		fields["access_log"] = []any{typed("envoy.access_loggers.file", "envoy.extensions.access_loggers.file.v3.FileAccessLog", object{
			"path": c.log, "log_format": object{"text_format_source": object{"inline_string": logFormat}}})}
		fields["http_filters"] = append([]any{
			typed("envoy.filters.http.fault", "envoy.extensions.filters.http.fault.v3.HTTPFault", nil),
			typed("envoy.filters.http.cors", "envoy.extensions.filters.http.cors.v3.Cors", nil)}, fields["http_filters"].([]any)...)
		fields["route_config"] = object{"name": "http.80", "ignore_port_in_host_matching": true, "virtual_hosts": c.virtualHosts(upstream)}
	}
	return typed("envoy.filters.network.http_connection_manager", "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", fields)
}

var speaksHTTP2 = object{"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
	"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
	"explicit_http_config": object{"http2_protocol_options": object{}}}}}

func cluster(name string, port int, more object) object {
	c := object{
		"name": name, "type": "STATIC", "connect_timeout": "10s", "lb_policy": "LEAST_REQUEST",
		"circuit_breakers": object{"thresholds": []any{object{"max_connections": 4294967295, "max_pending_requests": 4294967295, "max_requests": 4294967295, "max_retries": 4294967295}}},
		"load_assignment":  object{"cluster_name": name, "endpoints": []any{object{"lb_endpoints": []any{object{"endpoint": object{"address": socket(port)}}}}}},
	}
	maps.Copy(c, more)
	return c
}

// others are the clusters of services that nobody asks for.
func (c config) others() []any {
	var all []any
	for i := range c.services - 1 {
		var endpoints []any
		for e := range 10 {
			endpoints = append(endpoints, object{"endpoint": object{"address": object{"socket_address": object{
				"address": fmt.Sprintf("10.%d.%d.%d", i>>8, i&255, e+1), "port_value": 8080}}}})
		}
		name := fmt.Sprintf("outbound|80||other%d.default.svc.cluster.local", i)
		one := cluster(name, 0, nil)
		one["load_assignment"] = object{"cluster_name": name, "endpoints": []any{object{"lb_endpoints": endpoints}}}
		all = append(all, one)
	}
	return all
}

func (c config) virtualHosts(upstream string) []any {
	var all []any
	for h := range hosts {
		host := fmt.Sprintf("svc%d.default.svc.cluster.local", h)
		var routes []any
		for p := range paths {
			routes = append(routes, object{
				"match":     object{"prefix": fmt.Sprintf("/svc%d/", p), "headers": []any{object{"name": "user-agent", "string_match": object{"prefix": "Mozilla"}}}},
				"decorator": object{"operation": host + ":80/*"},
				"route": object{
					"cluster": upstream, "timeout": "0s",
					"retry_policy": object{"num_retries": 2, "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"},
				},
			})
		}
		all = append(all, object{"name": host + ":80", "domains": []any{host}, "include_request_attempt_count": true, "routes": routes})
	}
	for i := range c.services - 1 {
		host := fmt.Sprintf("other%d.default.svc.cluster.local", i)
		all = append(all, object{"name": host + ":80", "domains": []any{host, fmt.Sprintf("other%d.default", i)}, "routes": []any{object{
			"match": object{"prefix": "/"}, "route": object{"cluster": "outbound|80||" + host, "timeout": "0s"}}}})
	}
	return append(all, object{"name": "blackhole:80", "domains": []any{"*"}, "routes": []any{
		object{"match": object{"prefix": "/"}, "direct_response": object{"status": 404}}}})
}

// opensslConf makes clients ask for the one cipher suite that all peers choose.
const opensslConf = `openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = suites
[suites]
Ciphersuites = TLS_AES_128_GCM_SHA256
`

func backendConf(dir string) string {
	return fmt.Sprintf(`daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 65536; pid %[1]s/backend.pid; error_log stderr error;
events { worker_connections 20000; }
http {
  access_log off; keepalive_requests 1000000000; keepalive_timeout 1h;
  client_body_temp_path %[1]s/b1; proxy_temp_path %[1]s/b2; fastcgi_temp_path %[1]s/b3; uwsgi_temp_path %[1]s/b4; scgi_temp_path %[1]s/b5;
  ssl_certificate %[1]s/cert.pem; ssl_certificate_key %[1]s/key.pem; ssl_client_certificate %[1]s/ca.pem; ssl_protocols TLSv1.3;
  ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
  server { listen 127.0.0.1:%[2]d reuseport; listen 127.0.0.1:%[3]d ssl reuseport; listen 127.0.0.1:%[4]d http2 reuseport; ssl_verify_client optional;
    location / { default_type text/plain; return 200 "%[5]s"; }
    location = /svc2/64k { root %[1]s/www; default_type text/plain; } }
}
`, dir, backendPort, backendTLS, backendHTTP2, strings.Repeat("x", 100))
}

func nginxConf(dir string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `daemon off; master_process off; worker_processes 1; pid %[1]s/nginx.pid; error_log stderr error;
events { worker_connections 4096; }
http {
  log_format mesh '[$time_iso8601] "$request" $status - via_upstream - "-" $content_length $body_bytes_sent $request_time $upstream_response_time "$proxy_add_x_forwarded_for" "$http_user_agent" "$request_id" "$host" "$upstream_addr" svc $server_addr:$server_port $remote_addr:$remote_port -';
  access_log %[1]s/nginx-access.log mesh buffer=64k flush=1s;
  keepalive_requests 1000000000; server_names_hash_bucket_size 128; server_names_hash_max_size 4096;
  client_body_temp_path %[1]s/n1; proxy_temp_path %[1]s/n2; fastcgi_temp_path %[1]s/n3; uwsgi_temp_path %[1]s/n4; scgi_temp_path %[1]s/n5;
  upstream svc { server 127.0.0.1:%[2]d; keepalive 512; keepalive_requests 1000000000; }
  proxy_http_version 1.1;
`, dir, backendPort)
	for h := range hosts {
		fmt.Fprintf(&b, "  server { listen 127.0.0.1:%d; server_name svc%d.default.svc.cluster.local;\n", nginxBase, h)
		for p := range paths {
			fmt.Fprintf(&b, "    location /svc%d/ { if ($http_user_agent !~ ^Mozilla) { return 404; } proxy_pass http://svc; proxy_set_header Host $host; proxy_set_header Connection \"\"; proxy_set_header X-Request-Id $request_id; proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Forwarded-Proto $scheme; proxy_next_upstream error timeout; }\n", p)
		}
		b.WriteString("    location / { return 404; }\n  }\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func haproxyConf() string {
	var b strings.Builder
	fmt.Fprintf(&b, `global
  nbthread 1
  maxconn 4000
  log stdout format raw local0
defaults
  mode http
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  option http-keep-alive
  http-reuse always
  retries 2
  log global
frontend mesh
  bind 127.0.0.1:%d
  option forwardfor
  unique-id-format %%[uuid()]
  unique-id-header x-request-id
  http-request set-header x-forwarded-proto http
  capture request header user-agent len 128
  log-format "[%%t] %%{+Q}r %%ST - via_upstream - %%U %%B %%Ta %%Tr %%{+Q}hr %%ID %%si:%%sp %%fi:%%fp %%ci:%%cp"
`, haproxyBase)
	for h := range hosts {
		fmt.Fprintf(&b, "  acl host%d hdr(host) -i svc%d.default.svc.cluster.local\n", h, h)
	}
	for p := range paths {
		fmt.Fprintf(&b, "  acl path%d path_beg /svc%d/\n", p, p)
	}
	b.WriteString("  acl browser hdr_beg(user-agent) Mozilla\n")
	for h := range hosts {
		for p := range paths {
			fmt.Fprintf(&b, "  use_backend svc if host%d path%d browser\n", h, p)
		}
	}
	fmt.Fprintf(&b, "  default_backend none\nbackend svc\n  server s1 127.0.0.1:%d\nbackend none\n  http-request return status 404\n", backendPort)
	return b.String()
}
