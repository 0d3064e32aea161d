package main

import (
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/lateen-mesh/lateen/control"
)

// Variables of the environment, with the original's names, say what control.Options say.
func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		name, variable, value string
		holds                 func(control.Options) bool
	}{
		{"EN-049 PILOT_DEBOUNCE_AFTER", "PILOT_DEBOUNCE_AFTER", "250ms", func(o control.Options) bool { return o.Debounce.After == 250*time.Millisecond }},
		{"EN-049 PILOT_DEBOUNCE_MAX", "PILOT_DEBOUNCE_MAX", "3s", func(o control.Options) bool { return o.Debounce.Max == 3*time.Second }},
		{"EN-049 PILOT_SCOPE_GATEWAY_TO_NAMESPACE", "PILOT_SCOPE_GATEWAY_TO_NAMESPACE", "true", func(o control.Options) bool { return o.ScopeGateways }},
		{"EN-050 PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION", "PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION", "false", func(o control.Options) bool { return o.AutoRegistration.Off }},
		{"EN-050 PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS", "PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS", "false", func(o control.Options) bool { return o.AutoRegistration.Unchecked }},
		{"SE-025 PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", "PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", "30s", func(o control.Options) bool { return o.AutoRegistration.Grace == 30*time.Second }},
		{"EN-050 PILOT_JWT_ENABLE_REMOTE_JWKS", "PILOT_JWT_ENABLE_REMOTE_JWKS", "envoy", func(o control.Options) bool { return o.Tokens.Fetcher == "envoy" }},
		{"EN-050 PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", "5m", func(o control.Options) bool { return o.Tokens.Refresh == 5*time.Minute }},
		{"SX-021 BLOCKED_CIDRS_IN_JWKS_URIS", "BLOCKED_CIDRS_IN_JWKS_URIS", "10.0.0.0/8,127.0.0.0/8", func(o control.Options) bool { return len(o.Tokens.Blocked) == 2 }},
		{"PO-019 PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS", "PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS", "true", func(o control.Options) bool { return o.SeveralAuthorizers }},
		{"EN-052 VERIFY_CERTIFICATE_AT_CLIENT", "VERIFY_CERTIFICATE_AT_CLIENT", "false", func(o control.Options) bool { return o.Origination.Unverified }},
		{"DR-047 ENABLE_AUTO_SNI", "ENABLE_AUTO_SNI", "false", func(o control.Options) bool { return o.Origination.NoAutoSNI }},
		{"EN-052 ENABLE_DEBUG_ON_HTTP", "ENABLE_DEBUG_ON_HTTP", "false", func(o control.Options) bool { return o.NoDebug }},
		{"EN-052 REVISION", "REVISION", "canary", func(o control.Options) bool { return o.Revision == "canary" }},
		{"EN-051 DEFAULT_WORKLOAD_CERT_TTL", "DEFAULT_WORKLOAD_CERT_TTL", "1h", func(o control.Options) bool { return o.Authority.DefaultLife == time.Hour }},
		{"EN-051 MAX_WORKLOAD_CERT_TTL", "MAX_WORKLOAD_CERT_TTL", "48h", func(o control.Options) bool { return o.Authority.MaxLife == 48*time.Hour }},
		{"EN-051 CITADEL_SELF_SIGNED_CA_CERT_TTL", "CITADEL_SELF_SIGNED_CA_CERT_TTL", "8760h", func(o control.Options) bool { return o.Authority.Root.Life == 8760*time.Hour }},
		{"EN-051 CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE", "CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE", "4096", func(o control.Options) bool { return o.Authority.Root.RSABits == 4096 }},
		{"SX-005 ROOT_CA_DIR", "ROOT_CA_DIR", "/ca", func(o control.Options) bool { return o.Authority.Directory == "/ca" }},
		{"EN-052 TOKEN_AUDIENCES", "TOKEN_AUDIENCES", "istio-ca,mesh", func(o control.Options) bool { return len(o.Authority.Audiences) == 2 }},
		{"EN-052 JWT_RULE", "JWT_RULE", `{"issuer": "https://i", "jwksUri": "https://i/keys"}`, func(o control.Options) bool {
			return len(o.Authority.JWT) == 1 && o.Authority.JWT[0].Issuer == "https://i"
		}},
		{"SX-023 ENABLE_XDS_IDENTITY_CHECK", "ENABLE_XDS_IDENTITY_CHECK", "false", func(o control.Options) bool { return o.Authority.AnyNode }},
		{"EN-052 CLUSTER_ID", "CLUSTER_ID", "east", func(o control.Options) bool { return o.ClusterID == "east" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			read := func() control.Options {
				var f flags
				f.add(pflag.NewFlagSet("discovery", pflag.ContinueOnError))
				o, err := f.options(nil)
				if err != nil {
					t.Fatal(err)
				}
				return o
			}
			t.Setenv(c.variable, "")
			if c.holds(read()) {
				t.Error("it holds without the variable, too")
			}
			t.Setenv(c.variable, c.value)
			if !c.holds(read()) {
				t.Errorf("%s=%s has no effect", c.variable, c.value)
			}
		})
	}
}
