package explain

import (
	"os"
	"strings"
	"testing"
)

// TestAccess explains which policy lets a request pass or not (PO-016 PO-018 PO-005 PO-021).
func TestAccess(t *testing.T) {
	policy := func(kind, name, spec string) string {
		return "apiVersion: security.istio.io/v1\nkind: " + kind + "\nmetadata: {name: " + name + ", namespace: default}\nspec:\n  selector: {matchLabels: {app: reviews}}\n" + spec + "---\n"
	}
	const ofProductpage = "  rules:\n  - to: [{operation: {methods: [POST]}}]\n  - from: [{source: {principals: [cluster.local/ns/default/sa/bookinfo-productpage]}}]\n"
	const token = "  jwtRules: [{issuer: a.test, jwks: '{\"keys\":[{\"kty\":\"oct\",\"alg\":\"HS256\",\"k\":\"YSBrZXkgb2YgdGhlIGNhc2UsIGFuZCBvZiBub2JvZHk\"}]}'}]\n"
	for _, c := range []struct {
		name, from, policies string
		request              Request
		want                 []string
	}{
		{"a caller that is known", "productpage-v1", policy("AuthorizationPolicy", "web", ofProductpage), Request{},
			[]string{"policy          ns[default]-policy[web]-rule[1]: allows it", "by AuthorizationPolicy default/web rules[1] (policy.yaml:8)", "It reaches the program"}},
		{"another caller", "ratings-v1", policy("AuthorizationPolicy", "web", ofProductpage), Request{},
			[]string{"rule[0]: does not allow it", "by AuthorizationPolicy default/web rules[0] (policy.yaml:7)", "rule[1]: does not allow it", "there are policies that allow, none of which allows this: it is denied",
				"answer          403 rbac_access_denied_matched_policy[none]", "answers 403 Forbidden"}},
		{"what is denied", "productpage-v1", policy("AuthorizationPolicy", "shut", "  action: DENY\n  rules:\n  - to: [{operation: {paths: [/reviews/0]}}]\n"), Request{},
			[]string{"ns[default]-policy[shut]-rule[0]: denies it", "by AuthorizationPolicy default/shut rules[0] (policy.yaml:8)", "answers 403 Forbidden (rbac_access_denied_matched_policy[ns[default]-policy[shut]-rule[0]])"}},
		{"AN-026 PO-036 what is only tried out", "productpage-v1",
			strings.Replace(policy("AuthorizationPolicy", "shut", "  action: DENY\n  rules: [{}]\n"), "namespace: default", `namespace: default, annotations: {istio.io/dry-run: "true"}`, 1), Request{},
			[]string{"ns[default]-policy[shut]-rule[0]: matches and is not enforced: it is tried out", "It reaches the program"}},
		{"a broken policy", "productpage-v1", policy("AuthorizationPolicy", "shut", "  action: DENNY\n  rules: [{to: [{operation: {paths: [/other]}}]}]\n"), Request{},
			[]string{"ns[default]-policy[shut]-rule[0]: denies it", "answers 403 Forbidden"}},
		{"a token that is none", "productpage-v1", policy("RequestAuthentication", "tokens", token), Request{Headers: []string{"authorization: Bearer x"}},
			[]string{"RequestAuthentication default/tokens: asks for valid tokens", "(policy.yaml:6)", "answers 401 Unauthorized (jwt_authn_access_denied{Jwt_is_not_in_the_form_of_Header.Payload.Signature_with_two_dots_and_3_sections})"}},
		{"a service is asked", "productpage-v1", policy("AuthorizationPolicy", "ask", "  action: CUSTOM\n  provider: {name: none}\n  rules: [{}]\n"), Request{},
			[]string{"istio-ext-authz-none-ns[default]-policy[ask]-rule[0]-deny-due-to-bad-CUSTOM-action: denies it", "by AuthorizationPolicy default/ask rules[0]"}},
		{"a connection", "productpage-v1", policy("AuthorizationPolicy", "shut", "  action: DENY\n  rules:\n  - to: [{operation: {ports: [\"9080\"]}}]\n") +
			"apiVersion: v1\nkind: Service\nmetadata: {name: reviews, namespace: default}\nspec: {selector: {app: reviews}, ports: [{port: 9080, name: tcp}]}\n", Request{URL: "tcp://reviews:9080"},
			[]string{"inbound of reviews-", "ns[default]-policy[shut]-rule[0]: denies it", "a filter closes the connection", "The connection is closed at reviews-"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := withPolicies(t, c.policies)
			if c.request.URL == "" {
				c.request.URL = "http://reviews:9080/reviews/0"
			}
			got := text(t, m, c.from, c.request)
			rest := got
			for _, want := range c.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("no %q after what came before, in\n%s", want, got)
				}
				rest = after
			}
		})
	}
}

// withPolicies is Bookinfo with policies before it.
func withPolicies(t *testing.T, policies string) *Mesh {
	t.Helper()
	data, err := os.ReadFile("../samples/bookinfo/platform/kube/bookinfo.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, _ := FromFiles([]File{{Name: "policy.yaml", Text: []byte(policies)}, {Name: "bookinfo.yaml", Text: data}}, "default", nil)
	return m
}
