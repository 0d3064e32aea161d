package compile

import (
	"testing"

	networking "istio.io/api/networking/v1alpha3"
)

// TestRedirectPort: the port that a scheme has by itself does not show in Location.
func TestRedirectPort(t *testing.T) {
	named := func(port uint32) *networking.HTTPRedirect {
		return &networking.HTTPRedirect{RedirectPort: &networking.HTTPRedirect_Port{Port: port}}
	}
	derived := func(from networking.HTTPRedirect_RedirectPortSelection) *networking.HTTPRedirect {
		return &networking.HTTPRedirect{RedirectPort: &networking.HTTPRedirect_DerivePort{DerivePort: from}}
	}
	for _, c := range []struct {
		name   string
		rule   *networking.HTTPRedirect
		scheme string
		port   uint32 // that clients call
		tls    bool
		want   uint32
	}{
		{"VS-035 another port", named(8443), "https", 80, false, 8443},
		{"443 of https", named(443), "https", 80, false, 0},
		{"443 of http", named(443), "http", 80, false, 443},
		{"80 of the request's scheme", named(80), "", 8080, false, 0},
		{"80 where the request came by TLS", named(80), "", 443, true, 80},
		{"VS-036 the request's port", derived(networking.HTTPRedirect_FROM_REQUEST_PORT), "", 8080, false, 8080},
		{"the request's port, which its scheme has", derived(networking.HTTPRedirect_FROM_REQUEST_PORT), "", 443, true, 0},
		{"the scheme's port", derived(networking.HTTPRedirect_FROM_PROTOCOL_DEFAULT), "https", 8080, false, 0},
		{"none", &networking.HTTPRedirect{}, "", 8080, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.rule.Scheme = c.scheme
			if got := (&ruleContext{port: c.port, tls: c.tls}).redirect(c.rule).Port; got != c.want {
				t.Errorf("port %d, want %d", got, c.want)
			}
		})
	}
}
