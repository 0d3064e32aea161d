package bootstrap

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	_ "github.com/cncf/xds/go/udpa/type/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/types/known/durationpb"
	meshpb "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/test/material"
)

// A bootstrapCase is one of data/bootstrap/cases.yaml.
type bootstrapCase struct {
	Name, ProxyConfig, Expected, CompliancePolicy string
	EnvVars, Annotations                          map[string]string
	SecureMetricsPort, SecureMergedMetricsPort    string
	SDSUDSPath, SDSTokenPath                      string
}

// rows are the lines of the feature surface that a case proves.
var rows = map[string]string{
	"stats_inclusion": "AN-009 AN-010 AN-011 MC-074", "stats_flush_interval": "AN-010", "stats_eviction_interval": "AN-010",
	"explicit_internal_address": "MC-073", "running": "EN-039 EN-040 MC-060 AN-055", "tracing_zipkin": "MC-069",
	"tracing_lightstep": "MC-070", "tracing_datadog": "MC-070", "all": "MC-064 MC-066 NM-004", "default": "MC-065",
	"stats_compression": "MC-082", "global_downstream_connection_settings": "MC-083",
}

func TestCases(t *testing.T) {
	dir := material.Path(t, "data", "bootstrap")
	text, err := os.ReadFile(filepath.Join(dir, "cases.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []bootstrapCase
	if err := yaml.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	for _, c := range cases {
		t.Run(strings.TrimSpace(rows[c.Name]+" "+c.Name), func(t *testing.T) {
			raw, err := c.input(t, dir).JSON()
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(dir, c.Expected))
			if err != nil {
				t.Fatal(err)
			}
			compare(t, "", meaning(t, raw), meaning(t, want))
		})
	}
	if len(cases) < 28 {
		t.Errorf("%d cases", len(cases))
	}
}

// input is what the original's test gives to every case, with what the case says.
func (c bootstrapCase) input(t *testing.T, dir string) Input {
	t.Helper()
	config := &meshpb.ProxyConfig{}
	text, err := os.ReadFile(filepath.Join(dir, c.ProxyConfig))
	if err != nil {
		t.Fatal(err)
	}
	if err := prototext.Unmarshal(text, config); err != nil {
		t.Fatal(err)
	}
	config.ConfigPath, config.StatusPort, config.CustomConfigFile = "/tmp/bootstrap/"+c.Name, 15020, "envoy_bootstrap.json"
	in := Input{
		ID: "sidecar~1.2.3.4~foo~bar", Config: config, PilotSAN: []string{"spiffe://cluster.local/ns/istio-system/sa/istio-pilot-service-account"},
		XDSSocket: "/tmp/XDS", SDSSocket: "./var/run/secrets/workload-spiffe-uds/test.sock", Bind: "0.0.0.0",
		Metadata: map[string]any{"WORKLOAD_IDENTITY_SOCKET_FILE": "test.sock", "ISTIO_VERSION": "binary-1.0"},
		Agent:    15020, Admin: int(config.ProxyAdminPort), Health: 15021, Metrics: 15090, OutlierLog: "/dev/stdout",
		FIPS: c.CompliancePolicy == "fips-140-2",
	}
	in.SecureMetrics, _ = strconv.Atoi(c.SecureMetricsPort)
	in.SecureMergedMetrics, _ = strconv.Atoi(c.SecureMergedMetricsPort)
	var env []string
	for name, value := range c.EnvVars {
		env = append(env, name+"="+value)
		if strings.HasSuffix(name, "_MAX_CONNECTIONS") { // these pods were given it by their configuration
			config.ProxyMetadata = map[string]string{name: value}
		}
	}
	if len(c.Annotations) > 0 {
		text, err := json.Marshal(c.Annotations)
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, "ISTIO_METAJSON_ANNOTATIONS="+string(text))
	}
	if err := in.ReadEnvironment(env); err != nil {
		t.Fatal(err)
	}
	in.Addresses = []string{"10.3.3.3", "10.4.4.4", "10.5.5.5", "10.6.6.6"} // which the original finds on the machine
	return in
}

