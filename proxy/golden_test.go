package proxy

import (
	"io"
	"path/filepath"
	"strings"
	"testing"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"

	"github.com/lateen-mesh/lateen/test/material"
)

// absent are the parts that the original's configuration asks for in some scenarios and
// that this proxy refuses by name until it has them. One that is no longer refused
// fails the test, so that the list only shrinks.
var absent = []string{
	"envoy.extensions.filters.http.lua.v3.Lua: no such filter",
	"envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter): not supported",
}

// TestGoldenConfigurations compiles every listener and cluster that the original
// generated: each is accepted, or refused for a part that is known to be absent.
func TestGoldenConfigurations(t *testing.T) {
	root := material.Path(t, "golden")
	folders, err := filepath.Glob(filepath.Join(root, "*", "*", "lds.json"))
	if err != nil || len(folders) == 0 {
		t.Skip("shared acceptance material not present: golden/*/*/lds.json")
	}
	seen := map[string]bool{}
	for _, path := range folders {
		dir := filepath.Dir(path)
		name := strings.TrimPrefix(dir, root+"/")
		t.Run(name, func(t *testing.T) {
			s := validating(t)
			for _, m := range golden(t, filepath.Join(dir, "cds.json"), goldenTypes["cds"].fresh) {
				c := m.(*clusterpb.Cluster)
				verdict(t, seen, "cluster "+c.GetName(), s.clusters.AddStatic(c))
			}
			for _, m := range golden(t, path, goldenTypes["lds"].fresh) {
				l := m.(*listenerpb.Listener)
				c, err := s.listeners.Decode(l)
				verdict(t, seen, "listener "+l.GetName(), err)
				if err == nil {
					s.listeners.Discard(c)
				}
			}
		})
	}
	for _, x := range absent {
		if !seen[x] {
			t.Errorf("nothing is refused for this any more: %s", x)
		}
	}
}

func verdict(t *testing.T, seen map[string]bool, what string, err error) {
	t.Helper()
	if err == nil {
		return
	}
	for _, x := range absent {
		if strings.Contains(err.Error(), x) {
			seen[x] = true
			return
		}
	}
	t.Errorf("%s: %v", what, err)
}

// validating is a proxy that compiles and serves nothing.
func validating(t *testing.T) *server {
	t.Helper()
	b, err := Load("", `
node: {id: n, cluster: c}
dynamic_resources: {ads_config: {api_type: GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: xds-grpc}}]}}
`, false)
	if err != nil {
		t.Fatal(err)
	}
	o := DefaultOptions()
	o.Mode = "validate"
	s, err := newServer(b, o, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	return s
}
