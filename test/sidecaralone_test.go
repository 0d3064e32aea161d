package test

import (
	"testing"

	"github.com/lateen-mesh/lateen/test/fixture"
)

// TestSidecarAlone: a sidecar whose control plane has been killed serves as before, and
// connections that were open stay so.
func TestSidecarAlone(t *testing.T) {
	for _, c := range readCases(t) {
		if c.Name != "sidecar" {
			continue
		}
		m := fixture.NewMesh(t, c, programs(t), []fixture.Peer{ours(t)})
		held := &fixture.Call{Name: "on a connection that is kept", To: "10.96.1.20:80", On: "held", Bytes: []byte("GET /status/200 HTTP/1.1\r\nHost: web\r\n\r\n"),
			Want: []fixture.Want{{Kind: "status", Text: "200"}, {Kind: "absent", Name: "connection"}}}
		check := func(t *testing.T, call *fixture.Call) {
			t.Helper()
			got, failures := m.Run(m.Gateways[0], call)
			for _, f := range failures {
				t.Errorf("%s: %s", call.Name, f)
			}
			if t.Failed() {
				t.Logf("got:\n%s", got)
			}
		}
		check(t, held)
		m.KillControl()
		check(t, held)
		for _, s := range c.Steps {
			t.Run(s.Call.Name, func(t *testing.T) { check(t, s.Call) })
		}
	}
}
