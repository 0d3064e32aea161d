package control

import (
	"fmt"
	"sync"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routepb "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
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

// cohortProxy is the n-th sidecar of a namespace, one that takes virtual hosts apart from their
// tables unless that is narrow.
func cohortProxy(t *testing.T, namespace string, n int) *mesh.Proxy {
	t.Helper()
	p, err := mesh.ParseProxy(&corepb.Node{Id: fmt.Sprintf("sidecar~10.9.9.%d~app-%d.%s~%s.svc.cluster.local", n, n, namespace, namespace)})
	if err != nil {
		t.Fatal(err)
	}
	p.HostsApart = namespace != "narrow"
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
	ask(wellknown.VirtualHostType, []string{"80", "absent"})
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

// TestApart: a table and the virtual hosts that go apart from it are the whole table, patched or
// not.
func TestApart(t *testing.T) {
	const patches = `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: routes, namespace: istio-system}
spec:
  configPatches:
  - {applyTo: ROUTE_CONFIGURATION, patch: {operation: MERGE, value: {request_headers_to_remove: [x-gone]}}}
  - {applyTo: VIRTUAL_HOST, match: {routeConfiguration: {vhost: {name: "s1.example.com:80"}}}, patch: {operation: MERGE, value: {response_headers_to_remove: [x-gone]}}}
  - {applyTo: VIRTUAL_HOST, match: {routeConfiguration: {vhost: {name: "s2.example.com:80"}}}, patch: {operation: REMOVE}}
  - {applyTo: VIRTUAL_HOST, patch: {operation: ADD, value: {name: added/1, domains: [added.test]}}}
  - {applyTo: HTTP_ROUTE, match: {routeConfiguration: {vhost: {name: "s0.example.com:80"}}}, patch: {operation: MERGE, value: {decorator: {operation: patched}}}}
---
`
	for name, text := range map[string]string{"plain": scaleText(3, false), "patched": patches + scaleText(3, false)} {
		t.Run(name, func(t *testing.T) {
			s, p := passingSnapshot(t, text, nil), cohortProxy(t, "default", 1)
			alone := *p
			alone.HostsApart = false
			var want, got routepb.RouteConfiguration
			read := func(p *mesh.Proxy, url string, m proto.Message) {
				t.Helper()
				list, err := Generate(s, p, url, []string{"80"})
				if err != nil || len(list) != 1 {
					t.Fatalf("%d resources, %v", len(list), err)
				}
				if err := list[0].Body.UnmarshalTo(m); err != nil {
					t.Fatal(err)
				}
			}
			read(&alone, wellknown.RouteType, &want)
			read(p, wellknown.RouteType, &got)
			hosts, err := Generate(s, p, wellknown.VirtualHostType, []string{"80"})
			if err != nil || len(got.VirtualHosts) > 0 || got.Vhds == nil {
				t.Fatalf("the table is %v, %v", &got, err)
			}
			for _, h := range hosts {
				vh := &routepb.VirtualHost{}
				if err := h.Body.UnmarshalTo(vh); err != nil || h.Name != "80/"+vh.Name {
					t.Errorf("%s is %s, %v", h.Name, vh.Name, err)
				}
				got.VirtualHosts = append(got.VirtualHosts, vh)
				one, err := Generate(s, p, wellknown.VirtualHostType, []string{h.Name})
				if err != nil || len(one) != 1 || one[0].Version != h.Version {
					t.Errorf("%s alone: %v, %v", h.Name, one, err)
				}
			}
			if got.Vhds = nil; !proto.Equal(&got, &want) {
				t.Errorf("%v\nwant %v", &got, &want)
			}
		})
	}
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
