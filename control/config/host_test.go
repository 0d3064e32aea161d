package config_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/control/config"
)

func TestHosts(t *testing.T) {
	for _, tc := range []struct {
		a, b          string
		match, within bool // a within b
	}{
		{"a.test", "a.test", true, true},
		{"a.test", "b.test", false, false},
		{"a.test", "*", true, true},
		{"*", "a.test", true, false},
		{"a.test", "*.test", true, true},
		{"*.a.test", "*.test", true, true},
		{"*.test", "*.a.test", true, false},
		{"test", "*.test", false, false},
		{"*.a.test", "*.b.test", false, false},
	} {
		if config.HostsOverlap(tc.a, tc.b) != tc.match || config.HostWithin(tc.a, tc.b) != tc.within {
			t.Errorf("%s and %s: match %v, within %v", tc.a, tc.b, config.HostsOverlap(tc.a, tc.b), config.HostWithin(tc.a, tc.b))
		}
	}
}

// What is within a host matches it, and matching has no direction.
func TestHostProperties(t *testing.T) {
	host := rapid.StringMatching(`(\*|(\*\.)?[ab](\.[ab]){0,3})`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := host.Draw(t, "a"), host.Draw(t, "b")
		if config.HostsOverlap(a, b) != config.HostsOverlap(b, a) || config.HostWithin(a, b) && !config.HostsOverlap(a, b) {
			t.Fatalf("%s, %s", a, b)
		}
	})
}
