package control_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/test/ports"
	"github.com/lateen-mesh/lateen/wellknown"
)

// envoyFilter is an EnvoyFilter for gateways; its patches are lines of YAML.
func envoyFilter(name string, patches ...string) string {
	return "---\napiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: " + name + ", namespace: istio-system}\nspec:\n" +
		"  workloadSelector: {labels: {istio: ingressgateway}}\n  configPatches:\n  - " + strings.Join(patches, "\n  - ") + "\n"
}

const (
	firstBuffer = `{applyTo: HTTP_FILTER, match: {context: GATEWAY}, patch: {operation: INSERT_FIRST, value: {name: buffer, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 7}}}}`
	newCluster  = `{applyTo: CLUSTER, match: {context: GATEWAY}, patch: {operation: ADD, value: {name: new, type: STATIC}}}`
	newHost     = `{applyTo: VIRTUAL_HOST, match: {context: GATEWAY}, patch: {operation: ADD, value: {name: new, domains: [%]}}}`
	extension   = `{applyTo: EXTENSION_CONFIG, patch: {operation: ADD, value: {name: limit, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: 7}}}}`
	unknownType = `{applyTo: HTTP_FILTER, match: {context: GATEWAY}, patch: {operation: INSERT_FIRST, value: {name: x, typed_config: {"@type": type.googleapis.com/envoy.Nothing}}}}`
)