// meaning is JSON without what says nothing: the protocol that is the default, and folders of the
// test that made it. Nor is it compared how paths of pages are normalized.
func meaning(t *testing.T, raw []byte) any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if v["protocol"] == "TCP" {
				delete(v, "protocol")
			}
			delete(v, "access_token_file")
			delete(v, "configPath")
			for _, safety := range []string{"normalize_path", "merge_slashes", "path_with_escaped_slashes_action"} {
				delete(v, safety) // design/0035
			}
			for _, member := range v {
				walk(member)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(v)
	return v
}

// compare names the places at which two values differ.
func compare(t *testing.T, at string, got, want any) {
	t.Helper()
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			break
		}
		keys := maps.Clone(w)
		maps.Copy(keys, g)
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			compare(t, at+"."+key, g[key], w[key])
		}
		return
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			break
		}
		for i := range w {
			compare(t, at+"["+strconv.Itoa(i)+"]", g[i], w[i])
		}
		return
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s is %v, want %v", at, got, want)
	}
}

// TestGolden is the bootstrap that a real agent of the original wrote for a pod.
func TestGolden(t *testing.T) {
	want, err := os.ReadFile(material.Path(t, "golden", "bootstrap", "sidecar-bootstrap.json"))
	if err != nil {
		t.Fatal(err)
	}
	text := `{"concurrency": 1, "configPath": "./etc/istio/proxy", "discoveryAddress": "127.0.0.1:15010", "proxyAdminPort": 15000,
		"proxyBootstrapTemplatePath": "./var/lib/istio/envoy/envoy_bootstrap_tmpl.json", "serviceCluster": "istio-proxy", "statNameLength": 189, "statusPort": 15020}`
	config := &meshpb.ProxyConfig{DrainDuration: durationpb.New(45e9), TerminationDrainDuration: durationpb.New(5e9)}
	if err := (protojson.UnmarshalOptions{}).Unmarshal([]byte(text), config); err != nil {
		t.Fatal(err)
	}
	config.DrainDuration, config.TerminationDrainDuration = durationpb.New(45e9), durationpb.New(5e9)
	in := Input{
		Type: "sidecar", Config: config, XDSSocket: "./etc/istio/proxy/XDS", SDSSocket: "./var/run/secrets/workload-spiffe-uds/socket", Bind: "0.0.0.0",
		Metadata: map[string]any{"WORKLOAD_IDENTITY_SOCKET_FILE": "socket", "ENVOY_SKIP_DEPRECATED_LOGS": "true", "CLUSTER_ID": "Kubernetes", "ISTIO_VERSION": "1.32-dev-86c9f01"},
		Agent:    15020, Admin: 15000, Health: 15021, Metrics: 15090,
	}
	if err := in.ReadEnvironment([]string{"POD_NAME=client-v1", "POD_NAMESPACE=default", "INSTANCE_IP=10.77.0.2"}); err != nil {
		t.Fatal(err)
	}
	raw, err := in.JSON()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("EN-035 EN-041 the pod of the golden data", func(t *testing.T) { compare(t, "", meaning(t, raw), meaning(t, want)) })
}

func TestGatewayOfTheHost(t *testing.T) {
	raw, err := Input{Type: "router", Name: "gw", Namespace: "istio-system", Addresses: []string{"127.0.2.1"}, Labels: map[string]string{"app": "istio-ingressgateway"},
		XDSSocket: "/s/xds.sock", Admin: 1, Health: 2, Metrics: 3, DNS: 4, Publish: "80=8080", Offset: 8000, Mark: 1337}.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var b bootstrappb.Bootstrap
	if err := protojson.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	if err := b.ValidateAll(); err != nil {
		t.Error(err)
	}
	meta := b.Node.Metadata.AsMap()
	for key, want := range map[string]any{"LATEEN_PUBLISH": "80=8080", "LATEEN_PUBLISH_OFFSET": "8000", "LATEEN_RESOLVERS": "127.0.0.1:4", "LATEEN_MARK": "1337"} {
		if meta[key] != want {
			t.Errorf("metadata %s is %v, want %v", key, meta[key], want)
		}
	}
	if want := "router~127.0.2.1~gw.istio-system~istio-system.svc.cluster.local"; b.Node.Id != want || b.Node.Cluster != "istio-ingressgateway.istio-system" {
		t.Errorf("node %q of %q, want %q", b.Node.Id, b.Node.Cluster, want)
	}
	for _, l := range b.StaticResources.Listeners {
		if a := l.GetAddress().GetSocketAddress().GetAddress(); a != "127.0.0.1" {
			t.Errorf("listener %s on %s, want loopback", l.Name, a)
		}
	}
	if o := b.ClusterManager.UpstreamBindConfig.SocketOptions[0]; o.Level != 1 || o.Name != 36 || o.GetIntValue() != 1337 {
		t.Errorf("socket option %v, want the mark", o)
	}
}

