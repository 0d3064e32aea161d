package stock

import (
	"testing"
)

// TestRecorded has a real Envoy take what is generated for every scenario of golden/, as
// each of the proxies that the scenario was recorded for.
func TestRecorded(t *testing.T) {
	envoyPath(t)
	visit(t, recorded(t, newPair(t)))
}

// TestWritten has a sidecar and two gateways take every file of the samples and scenarios.
func TestWritten(t *testing.T) {
	if testing.Short() {
		t.Skip("takes ten seconds: run without -short")
	}
	envoyPath(t)
	visit(t, written(t, newPair(t)))
}

// visit has one Envoy for each tour take its configurations in turn. It begins each with
// what the last has left, so that the ways between them are taken too.
func visit(t *testing.T, tours []*tour) {
	for i, w := range tours {
		for _, whole := range []bool{false, true} {
			if !*both && whole != (i%2 == 1) {
				continue
			}
			t.Run("EN-057 "+w.title(whole), func(t *testing.T) {
				t.Parallel()
				p := start(t, w.stops[0])
				e := p.envoy(w.node, whole)
				for n, stop := range w.stops {
					if !t.Run(stop.name, func(t *testing.T) {
						if n > 0 {
							p.put(stop)
						}
						e.holds(t)
						if e.active(t) == 0 {
							t.Error("no listener is at work")
						}
					}) {
						break // what follows would tell of this
					}
				}
			})
		}
	}
}
