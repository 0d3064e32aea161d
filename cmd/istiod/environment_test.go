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
		{"EN-052 ENABLE_DEBUG_ON_HTTP", "ENABLE_DEBUG_ON_HTTP", "false", func(o control.Options) bool { return o.NoDebug }},
		{"EN-052 REVISION", "REVISION", "canary", func(o control.Options) bool { return o.Revision == "canary" }},
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