func TestMistakes(t *testing.T) {
	tests := []struct{ name, env, config, annotation, want string }{
		{"an address without port", "", `{"tracing": {"zipkin": {"address": "zipkin"}}}`, "", "tracing.zipkin.address: address zipkin: missing port in address"},
		{"a port that is none", "", `{"statsdUdpAddress": "a:http"}`, "", `statsdUdpAddress: port of "a:http"`},
		{"labels that are no object", "ISTIO_METAJSON_LABELS=[1]", `{}`, "", "environment variable ISTIO_METAJSON_LABELS: json:"},
		{"a port of a page", "ENVOY_STATUS_PORT=70000", `{}`, "", "environment variable ENVOY_STATUS_PORT"},
		{"buckets that are no numbers", "", `{}`, `{"a": "b"}`, "annotation sidecar.istio.io/statsHistogramBuckets"},
		{"reports of load", "ISTIO_META_LOAD_STATS_CONFIG_JSON={", `{}`, "", "ISTIO_META_LOAD_STATS_CONFIG_JSON"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := Input{Config: &meshpb.ProxyConfig{}}
			if err := protojson.Unmarshal([]byte(tt.config), in.Config); err != nil {
				t.Fatal(err)
			}
			if tt.annotation != "" {
				in.Annotations = map[string]string{bucketsAnnotation: tt.annotation}
			}
			err := in.ReadEnvironment([]string{tt.env})
			if err == nil {
				_, err = in.JSON()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestStatsMatcher(t *testing.T) {
	config := &meshpb.ProxyConfig{ProxyStatsMatcher: &meshpb.ProxyConfig_ProxyStatsMatcher{
		InclusionPrefixes: []string{"cluster.outbound"}, InclusionSuffixes: []string{"upstream_rq_pending_overflow"}, InclusionRegexps: []string{`http\..*\.downstream_rq_total`}}}
	in := Input{Type: "sidecar", Config: config, Name: "p", Namespace: "default", Addresses: []string{"10.0.0.1"}, XDSSocket: "/s/xds.sock", Admin: 1, Health: 2, Metrics: 3}
	raw, err := in.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var b bootstrappb.Bootstrap
	if err := protojson.Unmarshal(raw, &b); err != nil {
		t.Fatal(err)
	}
	kept := map[string]bool{}
	for _, p := range b.GetStatsConfig().GetStatsMatcher().GetInclusionList().GetPatterns() {
		kept["prefix "+p.GetPrefix()], kept["suffix "+p.GetSuffix()], kept["regex "+p.GetSafeRegex().GetRegex()] = true, true, true
	}
	t.Run("MC-079 what is asked for is kept, besides what always is", func(t *testing.T) {
		for _, want := range []string{"prefix cluster.outbound", "suffix upstream_rq_pending_overflow", `regex http\..*\.downstream_rq_total`,
			"prefix cluster_manager", "prefix listener_manager", "prefix server", "prefix cluster.xds-grpc", "prefix wasm",
			"suffix rbac.allowed", "suffix rbac.denied", "suffix shadow_allowed", "suffix shadow_denied"} {
			if !kept[want] {
				t.Errorf("no %s in %v", want, kept)
			}
		}
	})
}
