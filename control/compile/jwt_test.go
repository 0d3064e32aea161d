package compile

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

const issuers = `
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: two, namespace: foo}
spec:
  jwtRules:
  - {issuer: z.test, jwks: '{"keys":[]}', fromCookies: [c], spaceDelimitedClaims: [groups, scope]}
  - {issuer: "https://b.test", jwksUri: "http://keys.foo.svc.cluster.local:8080/jwks", timeout: 2s}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: one, namespace: istio-system}
spec: {jwtRules: [{issuer: "https://a.test/"}]}
---
apiVersion: v1
kind: Service
metadata: {name: keys, namespace: foo}
spec: {clusterIP: 10.0.0.8, ports: [{name: http, port: 8080}]}
`

// TestTokens looks at the filter that checks tokens, of several RequestAuthentications.
func TestTokens(t *testing.T) {
	fetched := mesh.Keys{{URL: "https://a.test/.well-known/openid-configuration", Discovery: true}: "A", {URL: "http://keys.foo.svc.cluster.local:8080/jwks"}: "B"}
	const remote = `{"httpUri":{"uri":"http://keys.foo.svc.cluster.local:8080/jwks","cluster":"outbound|8080||keys.foo.svc.cluster.local","timeout":"2s"},"cacheDuration":"300s","asyncFetch":{"fastListener":true}}`
	none := fmt.Sprintf(`{"inlineString":%q}`, noKeys)
	for _, c := range []struct {
		name   string
		remote mesh.RemoteKeys
		keys   mesh.Keys
		want   []string // the sources of keys, by issuer
	}{
		{"PO-007 EN-050 the control plane has fetched keys", mesh.KeysByControlPlane, fetched, []string{`{"inlineString":"A"}`, `{"inlineString":"B"}`, none}},
		{"PO-007 without keys no token is valid", mesh.KeysByControlPlane, nil, []string{none, none, none}},
		{"PO-007 PO-014 EN-050 proxies fetch what they have a cluster for", mesh.KeysByKnownProxies, fetched, []string{`{"inlineString":"A"}`, remote, none}},
		{"PO-007 EN-050 proxies alone fetch", mesh.KeysByProxies, nil, []string{none, remote, none}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := policySnapshot(t, issuers, nil)
			s.RemoteKeys, s.Keys = c.remote, c.keys
			rules := jwtRules(s, s.Scope(policyProxy()), policyProxy())
			filter := envoyFilters(t, ir.HTTPConnectionManager{Filters: []ir.HTTPFilter{ir.CheckTokens}, JWT: rules})[0].(map[string]any)["typedConfig"].(map[string]any)
			for i, issuer := range []string{"https://a.test/", "https://b.test", "z.test"} { // by name, whoever is older
				p := filter["providers"].(map[string]any)["origins-"+string(rune('0'+i))].(map[string]any)
				keys := p["localJwks"]
				if keys == nil {
					keys = p["remoteJwks"]
				}
				if got, want := keys, decodeJSON(t, c.want[i]); p["issuer"] != issuer || !equalJSON(t, got, want) {
					t.Errorf("%v: %v, want %s of %s", p["issuer"], got, c.want[i], issuer)
				}
			}
		})
	}
	t.Run("PO-004 PO-005 PO-010 PO-014 any one, or all that are there", func(t *testing.T) {
		s := policySnapshot(t, issuers, nil)
		text, err := json.Marshal(envoyFilters(t, ir.HTTPConnectionManager{Filters: []ir.HTTPFilter{ir.CheckTokens}, JWT: jwtRules(s, s.Scope(policyProxy()), policyProxy())}))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			`"requiresAny":{"requirements":[{"providerName":"origins-0"},{"providerName":"origins-1"},{"providerName":"origins-2"},{"requiresAll":{"requirements":[{"requiresAny":{"requirements":[{"providerName":"origins-0"},{"allowMissing":{}}]}}`,
			`"fromCookies":["c"]`, `"spaceDelimitedClaims":["groups","permission","scope"]`,
		} {
			if !strings.Contains(string(text), want) {
				t.Errorf("no %s in %s", want, text)
			}
		}
	})
}

func decodeJSON(t *testing.T, text string) (v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

func equalJSON(t *testing.T, a, b any) bool {
	t.Helper()
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	if errX != nil || errY != nil {
		t.Fatal(errX, errY)
	}
	return string(x) == string(y)
}

// TestClaimRoutes has routes that ask for claims: at gateways by what the filter tells, at
// sidecars never.
func TestClaimRoutes(t *testing.T) {
	s := policySnapshot(t, `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gate, namespace: foo}
spec: {selector: {istio: gate}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: foo}
spec:
  hosts: [a.test]
  gateways: [gate]
  http:
  - match: [{headers: {"@request.auth.claims.groups": {exact: admin}, "@request.auth.claims[a][b]": {}}, withoutHeaders: {"@request.auth.claims.c": {prefix: x}}}]
    directResponse: {status: 200}
  - directResponse: {status: 401}
`, nil)
	gate := &mesh.Proxy{Type: mesh.Router, Namespace: "foo", Labels: map[string]string{"istio": "gate"}, Addresses: []string{"10.1.1.1"}}
	t.Run("VS-016 PO-015 claims are looked up in the metadata of the filter", func(t *testing.T) {
		tables := Routes(s, s.Scope(gate), gate, "http.80")
		if len(tables) != 1 {
			t.Fatal("no routes")
		}
		text, err := protojson.Marshal(envoy.RouteConfiguration(*tables[0]).VirtualHosts[0].Routes[0].Match)
		if err != nil {
			t.Fatal(err)
		}
		const in = `{"filter":"envoy.filters.http.jwt_authn","path":[{"key":"payload"},`
		want := decodeJSON(t, `{"prefix":"/","caseSensitive":true,"dynamicMetadata":[`+
			in+`{"key":"groups"}],"value":{"orMatch":{"valueMatchers":[{"listMatch":{"oneOf":{"stringMatch":{"exact":"admin"}}}},{"stringMatch":{"exact":"admin"}}]}}},`+
			in+`{"key":"a"},{"key":"b"}],"value":{"orMatch":{"valueMatchers":[{"listMatch":{"oneOf":{"presentMatch":true}}},{"presentMatch":true}]}}},`+
			in+`{"key":"c"}],"value":{"orMatch":{"valueMatchers":[{"listMatch":{"oneOf":{"stringMatch":{"prefix":"x"}}}},{"stringMatch":{"prefix":"x"}}]}},"invert":true}]}`)
		if got := decodeJSON(t, string(text)); !equalJSON(t, got, want) {
			t.Errorf("got %s", text)
		}
	})
}
