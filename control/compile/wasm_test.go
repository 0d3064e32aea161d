package compile_test

import (
	"slices"
	"strings"
	"testing"

	wasmfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/mesh"
)

const extended = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: default}
spec: {selector: {istio: edge}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}, {port: {number: 81, name: http-81, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: last, namespace: default}
spec: {url: example.test/last, priority: 3, failStrategy: FAIL_OPEN}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: stats, namespace: istio-system}
spec: {url: "file:///lib/stats.wasm", phase: STATS, failStrategy: FAIL_OPEN}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: authz-low, namespace: istio-system}
spec: {url: example.test/authz, phase: AUTHZ, priority: 1}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: authz-high, namespace: default}
spec:
  url: https://example.test/authz.wasm
  sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
  phase: AUTHZ
  priority: 10
  pluginName: guard
  pluginConfig: {z: [1, true], a: {b: text}}
  vmConfig: {env: [{name: GREETING, value: hello}, {name: HOME, valueFrom: HOST}]}
---
apiVersion: extensions.istio.io/v1alpha1
kind: TrafficExtension
metadata: {name: script, namespace: default}
spec: {phase: AUTHN, selector: {matchLabels: {istio: edge}}, lua: {inlineCode: "function envoy_on_request(h) end"}, match: [{mode: CLIENT, ports: [{number: 80}]}]}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: incoming, namespace: default}
spec: {url: example.test/incoming, match: [{mode: SERVER}]}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: of-another, namespace: default}
spec: {url: example.test/x, selector: {matchLabels: {istio: other}}}
---
apiVersion: extensions.istio.io/v1alpha1
kind: WasmPlugin
metadata: {name: elsewhere, namespace: elsewhere}
spec: {url: example.test/x}
`

func extendedMesh(t *testing.T) *mesh.Snapshot {
	t.Helper()
	objects, problems := config.DecodeYAML("test.yaml", []byte(extended))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	return mesh.Build(config.NewSet(1, objects), mesh.Options{})
}

func edgeWith(t *testing.T, extensions ...string) *mesh.Proxy {
	t.Helper()
	p := compile.ProxyWith(t, "router~10.0.0.1~edge-1.default~default.svc.cluster.local", extensions...)
	p.Labels = map[string]string{"istio": "edge"}
	return p
}

// usersFilters are the filters of extensions on a port: what the object is called, and
// whether its settings come by themselves.
func usersFilters(t *testing.T, s *mesh.Snapshot, p *mesh.Proxy, port uint32) []string {
	t.Helper()
	var out []string
	for _, l := range compile.Listeners(s, s.Scope(p), p) {
		if l.Port != port {
			continue
		}
		h := &hcmv3.HttpConnectionManager{}
		chain := envoy.Listener(l).FilterChains[0]
		if err := chain.Filters[len(chain.Filters)-1].GetTypedConfig().UnmarshalTo(h); err != nil {
			t.Fatal(err)
		}
		for _, f := range h.HttpFilters {
			if _, name, ok := strings.Cut(f.Name, "/trafficextension/"); ok {
				how := "refuses"
				if f.GetConfigDiscovery() != nil {
					how = "asks"
				}
				out = append(out, strings.TrimSuffix(name, "~istio-translated-wasmplugin")+" "+how)
			}
		}
	}
	return out
}

func TestExtensions(t *testing.T) {
	s := extendedMesh(t)
	able := edgeWith(t, "envoy.filters.http.wasm", "envoy.wasm.runtime.v8", "envoy.filters.http.lua")
	for _, c := range []struct {
		name string
		p    *mesh.Proxy
		port uint32
		want []string
	}{
		{"EX-020 EX-025 phases and priorities", able, 80, []string{"default.script asks", "default.authz-high asks", "istio-system.authz-low asks", "istio-system.stats asks", "default.last asks"}},
		{"EX-023 another port", able, 81, []string{"default.authz-high asks", "istio-system.authz-low asks", "istio-system.stats asks", "default.last asks"}},
		{"EX-021 without an engine as failStrategy says", edgeWith(t, "envoy.filters.http.wasm"), 80, []string{"default.authz-high refuses", "istio-system.authz-low refuses"}},
		{"EX-021 without anything", edgeWith(t, "envoy.filters.http.router"), 81, []string{"default.authz-high refuses", "istio-system.authz-low refuses"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if diff := cmp.Diff(c.want, usersFilters(t, s, c.p, c.port)); diff != "" {
				t.Errorf("filters (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("EX-021 what a proxy goes without is told", func(t *testing.T) {
		var told []string
		for _, l := range compile.ExtensionsLeftOut(s, edgeWith(t, "envoy.filters.http.router")) {
			told = append(told, l.Object.Name+" "+l.Field)
		}
		slices.Sort(told)
		want := []string{"authz-high url", "authz-low url", "incoming url", "last url", "script lua", "stats url"}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if got := compile.ExtensionsLeftOut(s, able); len(got) != 0 {
			t.Errorf("of a proxy that has all: %v", got)
		}
	})
}

func TestModules(t *testing.T) {
	s := extendedMesh(t)
	p := edgeWith(t, "envoy.filters.http.wasm", "envoy.wasm.runtime.v8", "envoy.filters.http.lua")
	plugin := func(name string) *wasmv3.PluginConfig {
		t.Helper()
		full := "extensions.istio.io/trafficextension/" + name + "~istio-translated-wasmplugin"
		made := compile.Modules(s, p, []string{full})
		if len(made) != 1 {
			t.Fatalf("%s: %v", full, made)
		}
		x, config := envoy.Module(made[0]), &wasmfilterv3.Wasm{}
		if err := x.TypedConfig.UnmarshalTo(config); err != nil || x.Name != full || x.ValidateAll() != nil || config.ValidateAll() != nil {
			t.Fatalf("%s: %v, %v, %v", x.Name, err, x.ValidateAll(), config.ValidateAll())
		}
		return config.Config
	}
	t.Run("EX-017 URLs", func(t *testing.T) {
		for name, want := range map[string]string{
			"default.last": "oci://example.test/last", "default.authz-high": "https://example.test/authz.wasm",
		} {
			if got := plugin(name).GetVmConfig().GetCode().GetRemote().GetHttpUri().GetUri(); got != want {
				t.Errorf("%s: %q, want %q", name, got, want)
			}
		}
		if got := plugin("istio-system.stats").GetVmConfig().GetCode().GetLocal().GetFilename(); got != "/lib/stats.wasm" {
			t.Errorf("file %q", got)
		}
	})
	t.Run("EX-018 a checksum", func(t *testing.T) {
		if got := plugin("default.authz-high").GetVmConfig().GetCode().GetRemote().GetSha256(); !strings.HasPrefix(got, "0123456789") {
			t.Errorf("sum %q", got)
		}
	})
	t.Run("EX-019 name and settings", func(t *testing.T) {
		got, settings := plugin("default.authz-high"), &wrapperspb.StringValue{}
		if err := got.Configuration.UnmarshalTo(settings); err != nil || got.RootId != "guard" || settings.Value != `{"a":{"b":"text"},"z":[1,true]}` {
			t.Errorf("%v, root %q, settings %q", err, got.RootId, settings.Value)
		}
	})
	t.Run("EX-021 failure", func(t *testing.T) {
		if a, b := plugin("default.last").FailurePolicy, plugin("default.authz-high").FailurePolicy; a != wasmv3.FailurePolicy_FAIL_OPEN || b != wasmv3.FailurePolicy_FAIL_CLOSED {
			t.Errorf("%v, %v", a, b)
		}
	})
	t.Run("EX-022 environment", func(t *testing.T) {
		got := plugin("default.authz-high").GetVmConfig().GetEnvironmentVariables()
		if got.KeyValues["GREETING"] != "hello" || !slices.Equal(got.HostEnvKeys, []string{"HOME"}) {
			t.Errorf("%v", got)
		}
	})
	t.Run("EX-027 Lua", func(t *testing.T) {
		made := compile.Modules(s, p, []string{"extensions.istio.io/trafficextension/default.script"})
		if len(made) != 1 || !strings.HasPrefix(made[0].Lua, "function envoy_on_request") {
			t.Errorf("%v", made)
		}
	})
	t.Run("EX-017 nothing for a proxy that has no engine", func(t *testing.T) {
		if made := compile.Modules(s, edgeWith(t, "envoy.filters.http.router"), nil); len(made) != 0 {
			t.Errorf("%v", made)
		}
	})
}
