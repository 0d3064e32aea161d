package compile

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	meshconfig "istio.io/api/mesh/v1alpha1"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/test/material"
)

// askedService is what the providers of the cases name.
const askedService = `
apiVersion: v1
kind: Service
metadata: {name: my-custom-ext-authz, namespace: foo}
spec: {clusterIP: 10.0.0.9, ports: [{name: grpc, port: 9000}]}
`

// TestAuthorizationCases compares the filters of every recorded case with Istio's.
func TestAuthorizationCases(t *testing.T) {
	dir := material.Path(t, "data", "authz")
	var cases []struct {
		Name, Input, Provider string
		Output                []string
	}
	readYAML(t, filepath.Join(dir, "cases.yaml"), &cases)
	var providers map[string]any
	readYAML(t, filepath.Join(dir, "providers.yaml"), &providers)
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	for _, c := range cases {
		t.Run("PO-016 PO-018 PO-019 PO-020 PO-036 "+c.Name, func(t *testing.T) {
			s := policySnapshot(t, string(mustRead(t, filepath.Join(dir, c.Input)))+"\n---"+askedService, providers[c.Provider])
			a := newAuthorization(s, s.Scope(policyProxy()), policyProxy())
			steps := a.decide
			if c.Provider != "" {
				steps = a.ask
			}
			var want []any
			got := envoyFilters(t, ir.HTTPConnectionManager{Filters: []ir.HTTPFilter{ir.Ask}, Ask: steps})
			for _, file := range c.Output {
				want = append(want, filterOf(t, mustRead(t, filepath.Join(dir, file))))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("filters (-Istio's +ours):\n%s", diff)
			}
		})
	}
}

func readYAML(t *testing.T, file string, into any) {
	t.Helper()
	if err := yaml.Unmarshal(mustRead(t, file), into); err != nil {
		t.Fatal(err)
	}
}

// policyProxy has the labels that policies of the cases select.
func policyProxy() *mesh.Proxy {
	return &mesh.Proxy{Type: mesh.SidecarProxy, Namespace: "foo", Labels: map[string]string{"app": "httpbin", "version": "v1"}, Addresses: []string{"10.1.1.1"}}
}

// policySnapshot is a mesh of the objects, with a mesh configuration that need not be valid.
func policySnapshot(t testing.TB, objects string, settings any) *mesh.Snapshot {
	t.Helper()
	list, problems := config.DecodeYAML("objects.yaml", []byte(objects))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	mc := config.DefaultMeshConfig()
	if settings != nil {
		text, err := json.Marshal(settings)
		if err != nil {
			t.Fatal(err)
		}
		given := &meshconfig.MeshConfig{}
		if err := protojson.Unmarshal(text, given); err != nil {
			t.Fatal(err)
		}
		mc = proto.Clone(mc).(*meshconfig.MeshConfig)
		proto.Merge(mc, given)
	}
	return mesh.Build(config.NewSet(1, list), mesh.Options{MeshConfig: mc})
}

// envoyFilters are the HTTP filters of a connection manager as proxies get them, checked by
// Envoy's own rules.
func envoyFilters(t testing.TB, h ir.HTTPConnectionManager) []any {
	t.Helper()
	l := envoy.Listener(ir.Listener{Name: "l", Address: "0.0.0.0", Port: 80, Chains: []ir.FilterChain{{HTTP: &h}}})
	manager := &hcmv3.HttpConnectionManager{}
	if err := l.FilterChains[0].Filters[0].GetTypedConfig().UnmarshalTo(manager); err != nil {
		t.Fatal(err)
	}
	var out []any
	for _, f := range manager.HttpFilters {
		settings, err := f.GetTypedConfig().UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		if err := settings.(interface{ ValidateAll() error }).ValidateAll(); err != nil {
			t.Errorf("Envoy refuses it: %v", err)
		}
		text, err := protojson.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		var v any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// filterOf is a recorded filter in the form of envoyFilters.
func filterOf(t testing.TB, text []byte) any {
	t.Helper()
	data, err := yaml.YAMLToJSON(text)
	if err != nil {
		t.Fatal(err)
	}
	f := &hcmv3.HttpFilter{}
	if err := protojson.Unmarshal(data, f); err != nil {
		t.Fatal(fmt.Errorf("%w in %s", err, text))
	}
	if data, err = protojson.Marshal(f); err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	return v
}
