package compile

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	security "istio.io/api/security/v1beta1"

	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// onePolicy is an AuthorizationPolicy for the proxy of the cases.
func onePolicy(name, spec string) string {
	return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: foo}\nspec: {%s}\n---\n", name, spec)
}

// decisions is what a policy becomes, in short: its rules as JSON of a proxy's filters.
func decisions(t *testing.T, settings any, tcp bool, objects string) string {
	t.Helper()
	s := policySnapshot(t, objects, settings)
	a := newAuthorization(s, s.Scope(policyProxy()), policyProxy())
	steps := slices.Concat(a.ask, a.decide)
	if tcp {
		steps = a.connections
	}
	text, err := json.Marshal(envoyFilters(t, ir.HTTPConnectionManager{Filters: []ir.HTTPFilter{ir.Ask}, Ask: steps}))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestPolicies(t *testing.T) {
	aliases := map[string]any{"trustDomain": "td.new", "trustDomainAliases": []string{"td.old"}}
	for _, c := range []struct {
		name     string
		settings any
		tcp      bool
		objects  string
		want     []string // parts of the filters
		not      []string
	}{
		{name: "PO-021 a rule that allows requests allows no connection", tcp: true,
			objects: onePolicy("a", "rules: [{to: [{operation: {methods: [GET]}}]}]"), want: []string{`"rules":{}`}},
		{name: "PO-021 one that denies requests denies more connections", tcp: true,
			objects: onePolicy("a", `action: DENY, rules: [{to: [{operation: {methods: [GET], ports: ["80"]}}]}]`),
			want:    []string{`"action":"DENY"`, `"destinationPort":80`}, not: []string{":method"}},
		{name: "PO-021 PO-023 tokens are of requests", tcp: true,
			objects: onePolicy("a", "action: DENY, rules: [{from: [{source: {requestPrincipals: ['*']}}]}]"), want: []string{`"principals":[{"andIds":{"ids":[{"any":true}]}}]`}},
		{name: "PO-020 no rules deny nothing", objects: onePolicy("a", "rules: []"), want: []string{`"notRule":{"any":true}`}},
		{name: "PO-022 SX-022 a principal has the aliases of its trust domain", settings: aliases,
			objects: onePolicy("a", "rules: [{from: [{source: {principals: [td.old/ns/a/sa/b, cluster.local/ns/c/sa/d, '*/ns/e/sa/f', other/ns/g/sa/h]}}]}]"),
			want:    []string{"spiffe://td.new/ns/a/sa/b", "spiffe://td.old/ns/a/sa/b", "spiffe://td.new/ns/c/sa/d", "spiffe://td.old/ns/c/sa/d", `spiffe://.*/ns/e/sa/f`, "spiffe://other/ns/g/sa/h"},
			not:     []string{"cluster.local", "td.new/ns/g"}},
		{name: "SX-022 PO-022 a pattern of trust domains stays where it fits", settings: aliases,
			objects: onePolicy("a", "rules: [{when: [{key: source.principal, values: ['*.old/ns/a/sa/b']}]}]"),
			want:    []string{"spiffe://td.new/ns/a/sa/b", `spiffe://.*\\.old/ns/a/sa/b`}},
		{name: "PO-026 trust domains", settings: aliases,
			objects: onePolicy("a", "rules: [{from: [{source: {trustDomains: [td.old], notTrustDomains: ['x*']}}]}]"),
			want:    []string{`spiffe://td\\.new/.*`, `spiffe://td\\.old/.*`, `spiffe://x[^/]*/.*`}},
		{name: "PO-025 a service account is one of the policy's namespace, and dots are dots",
			objects: onePolicy("a", "rules: [{from: [{source: {serviceAccounts: [b.c]}}]}]"), want: []string{`spiffe://.+/ns/foo/(.+/|)sa/b\\.c(/.+)?`}},
		{name: "PO-024 PO-027 PO-028 PO-029 negations", objects: onePolicy("a", `action: DENY, rules: [{from: [{source: {notNamespaces: [ns], notIpBlocks: [10.0.0.0/8], notRemoteIpBlocks: ["::1"], notPrincipals: ["*"]}}]}]`),
			want: []string{`.*/ns/ns/.*`, `"directRemoteIp":{"addressPrefix":"10.0.0.0","prefixLen":8}`, `"remoteIp":{"addressPrefix":"::1","prefixLen":128}`, `"notId":{"orIds":{"ids":[{"authenticated":{"principalName":{"safeRegex":{"regex":".+"}}}}]}}`}},
		{name: "PO-030 PO-031 PO-033 negations of operations", objects: onePolicy("a", `rules: [{to: [{operation: {notHosts: ["*.a.test"], notPorts: ["80"], notMethods: [GET]}}]}]`),
			want: []string{`"suffix":".a.test"`, `"notRule":{"orRules":{"rules":[{"destinationPort":80}]}}`, `"exact":"GET"`}},
		{name: "PO-034 templates of paths", objects: onePolicy("a", `rules: [{to: [{operation: {paths: ["/a/{*}/b/{**}"]}}]}]`), want: []string{`"pathTemplate":"/a/*/b/**"`}},
		{name: "PO-035 one of a header's values", objects: onePolicy("a", `rules: [{when: [{key: "request.experimental.inline.headers[x-a]", values: [b.c]}]}]`), want: []string{`b\\.c`}},
		{name: "PO-035 a list that a filter tells", objects: onePolicy("a", `rules: [{when: [{key: "experimental.envoy.filters.a[b]", values: ["[c]"]}]}]`), want: []string{`"listMatch":{"oneOf":{"stringMatch":{"exact":"c"}}}`}},
		{name: "PO-019 connections are not asked about by HTTP", tcp: true, settings: httpProvider, objects: askedService + "---\n" + onePolicy("a", "action: CUSTOM, provider: {name: p}, rules: [{}]"), want: []string{"null"}},
		{name: "PO-019 MC-041 connections are asked about by gRPC", settings: grpcProvider, objects: askedService + "---\n" + onePolicy("a", "action: CUSTOM, provider: {name: p}, rules: [{}]"),
			want: []string{`"istio_ext_authz_"`, `"code":"ServiceUnavailable"`, `"clearRouteCache":true`}},
		{name: "MC-040 the body that a service is told", settings: bodyProvider, objects: askedService + "---\n" + onePolicy("a", "action: CUSTOM, provider: {name: p}, rules: [{}]"),
			want: []string{`"withRequestBody":{"allowPartialMessage":true,"maxRequestBytes":4096,"packAsBytes":true}`}},
		{name: "PO-019 a service that nobody has denies", settings: grpcProvider, objects: onePolicy("a", "action: CUSTOM, provider: {name: p}, rules: [{}]"), want: []string{"deny-due-to-bad-CUSTOM-action", `"action":"DENY"`}},
		{name: "AN-026 PO-036 what is neither true nor false is enforced", objects: strings.Replace(onePolicy("a", "action: DENY, rules: [{}]"), "namespace: foo", `namespace: foo, annotations: {istio.io/dry-run: "0"}`, 1), want: []string{`"rules":{"action":"DENY"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decisions(t, c.settings, c.tcp, c.objects)
			for _, w := range c.want {
				if !strings.Contains(got, w) {
					t.Errorf("no %s in %s", w, got)
				}
			}
			for _, w := range c.not {
				if strings.Contains(got, w) {
					t.Errorf("%s in %s", w, got)
				}
			}
		})
	}
}

var (
	httpProvider = providers(`{"envoyExtAuthzHttp":{"service":"my-custom-ext-authz.foo.svc.cluster.local","port":9000}}`)
	grpcProvider = providers(`{"envoyExtAuthzGrpc":{"service":"my-custom-ext-authz.foo.svc.cluster.local","port":9000,"clearRouteCache":true,"statusOnError":"503"}}`)
	bodyProvider = providers(`{"envoyExtAuthzGrpc":{"service":"my-custom-ext-authz.foo.svc.cluster.local","port":9000,"includeRequestBodyInCheck":{"maxRequestBytes":4096,"allowPartialMessage":true,"packAsBytes":true}}}`)
)

// providers is a mesh configuration with the provider p.
func providers(settings string) any {
	var p map[string]any
	if err := json.Unmarshal([]byte(settings), &p); err != nil {
		panic(err)
	}
	p["name"] = "p"
	return map[string]any{"extensionProviders": []any{p}}
}

// TestWithoutFilters has proxies that lack what a policy needs: nothing passes that the policy
// could refuse, and users are told.
func TestWithoutFilters(t *testing.T) {
	const ra = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: r, namespace: foo}\nspec: {jwtRules: [{issuer: i, jwks: '{\"keys\":[]}'}]}\n"
	for _, c := range []struct {
		name, objects           string
		has                     []string
		requests, connections   bool // are refused
		filtersHTTP, filtersTCP int
		told                    int
	}{
		{"PO-018 all filters", onePolicy("a", "{}"), []string{extRBAC, extNetworkRBAC, extJWT}, false, false, 1, 1, 0},
		{"PO-018 none", onePolicy("a", "rules: [{}]"), []string{"x"}, true, true, 0, 0, 1},
		{"PO-018 none for connections", onePolicy("a", "rules: [{}]"), []string{extRBAC}, false, true, 1, 0, 1},
		{"PO-018 what only tells is left out", onePolicy("a", "action: AUDIT, rules: [{}]"), []string{"x"}, false, false, 0, 0, 1},
		{"PO-005 no tokens", ra, []string{extRBAC, extNetworkRBAC}, true, false, 0, 0, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := policySnapshot(t, strings.TrimSuffix(strings.Replace(c.objects, "spec: {{}}", "spec: {}", 1), "---\n"), nil)
			p := policyProxy()
			p.Extensions = map[string]bool{}
			for _, x := range c.has {
				p.Extensions[x] = true
			}
			a := newAuthorization(s, s.Scope(p), p)
			if a.refuseRequests != c.requests || a.refuseConnections != c.connections || len(a.decide) != c.filtersHTTP || len(a.connections) != c.filtersTCP {
				t.Errorf("refuses requests %v, connections %v; %d and %d filters", a.refuseRequests, a.refuseConnections, len(a.decide), len(a.connections))
			}
			if told := PoliciesLeftOut(s, p); len(told) != c.told {
				t.Errorf("told %v", told)
			}
			for _, l := range Listeners(s, s.Scope(p), p) {
				for _, chain := range l.Chains {
					if l.Direction != ir.Inbound || strings.HasSuffix(chain.Name, "-blackhole") {
						continue
					}
					if chain.HTTP != nil && slices.Contains(chain.HTTP.Filters, ir.Refuse) != c.requests {
						t.Errorf("filters of requests: %v", chain.HTTP.Filters)
					}
					if chain.TCP != nil && (chain.TCP.Clusters[0].Name == "BlackHoleCluster") != c.connections {
						t.Errorf("connections go to %s", chain.TCP.Clusters[0].Name)
					}
				}
			}
		})
	}
}

// TestWhoIsSubject has policies of several namespaces and ways of selection.
func TestWhoIsSubject(t *testing.T) {
	policy := func(namespace, name, spec string) string {
		return fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: %s}\nspec: {%s}\n---\n", name, namespace, spec)
	}
	const target = "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: %s}]"
	objects := policy("foo", "all", "action: DENY, rules: [{}]") + policy("foo", "web", "selector: {matchLabels: {app: httpbin}}") +
		policy("foo", "other", "selector: {matchLabels: {app: other}}") + policy("istio-system", "root", "selector: {matchLabels: {app: httpbin}}") +
		policy("bar", "elsewhere", "rules: [{}]") + policy("foo", "gate", fmt.Sprintf(target, "gate")) + policy("foo", "gate2", fmt.Sprintf(target, "gate2"))
	s := policySnapshot(t, strings.TrimSuffix(objects, "---\n"), nil)
	gate := &mesh.Proxy{Type: mesh.Router, Namespace: "foo", Labels: map[string]string{"gateway.networking.k8s.io/gateway-name": "gate"}}
	for _, c := range []struct {
		name string
		p    *mesh.Proxy
		want string
	}{
		{"PO-016 labels, namespace and root namespace", policyProxy(), "root all web"},
		{"PO-017 a Gateway", gate, "all gate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, a := range s.AuthorizationPolicies(c.p) {
				got = append(got, a.Name)
			}
			if strings.Join(got, " ") != c.want {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

// TestGatewayConnections has a policy that allows nothing on the ways through a gateway.
func TestGatewayConnections(t *testing.T) {
	s := policySnapshot(t, strings.TrimSuffix(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gate, namespace: foo}
spec:
  selector: {istio: gate}
  servers:
  - {port: {number: 9000, name: tcp, protocol: TCP}, hosts: ["*"]}
  - {port: {number: 15443, name: tls, protocol: TLS}, tls: {mode: AUTO_PASSTHROUGH}, hosts: ["*.local"]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: v, namespace: foo}
spec: {hosts: ["*"], gateways: [gate], tcp: [{route: [{destination: {host: my-custom-ext-authz}}]}]}
---`+askedService+"---\n"+onePolicy("a", ""), "---\n"), nil)
	gate := &mesh.Proxy{Type: mesh.Router, Namespace: "foo", Labels: map[string]string{"istio": "gate"}, Addresses: []string{"10.1.1.1"}}
	t.Run("PO-021 connections are decided on, those between networks where they end", func(t *testing.T) {
		got := map[uint32]int{}
		for _, l := range Listeners(s, s.Scope(gate), gate) {
			for _, c := range l.Chains {
				got[l.Port] += len(c.Access)
			}
			if len(l.Chains) == 0 {
				t.Errorf("port %d leads nowhere", l.Port)
			}
		}
		if len(got) != 2 || got[9000] != 1 || got[15443] != 0 {
			t.Errorf("filters by port: %v", got)
		}
	})
}

// FuzzRules translates rules of any form: each time to the same, and only rules that allow may
// be left out.
func FuzzRules(f *testing.F) {
	seeds := []*security.Rule{
		{},
		{From: []*security.Rule_From{{Source: &security.Source{Principals: []string{"*", "a*", "*b", "td/ns/a/sa/b"}, NotNamespaces: []string{"a*"}, ServiceAccounts: []string{"a", "b/c"},
			RequestPrincipals: []string{"a/b", "*/c", "*", "x"}, IpBlocks: []string{"10.0.0.0/8", "::1"}, TrustDomains: []string{"*"}}}}},
		{To: []*security.Rule_To{{Operation: &security.Operation{Paths: []string{"/a/{*}", "/b*"}, Hosts: []string{"*"}, Ports: []string{"1", "x"}, NotMethods: []string{"GET"}}}}},
		{When: []*security.Condition{{Key: "request.headers[a]", Values: []string{"*"}}, {Key: "request.auth.claims[a][b]", NotValues: []string{"c"}}, {Key: "experimental.envoy.filters.a[b]", Values: []string{"[c]", ""}}}},
	}
	for _, r := range seeds {
		text, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		for action := range byte(3) {
			f.Add(text, action, action == 1)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, action byte, tcp bool) {
		r := &security.Rule{}
		if len(text) > 4096 || proto.Unmarshal(text, r) != nil {
			t.Skip()
		}
		translate := func() (ir.AccessPolicy, bool) {
			tr := &ruleTranslator{action: ir.AccessAction(action % 3), tcp: tcp, namespace: "n", trust: trustBundle{"td", "old"}}
			permissions, principals, ok := tr.policy(r)
			return ir.AccessPolicy{Name: "p", Permissions: permissions, Principals: principals}, ok
		}
		p, ok := translate()
		if !ok {
			if ir.AccessAction(action%3) != ir.Allow {
				t.Errorf("a rule that does not allow was left out: %v", r)
			}
			return
		}
		again, _ := translate()
		if !reflect.DeepEqual(p, again) {
			t.Error("two translations differ")
		}
		envoy.Listener(ir.Listener{Name: "l", Port: 1, Chains: []ir.FilterChain{{TCP: tcpTo("c", nil),
			Access: []ir.AccessFilter{{RBAC: &ir.RBAC{Rules: &ir.AccessRules{Policies: []ir.AccessPolicy{p}}}}}}}})
	})
}