// A proxy is told of an EnvoyFilter by the types that it changes, and by no other.
func TestPatchesAreDelivered(t *testing.T) {
	p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": routes, "b.yaml": cluster}, nil)
	c := p.connect(wellknown.ClusterType, nil)
	got := map[string]string{}
	next := func(count int) []string {
		t.Helper()
		var types []string
		for range count {
			m := c.next("")
			got[m.TypeUrl] = text(t, m)
			types = append(types, m.TypeUrl)
		}
		slices.Sort(types)
		return types
	}
	next(1)
	for typeURL, name := range map[string]string{wellknown.ListenerType: "*", wellknown.RouteType: "http.80", wellknown.EndpointType: "outbound|80||b.example", wellknown.ExtensionType: "limit"} {
		c.ask(typeURL, name)
		next(1)
	}
	has(t, "ECDS of a name that nobody knows", "x"+got[wellknown.ExtensionType]+"x", "xx")
	for _, tc := range []struct {
		name, patch string
		types       []string
		want        string
	}{
		{"EX-003 HTTP_FILTER", firstBuffer, []string{wellknown.ListenerType}, `"httpFilters":[{"name":"buffer"`},
		{"EX-003 VIRTUAL_HOST", strings.Replace(newHost, "%", "new.test", 1), []string{wellknown.RouteType}, `"name":"new","domains":["new.test"]`},
		{"EX-003 CLUSTER", newCluster, []string{wellknown.ClusterType}, `"name":"new"`},
		{"EX-003 EXTENSION_CONFIG", extension, []string{wellknown.ExtensionType}, `"name":"limit"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p.write("filter.yaml", envoyFilter("f", tc.patch))
			if types := next(len(tc.types)); !slices.Equal(types, tc.types) {
				t.Fatalf("responses of %q, want %q", types, tc.types)
			}
			for _, typeURL := range tc.types {
				has(t, typeURL, got[typeURL], tc.want)
			}
			p.write("filter.yaml", envoyFilter("f", strings.Replace(unknownType, "HTTP_FILTER", "NETWORK_FILTER", 1))) // which has no effect
			if types := next(len(tc.types)); !slices.Equal(types, tc.types) {
				t.Fatalf("responses of %q when the patch is gone, want %q", types, tc.types)
			}
			if strings.Contains(got[tc.types[0]], tc.want) {
				t.Errorf("still there: %s", got[tc.types[0]])
			}
		})
	}
}

// What is wrong with a patch is told where it is written, for as long as it is.
func TestPatchProblems(t *testing.T) {
	p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": routes,
		"filter.yaml": envoyFilter("f", unknownType, strings.Replace(newHost, "%", "httpbin.org", 1), firstBuffer)}, nil)
	c := p.connect(wellknown.ListenerType, nil)
	has(t, "LDS", text(t, c.next("")), `"httpFilters":[{"name":"buffer"`)
	c.ask(wellknown.RouteType, "http.80")
	c.next("")
	place := filepath.Join(p.dir, "filter.yaml") + ":2"
	want := []control.Problem{
		{Place: place, Object: "EnvoyFilter istio-system/f", Field: "configPatches[0].patch.value", Severity: "error",
			Message: "the patch is left out: the type type.googleapis.com/envoy.Nothing is not known"},
		{Place: place, Object: "EnvoyFilter istio-system/f", Field: "configPatches[1]", Severity: "error",
			Message: "the patch is left out of http.80: domain httpbin.org would be in two virtual hosts, httpbin.org:80 and new"},
	}
	t.Run("EX-014 a type that nobody knows, and a patch that does not fit", func(t *testing.T) {
		if diff := cmp.Diff(want, p.server.Status().Problems); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("each is logged", func(t *testing.T) {
		for _, pr := range want {
			wait(t, func() bool { return strings.Contains(p.log.String(), pr.Message) })
		}
	})
	t.Run("what is mended is shown no more", func(t *testing.T) {
		p.write("filter.yaml", envoyFilter("f", strings.Replace(newHost, "%", "new.test", 1)))
		for m := c.next(""); m.TypeUrl != wellknown.RouteType; m = c.next("") {
		}
		if pr := p.server.Status().Problems; len(pr) > 0 {
			t.Errorf("problems %+v", pr)
		}
	})
	t.Run("a proxy that refuses what is patched names the object", func(t *testing.T) {
		p.write("filter.yaml", envoyFilter("f", firstBuffer))
		for m := c.next("no such filter: 0.0.0.0_80"); m.TypeUrl != wellknown.ListenerType; m = c.next("no such filter: 0.0.0.0_80") {
		}
		var refused []control.Refusal
		wait(t, func() bool {
			for _, proxy := range p.server.Status().Proxies {
				for _, r := range proxy.Refused {
					if r.Type == "LDS" {
						refused = append(refused, r)
					}
				}
			}
			return len(refused) > 0
		})
		if diff := cmp.Diff([]string{"EnvoyFilter istio-system/f"}, refused[0].Patched); diff != "" {
			t.Error(diff)
		}
	})
}

// A stock Envoy runs what a patch puts before its router: a script, and a limit.
func TestForeignEnvoyPatched(t *testing.T) {
	const script = `{applyTo: HTTP_FILTER, match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}},
    patch: {operation: INSERT_BEFORE, value: {name: envoy.filters.http.lua, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua,
    default_source_code: {inline_string: "function envoy_on_request(h) h:respond({[':status'] = '203'}, 'scripted') end"}}}}}`
	const limit = `{applyTo: HTTP_FILTER, match: {context: GATEWAY, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.router}}}}},
    patch: {operation: INSERT_BEFORE, value: {name: envoy.filters.http.local_ratelimit, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit,
    stat_prefix: limit, token_bucket: {max_tokens: 1, tokens_per_fill: 1, fill_interval: 3600s}, filter_enabled: {default_value: {numerator: 100}}, filter_enforced: {default_value: {numerator: 100}}}}}}`
	p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": routes}, nil)
	port := ports.One()
	startEnvoy(t, "DELTA_GRPC", filepath.Join(p.sockets, "grpc"), gatewayNode(fmt.Sprintf("80=%d", port)))
	answer := func(want string) {
		t.Helper()
		wait(t, func() bool {
			r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Host = "httpbin.org"
			got, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
			if err != nil {
				return false
			}
			defer got.Body.Close()
			body, _ := io.ReadAll(got.Body)
			return fmt.Sprint(got.StatusCode, " ", string(body)) == want
		})
	}
	answer("200 one")
	t.Run("WI-035 EX-008 a Lua filter before the router answers", func(t *testing.T) {
		p.write("filter.yaml", envoyFilter("f", script))
		answer("203 scripted")
	})
	t.Run("WI-017 WI-035 a local rate limit before the router answers", func(t *testing.T) {
		p.write("filter.yaml", envoyFilter("f", limit))
		answer("429 local_rate_limited")
	})
}
