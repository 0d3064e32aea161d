package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	httppb "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/wellknown"
)

// later names what some input asks for and our proxy refuses until the issue that brings it.
var later = []string{
	"envoy.extensions.filters.http.grpc_web.v3.GrpcWeb: no such filter", "slow_start_config: not supported",
	"retry_budget: not supported", ".crl: not supported", "envoy.clusters.dynamic_forward_proxy is not supported",
}

// sidecarScenarios are those whose every listener and cluster a sidecar of ours takes.
var sidecarScenarios = []string{
	"s000-", "s001a-", "s001b-", "s003a-", "s003c-", "s003d-", "s003e-", "x04-", "x05-", "x30-", "x31-", "x37-", "x40-", "x41-", "x43-", "x46-", "x47-",
}

// TestOursAccepts: our proxy takes all that our control plane generates for it: every
// input that we have, for sidecars and gateways. Where an input asks for something that
// the proxy does not have yet, it says so by name.
func TestOursAccepts(t *testing.T) {
	pem := writePEMs(t)
	lateen := binary(t, "lateen-proxy")
	for _, source := range []struct {
		name  string
		views func(*testing.T) []stockView
	}{{"golden", goldenViews}, {"compile", compileViews}, {"cases", caseViews}} {
		t.Run(source.name, func(t *testing.T) {
			t.Parallel()
			for views := range slices.Chunk(source.views(t), 20) {
				if takes(t, lateen, pem, views...) == "" {
					continue
				}
				for _, v := range views {
					err := takes(t, lateen, pem, v)
					strict := source.name == "golden" && slices.ContainsFunc(sidecarScenarios, func(s string) bool { return strings.HasPrefix(v.name, s) })
					if err != "" && (strict || !slices.ContainsFunc(later, func(l string) bool { return strings.Contains(err, l) })) {
						t.Errorf("%s: %s", v.name, err)
					}
				}
			}
		})
	}
}

// takes returns what our proxy says against what is generated for all of the views, ""
// when it takes it.
func takes(t *testing.T, lateen string, pem pemFiles, views ...stockView) string {
	t.Helper()
	b := newStaticBootstrap(pem)
	for _, v := range views {
		v.node.ClientFeatures = []string{wellknown.HTTP1Feature}
		if err := b.add(v); err != nil {
			return err.Error()
		}
	}
	for _, c := range b.StaticResources.Clusters {
		if speaksHTTP2(t, c) {
			return "cluster " + c.Name + " speaks HTTP/2, which our proxy does not"
		}
	}
	return validateOurs(t, lateen, b)
}

// speaksHTTP2 reports that a cluster is told to speak HTTP/2, which a file of static
// clusters may do where discovery may not.
func speaksHTTP2(t *testing.T, c *clusterpb.Cluster) bool {
	t.Helper()
	var o httppb.HttpProtocolOptions
	for _, typed := range c.TypedExtensionProtocolOptions {
		if err := typed.UnmarshalTo(&o); err != nil {
			t.Fatal(err)
		}
	}
	return o.GetExplicitHttpConfig().GetHttp2ProtocolOptions() != nil
}

// validateOurs is validate for our proxy; it returns what the proxy says.
func validateOurs(t *testing.T, lateen string, b *staticBootstrap) string {
	t.Helper()
	data, err := proto.Marshal(b.Bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bootstrap.pb")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(lateen, "--mode", "validate", "-c", file, "-l", "error").CombinedOutput()
	if err == nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
