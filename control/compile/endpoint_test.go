package compile

import (
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/control/registry"
)

// Weights always add up to what a proxy can count, keep their order, and change
// only where they must.
func TestLightened(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var given []*registry.Endpoint
		var sum uint64
		for _, w := range rapid.SliceOf(rapid.Uint32()).Draw(t, "weights") {
			given = append(given, &registry.Endpoint{Weight: w})
			sum += uint64(max(w, 1))
		}
		got := lightened(given)
		var total uint64
		for i, e := range got {
			total += uint64(max(e.Weight, 1))
			if sum <= math.MaxUint32 && e.Weight != given[i].Weight {
				t.Fatalf("weight %d became %d though all add up to %d", given[i].Weight, e.Weight, sum)
			}
			for j := range got[:i] {
				if given[i].Weight < given[j].Weight && e.Weight > got[j].Weight {
					t.Fatalf("weights %d, %d became %d, %d", given[i].Weight, given[j].Weight, e.Weight, got[j].Weight)
				}
			}
		}
		if total > math.MaxUint32 {
			t.Fatalf("weights add up to %d", total)
		}
	})
}
