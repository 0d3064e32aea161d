package mesh

import (
	"slices"
	"testing"

	networking "istio.io/api/networking/v1alpha3"
	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/control/config"
)

// TestHostIndex holds Candidates against going through the list.
func TestHostIndex(t *testing.T) {
	host := rapid.SampledFrom([]string{"a.x.test", "b.x.test", "x.test", "c.test", "*.x.test", "*.test", "*"})
	rapid.Check(t, func(t *rapid.T) {
		var list []*VirtualService
		for _, hosts := range rapid.SliceOfN(rapid.SliceOfN(host, 1, 3), 0, 6).Draw(t, "services") {
			list = append(list, &VirtualService{Spec: &networking.VirtualService{Hosts: hosts}})
		}
		asked := rapid.SliceOfN(host, 1, 3).Draw(t, "asked")
		got := IndexHosts(list).Candidates(asked...)
		place := -1
		for _, v := range got {
			if i := slices.Index(list, v); i <= place {
				t.Fatalf("out of order or twice: %v", v.Spec.Hosts)
			} else {
				place = i
			}
		}
		for _, v := range list {
			overlaps, wild := false, slices.ContainsFunc(slices.Concat(v.Spec.Hosts, asked), isWildcard)
			for _, a := range asked {
				overlaps = overlaps || slices.ContainsFunc(v.Spec.Hosts, func(h string) bool { return config.HostsOverlap(h, a) })
			}
			found := slices.Contains(got, v)
			if overlaps && !found || found && !overlaps && !wild {
				t.Fatalf("%v among the candidates for %v: %t, want %t", v.Spec.Hosts, asked, found, overlaps)
			}
		}
	})
}
