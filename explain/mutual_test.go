package explain

import (
	"os"
	"strings"
	"testing"
)

// TestMutual explains calls between workloads that have certificates.
func TestMutual(t *testing.T) {
	peers := func(spec string) string {
		return "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: p, namespace: default}\nspec: {" + spec + "}\n"
	}
	const rule = "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: reviews, namespace: default}\nspec: {host: reviews, trafficPolicy: {tls: {mode: %MODE%}}}\n"
	for _, c := range []struct {
		name, policy string
		want         []string
		without      string
	}{
		{"SX-010 both have a certificate", peers("mtls: {mode: PERMISSIVE}"),
			[]string{"outbound|9080||reviews", "inbound of reviews-", "by mutual TLS, with a certificate that both proxies are taken to have", "0.0.0.0_9080: yes", "It reaches the program"}, ""},
		{"PO-002 STRICT", peers("mtls: {mode: STRICT}"), []string{"inbound of reviews-", "by mutual TLS", "It reaches the program"}, ""},
		{"PO-002 DISABLE", peers("mtls: {mode: DISABLE}"), []string{"inbound of reviews-", "It reaches the program"}, "by mutual TLS"},
		{"PO-002 STRICT, and a rule that has the client speak plain text", peers("mtls: {mode: STRICT}") + strings.ReplaceAll(rule, "%MODE%", "DISABLE"),
			[]string{"inbound of reviews-", "no filter chain takes the connection: it is closed"}, "by mutual TLS"},
		{"DR-043 STRICT, and a rule that asks for what is done anyway", peers("mtls: {mode: STRICT}") + strings.ReplaceAll(rule, "%MODE%", "ISTIO_MUTUAL"),
			[]string{"inbound of reviews-", "by mutual TLS", "It reaches the program"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			data, err := os.ReadFile("../samples/bookinfo/platform/kube/bookinfo.yaml")
			if err != nil {
				t.Fatal(err)
			}
			m, _ := FromFiles([]File{{Name: "bookinfo.yaml", Text: data}, {Name: "policy.yaml", Text: []byte(c.policy)}}, "default", nil)
			got := text(t, m, "productpage-v1", Request{URL: "http://reviews:9080/reviews/0"})
			rest := got
			for _, want := range c.want {
				_, after, found := strings.Cut(rest, want)
				if !found {
					t.Fatalf("no %q after what came before, in\n%s", want, got)
				}
				rest = after
			}
			if c.without != "" && strings.Contains(got, c.without) {
				t.Errorf("%q in\n%s", c.without, got)
			}
		})
	}
}
