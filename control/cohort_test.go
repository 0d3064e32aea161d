package control

import (
	"fmt"
	"sync"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// cohortMesh is a small mesh at a generation.
func cohortMesh(t *testing.T, generation uint64) *mesh.Snapshot {
	t.Helper()
	objects, problems := config.DecodeIn(config.DefaultNamespace, "mesh.yaml", []byte(scaleText(3, false)))
	if config.HasErrors(problems) {
		t.Fatal(problems[0])
	}
	s := mesh.Build(config.NewSet(generation, objects), mesh.Options{})
	s.Generation = generation
	return s
}

// cohortProxy is the n-th sidecar of a namespace.
func cohortProxy(t *testing.T, namespace string, n int) *mesh.Proxy {
	t.Helper()
	p, err := mesh.ParseProxy(&corepb.Node{Id: fmt.Sprintf("sidecar~10.9.9.%d~app-%d.%s~%s.svc.cluster.local", n, n, namespace, namespace)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// given is what a view gives a sidecar that asks for everything.
func given(t *testing.T, v *view) map[string][]ads.Resource {
	t.Helper()
	all := map[string][]ads.Resource{}
	ask := func(url string, names []string) {
		list, err := v.Resources(url, names)
		if err != nil {
			t.Error(err)
		}
		all[url] = list
	}
	ask(wellknown.ClusterType, nil)
	ask(wellknown.ListenerType, nil)
	var clusters []string
	for _, r := range all[wellknown.ClusterType] {
		clusters = append(clusters, r.Name)
	}
	ask(wellknown.EndpointType, append(clusters, "outbound|80||unknown.example.com"))
	ask(wellknown.RouteType, []string{"80", "absent"})
	return all
}

// TestCohort: proxies of a kind are given what each would be given alone, and it is made once.
func TestCohort(t *testing.T) {
	s := cohortMesh(t, 1)
	var shared sharing
	var mu sync.Mutex
	var sets []map[string][]ads.Resource
	var all sync.WaitGroup
	for n := range 8 {
		v := newView(s, cohortProxy(t, "default", n+1), &shared)
		all.Go(func() {
			if n%2 == 1 { // several types are made at once
				if _, err := v.Resources(wellknown.ListenerType, nil); err != nil {
					t.Error(err)
				}
			}
			set := given(t, v)
			mu.Lock()
			defer mu.Unlock()
			sets = append(sets, set)
		})
	}
	all.Wait()
	alone := given(t, newView(s, cohortProxy(t, "default", 99), nil))
	for url, want := range alone {
		if len(want) == 0 {
			t.Errorf("%s: nothing is given", url)
		}
		for _, set := range sets {
			if got := set[url]; len(got) != len(want) {
				t.Errorf("%s: %d resources are given, %d alone", url, len(got), len(want))
				continue
			}
			for i, r := range set[url] {
				if r.Name != want[i].Name || !proto.Equal(r.Body, want[i].Body) {
					t.Errorf("%s %s is not what is given alone", url, r.Name)
				}
				if r.Body != sets[0][url][i].Body {
					t.Errorf("%s %s was made twice", url, r.Name)
				}
			}
		}
	}
	if len(shared.cohorts) != 1 {
		t.Errorf("%d cohorts", len(shared.cohorts))
	}
	t.Run("by name", func(t *testing.T) {
		some, err := newView(s, cohortProxy(t, "default", 1), &shared).Resources(wellknown.ClusterType, []string{"outbound|80||s1.example.com", "absent"})
		if err != nil || len(some) != 1 || some[0].Name != "outbound|80||s1.example.com" {
			t.Errorf("%v, %v", some, err)
		}
	})
}

// TestCohortsAreBounded: what was used last stays, and a newer mesh forgets the older.
func TestCohortsAreBounded(t *testing.T) {
	var shared sharing
	s := cohortMesh(t, 1)
	use := func(s *mesh.Snapshot, namespace string) *cohort {
		return shared.cohort(newView(s, cohortProxy(t, namespace, 1), &shared))
	}
	first, second := use(s, "a"), use(s, "b")
	for _, c := range []*cohort{first, second} {
		c.product(wellknown.ClusterType).bytes.Store(maxShared * 2 / 3)
	}
	if use(s, "a") != first {
		t.Error("what is in use is made anew")
	}
	use(s, "c")
	if use(s, "a") != first {
		t.Error("what was used last is forgotten")
	}
	if use(s, "b") == second {
		t.Error("there is more than fits")
	}
	next := cohortMesh(t, 2)
	if use(next, "a") == first || len(shared.cohorts) != 1 {
		t.Error("the newer mesh has cohorts of the older")
	}
	if use(s, "a") != nil {
		t.Error("the older mesh makes cohorts still")
	}
}
