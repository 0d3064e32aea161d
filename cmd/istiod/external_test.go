package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestExternalAuthority(t *testing.T) {
	for _, tt := range []struct{ name, external, signer, want, wrong string }{
		{"nobody else signs", "", "", "", ""},
		{"a signer that nobody is to ask", "", "example.com/mesh", "", ""},
		{"a signer of the API", "ISTIOD_RA_KUBERNETES_API", "example.com/mesh", "example.com/mesh", ""},
		{"a signer without a name", "ISTIOD_RA_KUBERNETES_API", "", "", "K8S_SIGNER"},
		{"another kind", "ISTIOD_RA_ISTIO_API", "", "", "EXTERNAL_CA"},
	} {
		t.Run("SX-007 "+tt.name, func(t *testing.T) {
			t.Setenv("EXTERNAL_CA", tt.external)
			t.Setenv("K8S_SIGNER", tt.signer)
			var f flags
			f.add(pflag.NewFlagSet("discovery", pflag.ContinueOnError))
			o, err := f.options(nil)
			if o.Authority.Signer != tt.want || (err != nil) != (tt.wrong != "") || err != nil && !strings.Contains(err.Error(), tt.wrong) {
				t.Errorf("%q, %v", o.Authority.Signer, err)
			}
		})
	}
}
