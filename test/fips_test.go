package test

import (
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/test/fixture"
)

// fips has Go's programs keep to FIPS 140-3, and fail where they would do anything else.
const fips = "GODEBUG=fips140=only"

// TestFIPS runs our proxy and our control plane so that nothing beside FIPS 140-3 is there to be
// used (SX-024): what serves and calls with TLS and verifies tokens does what it does without.
func TestFIPS(t *testing.T) {
	if testing.Short() {
		t.Skip("the same cases run without: not in short runs")
	}
	cases := []string{"mutual", "tls", "origination", "format-operators", "jwt-tokens", "lb-hash", "websocket"}
	for _, c := range readCases(t) {
		if !slices.Contains(cases, c.Name) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			plane, peer := programs(t), ours(t)
			plane.Env, peer.Env = append(plane.Env, fips), append(peer.Env, fips)
			m := fixture.NewMesh(t, c, plane, []fixture.Peer{peer})
			runSteps(t, m, c, func(t *testing.T, call *fixture.Call) {
				got, failures := m.Run(m.Gateways[0], call)
				for _, f := range failures {
					t.Errorf("%s.txtar calls %s", c.Name, f)
				}
				if t.Failed() {
					t.Logf("got:\n%s", got)
				}
			})
		})
	}
	t.Run("a program says so", func(t *testing.T) {
		for program, args := range map[string][]string{"lateen-proxy": {"--version"}, "lateen": {"--version"}, "pilot-agent": {"version"}} {
			cmd := exec.Command(binary(t, program), args...)
			cmd.Env = append(os.Environ(), fips)
			out, err := cmd.Output()
			if err != nil || !strings.Contains(string(out), "FIPS") {
				t.Errorf("%s: %q, %v", program, out, err)
			}
		}
	})
}
