package compile

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/test/material"
)

// TestGoldenListeners compares listeners and routes with Istio's by meaning: the
// order of virtual hosts, and of filter chains that match different connections,
// says nothing. Our own key in route metadata is not compared.
func TestGoldenListeners(t *testing.T) {
	checkGolden(t, map[string]goldenKind{
		"lds": {form: byMeaning, generate: func(t testing.TB, s *mesh.Snapshot, p *mesh.Proxy) map[string]any {
			lds, _ := generateListeners(t, s, p)
			return lds
		}},
		"rds": {form: byMeaning, generate: func(t testing.TB, s *mesh.Snapshot, p *mesh.Proxy) map[string]any {
			_, rds := generateListeners(t, s, p)
			return rds
		}},
	})
}

// TestGoldenGateways names the scenarios of gateways that must be among those
// compared.
func TestGoldenGateways(t *testing.T) {
	all := goldenScenarios(t)
	for _, prefix := range []string{"s000", "s004a", "s004c", "s001d", "s001l", "x07", "x08", "x09", "x11", "x45"} {
		if !slices.ContainsFunc(all, func(sc scenario) bool { return strings.HasPrefix(sc.name, prefix+"-") && sc.proxies["router"] != nil }) {
			t.Errorf("scenario %s with a router is not there", prefix)
		}
	}
}

// TestGoldenSidecars names the scenarios of sidecars that must be among those compared.
func TestGoldenSidecars(t *testing.T) {
	all := goldenScenarios(t)
	for _, name := range []string{"s000", "s001a", "s001b", "s003a", "s003c", "s003d", "s003e", "x04", "x05", "x30", "x31", "x37", "x40", "x41", "x43", "x46", "x47"} {
		if !slices.ContainsFunc(all, func(sc scenario) bool { return strings.HasPrefix(sc.name, name+"-") && hasSidecar(sc) }) {
			t.Errorf("scenario %s with a sidecar is not there", name)
		}
	}
}

func hasSidecar(sc scenario) bool {
	for _, p := range sc.proxies {
		if p.Type == mesh.SidecarProxy {
			return true
		}
	}
	return false
}

// Scenario 53: before a Gateway leads anywhere the table of port 80 is exactly that
// of the seed, with the seed's own Gateway and without any.
func TestUnconfiguredGatewayTable(t *testing.T) {
	dir := material.Path(t, "scenarios", "53-ingress-unconfigured-404")
	var want []any
	if err := json.Unmarshal(mustRead(t, filepath.Join(dir, "route-http80-blackhole.json")), &want); err != nil {
		t.Fatal(err)
	}
	gateway, problems := config.DecodeYAML("gateway.yaml", mustRead(t, filepath.Join(dir, "default-gateway-1.5.yaml")))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	for name, objects := range map[string][]*config.Config{
		"GW-025 without a Gateway": nil, "GW-025 with the Gateway of an old installation": gateway,
	} {
		t.Run(name, func(t *testing.T) {
			s := mesh.Build(config.NewSet(1, objects), mesh.Options{})
			p := parseProxy(t, "router istio-system 10.9.9.9 istio=ingressgateway")
			_, rds := generateListeners(t, s, p)
			if diff := cmp.Diff(byName(want), rds); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// generateListeners returns the listeners of a proxy and the routes that they name;
// each must be valid by Envoy's own rules.
func generateListeners(t testing.TB, s *mesh.Snapshot, p *mesh.Proxy) (lds, rds map[string]any) {
	t.Helper()
	scope, patches := s.Scope(p), patchesOf(t, s, p)
	listeners := Listeners(s, scope, p)
	var ls []*listenerv3.Listener
	for _, l := range listeners {
		ls = append(ls, envoy.Listener(l))
	}
	ls = patches.Listeners(ls)
	for _, l := range ls {
		if err := l.ValidateAll(); err != nil {
			t.Errorf("listener %s: %v", l.Name, err)
		}
	}
	var rs []*routev3.RouteConfiguration
	for _, name := range routeNames(listeners) {
		c := Routes(s, scope, p, name)
		if len(c) == 0 {
			t.Errorf("no routes for %s", name)
			continue
		}
		m := patches.Routes(envoy.RouteConfiguration(*c[0]))
		if err := m.ValidateAll(); err != nil {
			t.Errorf("routes %s: %v", name, err)
		}
		rs = append(rs, m)
	}
	return jsonResources(t, ls), jsonResources(t, rs)
}

// patchesOf are those that select a proxy, all of which must fit.
func patchesOf(t testing.TB, s *mesh.Snapshot, p *mesh.Proxy) *envoy.Patches {
	t.Helper()
	patches := envoy.NewPatches(Patches(s, p), p.Type == mesh.Router)
	t.Cleanup(func() {
		for _, f := range patches.Flaws() {
			t.Errorf("%s %s: %s: %v", f.Origin.Name, f.Origin.Field, f.Resource, f.Err)
		}
	})
	return patches
}

// byMeaning puts resources into a form in which what may be in any order is keyed
// rather than listed.
func byMeaning(resources map[string]any) map[string]any {
	for _, r := range resources {
		fields := r.(map[string]any)
		if chains, ok := fields["filterChains"].([]any); ok {
			keyed := map[string]any{}
			for _, c := range chains {
				keyed[chainKey(c, keyed)] = c
			}
			fields["filterChains"] = keyed
		}
		if hosts, ok := fields["virtualHosts"].([]any); ok {
			named := map[string]any{}
			for _, h := range hosts {
				named[h.(map[string]any)["name"].(string)] = h
			}
			fields["virtualHosts"] = named
		}
		dropOwnKey(fields)
	}
	return resources
}

// chainKey says which connections a chain takes; of two alike the second has a number.
func chainKey(chain any, taken map[string]any) string {
	match, _ := at(chain, "filterChainMatch").(map[string]any)
	key := "chain"
	for _, k := range slices.Sorted(maps.Keys(match)) {
		key += fmt.Sprintf("/%s=%v", k, match[k])
	}
	key = strings.NewReplacer(" ", ",", ".", "_").Replace(key)
	for i := 2; taken[key] != nil; i++ {
		key = fmt.Sprintf("%s#%d", strings.TrimRight(key, "#0123456789"), i)
	}
	return key
}

func at(v any, path ...string) any {
	for _, p := range path {
		m, _ := v.(map[string]any)
		v = m[p]
	}
	return v
}

// dropOwnKey removes filter_metadata["lateen"] wherever it is.
func dropOwnKey(v any) {
	switch v := v.(type) {
	case map[string]any:
		if m, ok := v["filterMetadata"].(map[string]any); ok {
			delete(m, "lateen")
		}
		for _, x := range v {
			dropOwnKey(x)
		}
	case []any:
		for _, x := range v {
			dropOwnKey(x)
		}
	}
}

// routeNames are the RDS names that the proxy's listeners refer to, in the order
// in which they first occur.
func routeNames(listeners []ir.Listener) []string {
	var out []string
	seen := map[string]bool{}
	add := func(c *ir.FilterChain) {
		if c != nil && c.HTTP != nil && c.HTTP.Routes == nil && !seen[c.HTTP.RouteName] {
			seen[c.HTTP.RouteName] = true
			out = append(out, c.HTTP.RouteName)
		}
	}
	for _, l := range listeners {
		for i := range l.Chains {
			add(&l.Chains[i])
		}
		add(l.DefaultChain)
	}
	return out
}
