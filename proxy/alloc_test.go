//go:build !race

// The race detector allocates by itself; allocations are counted without it.

package proxy

import (
	"fmt"
	"net"
	"runtime"
	"testing"
	"time"
)

// sidecarListener is one with the filters that a mesh gives to sidecars: peers are told of
// the workload, gRPC is counted, traces are passed on in B3, each request is logged.
func sidecarListener(name, direction, cluster, log string) string {
	peer := map[string]string{
		"OUTBOUND": `{upstream_discovery: [{istio_headers: {}}, {workload_discovery: {}}], upstream_propagation: [{istio_headers: {}}]}`,
		"INBOUND":  `{downstream_discovery: [{istio_headers: {}}, {workload_discovery: {}}], downstream_propagation: [{istio_headers: {}}]}`,
	}[direction]
	return fmt.Sprintf(`
  - name: %s
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    traffic_direction: %s
    filter_chains:
    - filters:
      - name: h
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: %s
          normalize_path: true
          server_name: istio-envoy
          tracing:
            random_sampling: {value: 1}
            provider: {name: envoy.tracers.zipkin, typed_config: {"@type": type.googleapis.com/envoy.config.trace.v3.ZipkinConfig, trace_id_128bit: true, shared_span_context: false}}
          http_filters:
          - {name: istio.metadata_exchange, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/io.istio.http.peer_metadata.Config, value: %s}}
          - {name: envoy.filters.http.grpc_stats, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, emit_filter_state: true, stats_for_all_methods: false}}
          - {name: envoy.filters.http.fault, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault}}
          - {name: envoy.filters.http.cors, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors}}
          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts:
            - name: v
              domains: ["*"]
              include_request_attempt_count: true
              routes: [{match: {prefix: /}, decorator: {operation: "app:80/*"}, route: {cluster: %s, timeout: 0s}}]
          access_log: [{name: envoy.access_loggers.file, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: %q}}]
`, name, direction, name, peer, cluster, log)
}

// TestSidecarAllocations sends requests through a client's sidecar and a server's: in
// steady state none of them allocates.
func TestSidecarAllocations(t *testing.T) {
	app := echoing(t)
	node := "node: {id: sidecar~10.0.0.1~a.default~default.svc.cluster.local, cluster: c, metadata: {NAME: a, NAMESPACE: default, LABELS: {app: a}}}\nstatic_resources:\n  clusters: [%s]\n  listeners:"
	log := t.TempDir() + "/log"
	server := start(t, fmt.Sprintf(node, staticCluster("app", app))+sidecarListener("in", "INBOUND", "app", log))
	client := start(t, fmt.Sprintf(node, staticCluster("peer", server.listener("in")))+sidecarListener("out", "OUTBOUND", "peer", log))
	c, buf := dial(t, client.listener("out")), make([]byte, 4096)
	_ = c.SetDeadline(time.Time{})
	request := []byte("GET /x HTTP/1.1\r\nHost: app\r\nUser-Agent: test\r\n\r\n")
	exchange := func() {
		if _, err := c.Write(request); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	for range 2000 {
		exchange()
	}
	const n = 10000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		exchange()
	}
	runtime.ReadMemStats(&after)
	// The date's text, flushes of the log, timers of idle proxies are per second, not per request.
	if got := after.Mallocs - before.Mallocs; got > n/50 {
		t.Errorf("%d allocations in %d requests", got, n)
	}
}

// echoing answers whatever it reads with the same bytes, without allocating.
func echoing(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := []byte("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
	done := make(chan struct{})
	go func() {
		defer close(done)
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		var b [8 << 10]byte
		for {
			if _, err := c.Read(b[:]); err != nil { // one read is one request here
				return
			}
			if _, err := c.Write(answer); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { _ = ln.Close(); <-done })
	return ln.Addr().String()
}
