package lb

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// zoned makes n endpoints in each zone: zone 0 is "z0".
func zoned(counts ...int) (list []*endpoint.Endpoint) {
	for z, n := range counts {
		for i := range n {
			e := &endpoint.Endpoint{Address: fmt.Sprintf("10.0.%d.%d:80", z, i), Locality: endpoint.Locality{Zone: fmt.Sprintf("z%d", z)}}
			e.Weight.Store(1)
			list = append(list, e)
		}
	}
	return list
}

func TestZones(t *testing.T) {
	here := endpoint.Locality{Zone: "z0"}
	zone := Zone{Enabled: 100, MinSize: 1}
	for _, c := range []struct {
		name           string
		local, servers []int
		zone           Zone
		want           []float64 // percent by zone
	}{
		{"as many servers as proxies: all stays", []int{1, 1}, []int{2, 2}, zone, []float64{100, 0}},
		{"more servers than proxies: all stays", []int{1, 3}, []int{2, 2}, zone, []float64{100, 0}},
		{"half as many: half stays, the rest where there is room", []int{1, 1}, []int{1, 3}, zone, []float64{50, 50}},
		{"no server here: all goes where there is room", []int{2, 1, 1}, []int{0, 3, 1}, zone, []float64{0, 100, 0}},
		{"too few servers", []int{1, 1}, []int{2, 2}, Zone{Enabled: 100, MinSize: 6}, []float64{50, 50}},
		{"no proxy here", []int{0, 2}, []int{1, 1}, zone, []float64{50, 50}},
		{"switched off", []int{1, 1}, []int{2, 2}, Zone{MinSize: 1}, []float64{50, 50}},
		{"half of the picks", []int{1, 1}, []int{2, 2}, Zone{Enabled: 50, MinSize: 1}, []float64{75, 25}},
		{"told to stay", []int{1, 1}, []int{1, 3}, Zone{Enabled: 100, MinSize: 1, Direct: true, DirectSize: 1}, []float64{100, 0}},
		{"one zone only", []int{2}, []int{3}, zone, []float64{100}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := Set{Endpoints: zoned(c.servers...), Here: here, Local: zoned(c.local...), PanicThreshold: 50}
			got := make([]float64, len(c.servers))
			const n = 20000
			for e, k := range spread(New(Policy{Kind: Random, Zone: c.zone}, s), n) {
				var z int
				if _, err := fmt.Sscanf(e.Locality.Zone, "z%d", &z); err != nil {
					t.Fatal(err)
				}
				got[z] += 100 * float64(k) / n
			}
			for z, want := range c.want {
				if math.Abs(got[z]-want) > 2 {
					t.Errorf("%.1f %% in zone %d, want %.0f %% (%v)", got[z], z, want, got)
				}
			}
		})
	}
	t.Run("somebody is always chosen while somebody is well", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			counts := func(name string) []int { return rapid.SliceOfN(rapid.IntRange(0, 4), 3, 3).Draw(t, name) }
			list := zoned(counts("servers")...)
			well := 0
			for _, e := range list {
				if rapid.Bool().Draw(t, "well") {
					well++
				} else {
					e.Unhealthy.Store(endpoint.FailedOutlier)
				}
			}
			b := New(Policy{Kind: RoundRobin, Zone: zone}, Set{Endpoints: list, Here: here, Local: zoned(counts("proxies")...)})
			e := b.Pick(&Context{})
			if well > 0 && len(localitiesOf(list, here)) < 2 && e == nil {
				t.Fatal("nobody is chosen")
			}
			if e != nil && !e.Healthy() {
				t.Fatal("one that is not well is chosen without panic")
			}
		})
	})
}
