package agent

import (
	"os"
	"path/filepath"
	"testing"

	bootstrappb "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

func TestBootstrapOfAGatewayOfTheHost(t *testing.T) {
	raw, err := Bootstrap{Type: "router", Name: "gw", Namespace: "istio-system", Address: "127.0.2.1", Workload: "istio-ingressgateway",
		XDSSocket: "/s/xds.sock", Admin: 1, Health: 2, Metrics: 3, DNS: 4, Publish: "80=8080", Offset: 8000}.JSON()
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
	for key, want := range map[string]any{"LATEEN_PUBLISH": "80=8080", "LATEEN_PUBLISH_OFFSET": "8000", "LATEEN_RESOLVERS": "127.0.0.1:4"} {
		if meta[key] != want {
			t.Errorf("metadata %s is %v, want %v", key, meta[key], want)
		}
	}
	if want := "router~127.0.2.1~gw.istio-system~istio-system.svc.cluster.local"; b.Node.Id != want {
		t.Errorf("node id %q, want %q", b.Node.Id, want)
	}
	for _, l := range b.StaticResources.Listeners {
		if a := l.GetAddress().GetSocketAddress().GetAddress(); a != "127.0.0.1" {
			t.Errorf("listener %s on %s, want loopback", l.Name, a)
		}
	}
	if a := b.Admin.GetAddress().GetSocketAddress().GetAddress(); a != "127.0.0.1" {
		t.Errorf("admin on %s, want loopback", a)
	}
}

// `pilot-agent proxy router` in a pod: who it is comes from the environment and the
// downward API, and the pages listen on all of the pod's addresses.
func TestProxyRouter(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"labels": "app=\"istio-ingressgateway\"\nistio=\"ingressgateway\"\n", "outside.sock": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	run := func(args []string) error { got = args; return nil }
	cmd := func() error {
		c := Command(run)
		c.SetArgs([]string{"proxy", "router", "--domain", "istio-system.svc.cluster.local", "--configPath", dir, "--podInfo", dir, "--sockets", dir})
		return c.Execute()
	}
	if err := cmd(); err == nil {
		t.Error("without POD_NAME it must say what is missing")
	}
	t.Setenv("POD_NAME", "gw-1")
	t.Setenv("POD_NAMESPACE", "istio-system")
	t.Setenv("INSTANCE_IP", "10.244.0.9")
	if err := cmd(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, bootstrapName)
	if len(got) < 2 || got[0] != "-c" || got[1] != path || got[len(got)-1] != filepath.Join(dir, "outside.sock") {
		t.Errorf("arguments %q", got)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bootstrappb.Bootstrap
	if err := protojson.Unmarshal(text, &b); err != nil {
		t.Fatal(err)
	}
	if want := "router~10.244.0.9~gw-1.istio-system~istio-system.svc.cluster.local"; b.Node.Id != want || b.Node.Cluster != "istio-ingressgateway.istio-system" {
		t.Errorf("node %s of %s, want %s", b.Node.Id, b.Node.Cluster, want)
	}
	for _, l := range b.StaticResources.Listeners {
		if a := l.GetAddress().GetSocketAddress().GetAddress(); a != "0.0.0.0" {
			t.Errorf("listener %s on %s, want all addresses of the pod", l.Name, a)
		}
	}
}
