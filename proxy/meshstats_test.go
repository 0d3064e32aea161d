package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/test/material"
)

// meshSide is a proxy of a workload in front of one cluster, with the filters that a mesh
// gives it.
func meshSide(t *testing.T, node, direction, stats, cluster string) *running {
	t.Helper()
	side := map[string]string{
		"OUTBOUND": `{upstream_discovery: [{istio_headers: {}}], upstream_propagation: [{istio_headers: {}}]}`,
		"INBOUND":  `{downstream_discovery: [{istio_headers: {}}], downstream_propagation: [{istio_headers: {}}]}`,
	}[direction]
	return start(t, fmt.Sprintf(`
node: {id: sidecar~10.0.0.1~a.default~default.svc.cluster.local, cluster: c, metadata: %s}
static_resources:
  clusters: [%s]
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    traffic_direction: %s
    filter_chains:
    - filters:
      - name: h
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: h
          http_filters:
          - {name: istio.metadata_exchange, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/io.istio.http.peer_metadata.Config, value: %s}}
          - {name: envoy.filters.http.grpc_stats, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, emit_filter_state: true, stats_for_all_methods: false}}
          - {name: istio.stats, typed_config: {"@type": type.googleapis.com/udpa.type.v1.TypedStruct, type_url: type.googleapis.com/stats.PluginConfig, value: %s}}
          - {name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
          route_config:
            virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, name: r, route: {cluster: server}}]}]
`, node, cluster, direction, side, stats))
}

// meshCluster is one with what a control plane says of its service.
func meshCluster(addr string) string {
	return strings.Replace(staticCluster("server", addr), "type: STATIC",
		`type: STATIC, metadata: {filter_metadata: {istio: {services: [{host: server.default.svc.cluster.local, name: server, namespace: default}]}}}`, 1)
}

// identityOf is the node's metadata of one of the workloads of the acceptance material.
func identityOf(t *testing.T, m map[string]any) string {
	t.Helper()
	text, err := yaml.Marshal(map[string]any{"WORKLOAD_NAME": m["workload"], "NAMESPACE": m["namespace"], "LABELS": m["labels"],
		"CLUSTER_ID": m["cluster"], "ISTIO_VERSION": "1.32.0"})
	if err != nil {
		t.Fatal(err)
	}
	j, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	return string(j)
}

// TestMeshMetrics sends requests through the proxies of the acceptance material's client
// and server and compares every series with the one that is expected there.
func TestMeshMetrics(t *testing.T) {
	var want struct {
		Identities map[string]any `json:"identities"`
		Series     []struct {
			Name, Metric string
			Labels       map[string]string
		} `json:"series"`
	}
	data, err := os.ReadFile(material.Path(t, "data/metrics/istio-metrics.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	app := meshApp(t)
	both := func(server, client string) map[string]string {
		s := meshSide(t, identityOf(t, want.Identities["server"].(map[string]any)), "INBOUND", server, meshCluster(app))
		c := meshSide(t, identityOf(t, want.Identities["client"].(map[string]any)), "OUTBOUND", client, meshCluster(s.listener("l")))
		for _, kind := range []string{"text/plain", "application/grpc"} {
			meshCall(t, c.listener("l"), kind)
		}
		return map[string]string{"source": c.get("/stats/prometheus"), "destination": s.get("/stats/prometheus")}
	}
	pages := both("{}", "{}")
	roles := both(`{metrics: [{dimensions: {role: "downstream_peer.labels['role'].value"}}]}`, `{metrics: [{dimensions: {role: "upstream_peer.labels['role'].value"}}]}`)
	rows := map[string]string{"istio_requests_total": "OB-001 OB-010 OB-011 OB-012", "istio_request_messages_total": "OB-004", "istio_response_messages_total": "OB-004"}
	checked := 0
	for _, s := range want.Series {
		if s.Labels["configurable_metric_a"] != "" || rows[s.Metric] == "" || strings.Contains(s.Name, "endpoint_labels") {
			continue // of another configuration
		}
		checked++
		t.Run(rows[s.Metric]+" "+s.Name, func(t *testing.T) {
			page := pages[s.Labels["reporter"]]
			if s.Labels["role"] != "" {
				page = roles[s.Labels["reporter"]]
			}
			if !slices.ContainsFunc(strings.Split(page, "\n"), func(line string) bool { return sameSeries(line, s.Metric, s.Labels) }) {
				t.Errorf("no %s%v in\n%s", s.Metric, s.Labels, grep(page, "istio_"))
			}
		})
	}
	if checked < 6 {
		t.Errorf("only %d series are in the acceptance material", checked)
	}
	t.Run("OB-009 both sides report", func(t *testing.T) {
		for side, page := range pages {
			if !strings.Contains(page, `istio_requests_total{reporter="`+side+`",source_workload="productpage-v1",`) {
				t.Errorf("%s: labels are not in the original's order:\n%s", side, grep(page, "istio_requests_total"))
			}
		}
	})
	for row, metric := range map[string]string{"OB-002": "istio_request_duration_milliseconds", "OB-003 requests": "istio_request_bytes", "OB-003 responses": "istio_response_bytes"} {
		t.Run(row+" "+metric, func(t *testing.T) {
			for side, page := range pages {
				for _, suffix := range []string{"_bucket{", "_sum{", "_count{"} {
					if !strings.Contains(page, "\n"+metric+suffix) {
						t.Errorf("%s: no %s%s", side, metric, suffix)
					}
				}
				if !strings.Contains(page, "# TYPE "+metric+" histogram\n") {
					t.Errorf("%s: %s is no histogram", side, metric)
				}
			}
		})
	}
	t.Run("OB-007 istio_build", func(t *testing.T) {
		for side, page := range pages {
			if !strings.Contains(page, `istio_build{component="proxy",tag="1.32.0"} 1`) {
				t.Errorf("%s: %s", side, grep(page, "istio_build"))
			}
		}
	})
}

// sameSeries reports that a line of the Prometheus form is that series.
func sameSeries(line, metric string, labels map[string]string) bool {
	rest, ok := strings.CutPrefix(line, metric+"{")
	if !ok {
		return false
	}
	rest, _, _ = strings.Cut(rest, "} ")
	got := map[string]string{}
	for pair := range strings.SplitSeq(rest, ",") {
		k, v, _ := strings.Cut(pair, "=")
		got[k] = strings.Trim(v, `"`)
	}
	if len(got) != len(labels) {
		return false
	}
	for k, v := range labels {
		if got[k] != v {
			return false
		}
	}
	return true
}

func grep(page, text string) string {
	var b strings.Builder
	for line := range strings.SplitSeq(page, "\n") {
		if strings.Contains(line, text) && !strings.Contains(line, "_bucket") {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// meshApp answers as the request's type wants it.
func meshApp(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return accepting(t, ln, meshAnswer)
}

func meshAnswer(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		extra := ""
		if kind := req.Header.Get("content-type"); kind == "application/grpc" {
			extra = "grpc-status: 0\r\n"
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\ncontent-type: %s\r\n%scontent-length: 7\r\n\r\n\x00\x00\x00\x00\x02hi", req.Header.Get("content-type"), extra)
	}
}

// meshCall makes one request and waits for its answer and the end of the connection, so
// that it has been counted.
func meshCall(t *testing.T, addr, kind string) {
	t.Helper()
	c := dial(t, addr)
	defer c.Close()
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nhost: server\r\ncontent-type: %s\r\ncontent-length: 7\r\nconnection: close\r\n\r\n\x00\x00\x00\x00\x02hi", kind)
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Fatalf("%v: %q", err, answer)
	}
}
