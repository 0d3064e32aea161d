package main

import (
	"fmt"
	"maps"
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

// meshBootstrap is an ingress gateway as the control plane configures it, but static:
// text access log, fault and cors filters, request ids, retry policy.
func meshBootstrap(port, admin int, log string) object {
	socket := func(port int) object {
		return object{"socket_address": object{"address": "127.0.0.1", "port_value": port}}
	}
	typed := func(name, typeURL string, fields object) object {
		config := object{"@type": "type.googleapis.com/" + typeURL}
		maps.Copy(config, fields)
		return object{"name": name, "typed_config": config}
	}
	hcm := typed("envoy.filters.network.http_connection_manager", "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", object{
		"stat_prefix": "outbound_0.0.0.0_80", "server_name": "istio-envoy", "use_remote_address": true, "normalize_path": true,
		"stream_idle_timeout": "0s",
		"access_log": []any{typed("envoy.access_loggers.file", "envoy.extensions.access_loggers.file.v3.FileAccessLog", object{
			"path": log, "log_format": object{"text_format_source": object{"inline_string": logFormat}},
		})},
		"http_filters": []any{
			typed("envoy.filters.http.fault", "envoy.extensions.filters.http.fault.v3.HTTPFault", nil),
			typed("envoy.filters.http.cors", "envoy.extensions.filters.http.cors.v3.Cors", nil),
			typed("envoy.filters.http.router", "envoy.extensions.filters.http.router.v3.Router", nil),
		},
		"route_config": object{"name": "http.80", "ignore_port_in_host_matching": true, "virtual_hosts": virtualHosts()},
	})
	return object{
		"node":  object{"id": "router~127.0.0.1~bench.istio-system~istio-system.svc.cluster.local", "cluster": "bench"},
		"admin": object{"address": socket(admin)},
		"static_resources": object{
			"listeners": []any{object{"name": "0.0.0.0_80", "address": socket(port), "filter_chains": []any{object{"filters": []any{hcm}}}}},
			"clusters": []any{object{
				"name": "outbound|80||svc.default.svc.cluster.local", "type": "STATIC", "connect_timeout": "10s", "lb_policy": "LEAST_REQUEST",
				"circuit_breakers": object{"thresholds": []any{object{"max_connections": 4294967295, "max_pending_requests": 4294967295, "max_requests": 4294967295, "max_retries": 4294967295}}},
				"load_assignment": object{"cluster_name": "outbound|80||svc.default.svc.cluster.local", "endpoints": []any{object{
					"lb_endpoints": []any{object{"endpoint": object{"address": socket(backendPort)}}}}}},
			}},
		},
	}
}

func virtualHosts() []any {
	var all []any
	for h := range hosts {
		host := fmt.Sprintf("svc%d.default.svc.cluster.local", h)
		var routes []any
		for p := range paths {
			routes = append(routes, object{
				"match":     object{"prefix": fmt.Sprintf("/svc%d/", p), "headers": []any{object{"name": "user-agent", "string_match": object{"prefix": "Mozilla"}}}},
				"decorator": object{"operation": host + ":80/*"},
				"route": object{
					"cluster": "outbound|80||svc.default.svc.cluster.local", "timeout": "0s",
					"retry_policy": object{"num_retries": 2, "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"},
				},
			})
		}
		all = append(all, object{"name": host + ":80", "domains": []any{host}, "include_request_attempt_count": true, "routes": routes})
	}
	return append(all, object{"name": "blackhole:80", "domains": []any{"*"}, "routes": []any{
		object{"match": object{"prefix": "/"}, "direct_response": object{"status": 404}}}})
}

func backendConf(dir string) string {
	return fmt.Sprintf(`daemon off; master_process off; worker_processes 1; pid %[1]s/backend.pid; error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path %[1]s/b1; proxy_temp_path %[1]s/b2; fastcgi_temp_path %[1]s/b3; uwsgi_temp_path %[1]s/b4; scgi_temp_path %[1]s/b5;
  server { listen 127.0.0.1:%[2]d reuseport; location / { default_type text/plain; return 200 "%[3]s"; } }
}
`, dir, backendPort, strings.Repeat("x", 100))
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
		fmt.Fprintf(&b, "  server { listen 127.0.0.1:%d; server_name svc%d.default.svc.cluster.local;\n", nginxPort, h)
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
`, haproxyPort)
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
