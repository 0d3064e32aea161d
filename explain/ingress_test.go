package explain

import (
	"strings"
	"testing"
)

// TestIngress: an Ingress has a gateway as a Gateway object has one.
func TestIngress(t *testing.T) {
	m := bookinfo(t, "platform/kube/bookinfo-ingress")
	for url, want := range map[string]string{
		"http://any.test/productpage": "It reaches the program in productpage-v1.default.",
		"http://any.test/static/x":    "It reaches the program in productpage-v1.default.",
		"http://any.test/elsewhere":   "answers 404 Not Found",
	} {
		t.Run("KC-003 "+url, func(t *testing.T) {
			if got := text(t, m, "istio-ingressgateway.istio-system", Request{URL: url}); !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		})
	}
}
