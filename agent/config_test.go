package agent

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	_ "github.com/cncf/xds/go/udpa/type/v1"
	"google.golang.org/protobuf/encoding/protojson"
)

// wrote writes a file for a test.
func wrote(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestProxyConfig(t *testing.T) {
	var log bytes.Buffer
	mesh := wrote(t, "mesh", "trustDomain: cluster.local\ndefaultConfig:\n  drainDuration: 30s\n  concurrency: 4\n  tracing: {zipkin: {address: zipkin:9411}}\n  proxyMetadata: {A: mesh, B: mesh}\n")
	t.Setenv("PROXY_CONFIG", `{"proxyMetadata": {"B": "env"}, "terminationDrainDuration": "7s"}`)
	f := &proxyFlags{meshConfig: mesh, serviceCluster: "mine"}
	c, err := f.proxyConfig("tracing: {datadog: {address: \"dd:1\"}}\nconcurrency: 2\nproxyMetadata:\n  C: pod\nnoSuchField: 1\n", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	t.Run("AN-024 MC-072 later ones replace fields, metadata is joined", func(t *testing.T) {
		if c.DrainDuration.AsDuration() != 30*time.Second || c.TerminationDrainDuration.AsDuration() != 7*time.Second || c.Concurrency.GetValue() != 2 ||
			c.Tracing.GetZipkin() != nil || c.Tracing.GetDatadog().GetAddress() != "dd:1" || c.GetServiceCluster() != "mine" || c.StatusPort != 15020 {
			t.Errorf("configuration %v", c)
		}
		for name, want := range map[string]string{"A": "mesh", "B": "env", "C": "pod"} {
			if c.ProxyMetadata[name] != want {
				t.Errorf("metadata %s is %q, want %q", name, c.ProxyMetadata[name], want)
			}
		}
	})
	if !strings.Contains(log.String(), "noSuchField") {
		t.Errorf("an unknown field is not named: %s", &log)
	}
	for _, tt := range []struct{ annotation, want string }{
		{"concurrency: many", "proxy configuration: "},
		{"a: [", "annotation proxy.istio.io/config: "},
	} {
		if _, err := f.proxyConfig(tt.annotation, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: error %v, want %q", tt.annotation, err, tt.want)
		}
	}
}

// TestPod is who the agent says that it is: from the environment and the downward API.
func TestPod(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"labels": "app=\"istio-ingressgateway\"\nistio=\"ingressgateway\"\n",
		"annotations": "sidecar.istio.io/statsInclusionPrefixes=\"cluster.outbound\"\nkubernetes.io/config.seen=\"2026\"\nstatus.sidecar.istio.io/port=\"15999\"\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := &proxyFlags{kind: "router", domain: "istio-system.svc.example.org", podInfo: dir, config: dir}
	if _, err := f.read(slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), "the pod's manifest takes it from") {
		t.Errorf("without POD_NAME: %v", err)
	}
	t.Setenv("POD_NAME", "gw-1")
	t.Setenv("POD_NAMESPACE", "istio-system")
	t.Setenv("INSTANCE_IP", "10.244.0.9")
	t.Setenv("INSTANCE_IPS", "10.244.0.9,fd00::9")
	t.Setenv("ISTIO_META_CLUSTER_ID", "Kubernetes")
	t.Setenv("ISTIO_METAJSON_METRICS_INCLUSIONS", `{"a": "b"}`)
	t.Setenv("PROXY_CONFIG", `{"proxyMetadata": {"ISTIO_META_NETWORK": "n1"}}`)
	p, err := f.read(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.input.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var b bootstrappb.Bootstrap
	if err := protojson.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	t.Run("EN-035 EN-041 EN-039 EN-040", func(t *testing.T) {
		if want := "router~10.244.0.9~gw-1.istio-system~istio-system.svc.example.org"; b.Node.Id != want || b.Node.Cluster != "istio-ingressgateway.istio-system" {
			t.Errorf("node %s of %s, want %s", b.Node.Id, b.Node.Cluster, want)
		}
		meta := b.Node.Metadata.AsMap()
		for key, want := range map[string]any{"CLUSTER_ID": "Kubernetes", "NETWORK": "n1", "a": "b", "INSTANCE_IPS": "10.244.0.9,fd00::9", "NAME": "gw-1"} {
			if meta[key] != want {
				t.Errorf("metadata %s is %v, want %v", key, meta[key], want)
			}
		}
	})
	t.Run("AN-015 the agent answers where the annotation says", func(t *testing.T) {
		if p.input.Agent != 15999 || p.config.GetStatusPort() != 15999 {
			t.Errorf("agent on %d, status port %d", p.input.Agent, p.config.GetStatusPort())
		}
	})
	t.Run("AN-009", func(t *testing.T) {
		if !strings.Contains(string(text), `"prefix": "cluster.outbound"`) {
			t.Error("the annotation's prefix is missing")
		}
	})
	for _, l := range b.StaticResources.Listeners {
		if a := l.GetAddress().GetSocketAddress().GetAddress(); a != "0.0.0.0" {
			t.Errorf("listener %s on %s, want all addresses of the pod", l.Name, a)
		}
	}
}

func TestPairs(t *testing.T) {
	pairs, err := readPairs(wrote(t, "labels", "app=\"web\"\nnote=\"two\\nlines \\\"quoted\\\"\"\n"))
	if err != nil || pairs["app"] != "web" || pairs["note"] != "two\nlines \"quoted\"" {
		t.Errorf("%v %v", pairs, err)
	}
	if _, err := readPairs(wrote(t, "labels", "app=web\n")); err == nil || !strings.Contains(err.Error(), `"app" is not KEY="VALUE"`) {
		t.Error(err)
	}
	if pairs, err := readPairs(filepath.Join(t.TempDir(), "none")); pairs != nil || err != nil {
		t.Error(pairs, err)
	}
}

func TestRedirectFlags(t *testing.T) {
	run := func(args ...string) (string, error) {
		var out bytes.Buffer
		cmd := Command(nil)
		cmd.SetOut(&out)
		cmd.SetArgs(append([]string{"istio-iptables", "--dry-run"}, args...))
		err := cmd.Execute()
		return out.String(), err
	}
	t.Run("EN-032 the flags of istio-init", func(t *testing.T) {
		out, err := run("-p", "15001", "-z", "15006", "-u", "1337", "-m", "REDIRECT", "-i", "*", "-x", "10.1.0.0/16", "-b", "*", "-d", "15090,15021,15020", "--log_output_level=default:info")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"redirect to :15006", "redirect to :15001", "10.1.0.0/16", "skuid 1337", "15090, 15021, 15020"} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is missing in\n%s", want, out)
			}
		}
	})
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-p", "1"}, "those of the proxy are 15001"},
		{[]string{"-u", "root"}, `-u: "root" is no number`},
		{[]string{"-m", "OTHER"}, "is none of REDIRECT, TPROXY, NONE"},
		{[]string{"-i", "10.1"}, "includeOutboundIPRanges"},
	} {
		if _, err := run(tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: error %v, want %q", tt.args, err, tt.want)
		}
	}
}

// FuzzPairs: what is written as the downward API does is read as it was.
func FuzzPairs(f *testing.F) {
	f.Add("app", "web")
	f.Add("a/b", "two\nlines \"quoted\" \x00")
	path := filepath.Join(f.TempDir(), "labels")
	f.Fuzz(func(t *testing.T, key, value string) {
		if strings.ContainsAny(key, "=\r\n") {
			return // no key of Kubernetes
		}
		if err := os.WriteFile(path, []byte(key+"="+strconv.Quote(value)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		pairs, err := readPairs(path)
		if err != nil || pairs[key] != value {
			t.Errorf("%q is %q: %v", key, pairs[key], err)
		}
	})
}
