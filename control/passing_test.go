package control

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// passingMesh is a mesh of few services with all that endpoints can stand in: identities in
// clusters, names and listeners of a headless Service, clusters that resolve names, what a
// workload serves.
const passingMesh = `
apiVersion: v1
kind: Service
metadata: {name: crowd}
spec: {clusterIP: None, selector: {app: crowd}, ports: [{name: tcp, port: 7000}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: crowd-1, labels: {kubernetes.io/service-name: crowd}}
addressType: IPv4
endpoints: [{addresses: [10.1.0.1]}]
ports: [{name: tcp, port: 7000}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: named}
spec:
  hosts: [named.example.com]
  resolution: DNS
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: a.example.com}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: own}
spec:
  hosts: [own.example.com]
  addresses: [10.2.0.1]
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints: [{address: 10.9.9.1, serviceAccount: own}, {address: 10.9.9.2, serviceAccount: own}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: chosen}
spec:
  hosts: [chosen.example.com]
  addresses: [10.2.0.2]
  resolution: STATIC
  workloadSelector: {labels: {app: chosen}}
  ports: [{number: 80, name: http, protocol: HTTP}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: chosen-1}
spec: {address: 10.3.0.1, labels: {app: chosen}}
---
`

// narrowed has the proxies of another namespace call what a VirtualService routes to.
const narrowed = `
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: narrow}
spec: {egress: [{hosts: ["./*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: away, namespace: narrow}
spec:
  hosts: [away.example.com]
  http:
  - route: [{destination: {host: s2.example.com}}]
---
`

// A passing is a change of the mesh, and the types of which nothing is made again for a
// proxy that has them all.
type passing struct {
	name     string
	old, new string
	stays    []string
	subjects string
}

var passings = []passing{
	{"an endpoint that is new", "  - {address: 10.100.1.1,", "  - {address: 10.77.0.1}\n  - {address: 10.100.1.1,",
		[]string{wellknown.ClusterType, wellknown.ListenerType, wellknown.RouteType}, "s1.example.com"},
	{"an endpoint of other labels", "{address: 10.100.1.1, labels: {version: v0}}", "{address: 10.100.1.1, labels: {version: v1}}",
		[]string{wellknown.ClusterType, wellknown.ListenerType, wellknown.RouteType}, "s1.example.com"},
	{"a workload that a ServiceEntry selects", "address: 10.3.0.1", "address: 10.3.0.2",
		[]string{wellknown.ClusterType, wellknown.ListenerType, wellknown.RouteType}, "chosen.example.com"},
	{"an endpoint of another identity", "{address: 10.9.9.2, serviceAccount: own}", "{address: 10.9.9.2, serviceAccount: other}", nil, ""},
	{"an endpoint of a headless Service", "addresses: [10.1.0.1]", "addresses: [10.1.0.2]", nil, ""},
	{"a name that is resolved", "address: a.example.com", "address: b.example.com", nil, ""},
	{"what a proxy serves itself", "{address: 10.9.9.1, serviceAccount: own}, ", "", nil, "own.example.com"},
	{"a port", "{number: 9000, name: tcp, protocol: TCP}", "{number: 9001, name: tcp, protocol: TCP}", nil, ""},
	{"a route", "prefix: /v1", "prefix: /v2", []string{wellknown.ClusterType, wellknown.ListenerType, wellknown.RouteType}, ""},
	{"a route to a service that no host of the Sidecar names", "route: [{destination: {host: s2.example.com}}]", "route: [{destination: {host: s0.example.com}}]", nil, ""},
	{"a rule of clusters", "subsets: [{name: v0,", "trafficPolicy: {tls: {mode: SIMPLE}}\n  subsets: [{name: v0,", nil, ""},
}

func passingSnapshot(t *testing.T, text string, old *mesh.Snapshot) *mesh.Snapshot {
	t.Helper()
	objects, problems := config.DecodeIn(config.DefaultNamespace, "mesh.yaml", []byte(text))
	if config.HasErrors(problems) {
		t.Fatal(problems[0])
	}
	generation := uint64(1)
	if old != nil { // what did not change stays the object that it was
		generation = old.Generation + 1
		for i, o := range objects {
			before := old.Config.Get(o.Kind, o.Namespace, o.Name)
			if o.Source.Line = 0; before != nil && before.Equal(o) {
				objects[i] = before
			}
		}
	} else {
		for _, o := range objects {
			o.Source.Line = 0
		}
	}
	s := mesh.Next(old, config.NewSet(generation, objects), mesh.Options{})
	s.Generation = generation
	return s
}

// TestPassedOn: after each change, and the change back, proxies are given what a control plane
// that has just started gives, and nothing is made again that stays.
func TestPassedOn(t *testing.T) {
	plain := passingMesh + scaleText(3, false)
	for _, c := range passings {
		for name, before := range map[string]string{"": plain, " where a Sidecar is in force": narrowed + plain} {
			after := strings.Replace(before, c.old, c.new, 1)
			if after == before && name != "" {
				t.Fatalf("%s: nothing differs", c.name)
			}
			t.Run(c.name+name, func(t *testing.T) { passOn(t, c, before, after) })
		}
	}
}

func passOn(t *testing.T, c passing, before, after string) {
	var shared sharing
	old := passingSnapshot(t, before, nil)
	views := func(s *mesh.Snapshot, shared *sharing) (all []*view) {
		for n, namespace := range []string{"default", "default", "narrow"} {
			all = append(all, newView(s, cohortProxy(t, namespace, n+1), shared))
		}
		return all
	}
	first := given(t, views(old, &shared)[1])
	given(t, views(old, &shared)[0])
	given(t, views(old, &shared)[2])
	next := passingSnapshot(t, after, old)
	change := difference(old, next, differing(old, next))
	shared.move(next, change)
	if got := strings.Join(change.Subjects, " "); got != c.subjects {
		t.Errorf("the change is about %q, want %q", got, c.subjects)
	}
	fresh := views(passingSnapshot(t, after, nil), nil)
	for i, v := range views(next, &shared) {
		sameGiven(t, given(t, v), given(t, fresh[i]))
	}
	for _, url := range c.stays {
		if now := given(t, views(next, &shared)[1])[url]; &now[0] != &first[url][0] && url != wellknown.RouteType || now[0].Body != first[url][0].Body {
			t.Errorf("%s is made again", url)
		}
	}
	back := passingSnapshot(t, before, next)
	shared.move(back, difference(next, back, differing(next, back)))
	sameGiven(t, given(t, views(back, &shared)[1]), first)
}

// TestPassedOnOverSteps: a proxy that was busy for some generations gets what they come to,
// and one that was busy for too long gets all that made anew.
func TestPassedOnOverSteps(t *testing.T) {
	text := func(n int) string {
		return strings.Replace(scaleText(3, false), "10.100.1.1,", fmt.Sprintf("10.88.0.%d,", n), 1)
	}
	for _, steps := range []int{1, 3, maxSteps, maxSteps + 1} {
		t.Run(fmt.Sprint(steps), func(t *testing.T) {
			var shared sharing
			s := passingSnapshot(t, text(0), nil)
			first := given(t, newView(s, cohortProxy(t, "default", 1), &shared))
			for n := range steps {
				next := passingSnapshot(t, text(n+1), s)
				shared.move(next, difference(s, next, differing(s, next)))
				s = next
			}
			now := given(t, newView(s, cohortProxy(t, "default", 1), &shared))
			sameGiven(t, now, given(t, newView(s, cohortProxy(t, "default", 1), nil)))
			if stays := &now[wellknown.ClusterType][0] == &first[wellknown.ClusterType][0]; stays != (steps <= maxSteps) {
				t.Errorf("clusters stay: %t", stays)
			}
			if len(shared.steps) > maxSteps {
				t.Errorf("%d steps are kept", len(shared.steps))
			}
		})
	}
}

func sameGiven(t *testing.T, got, want map[string][]ads.Resource) {
	t.Helper()
	for url, list := range want {
		if !slices.EqualFunc(got[url], list, func(a, b ads.Resource) bool {
			return a.Name == b.Name && a.Version == b.Version && proto.Equal(a.Body, b.Body)
		}) {
			t.Errorf("%s: %s, want %s", url, versions(got[url]), versions(list))
		}
	}
}

func versions(list []ads.Resource) string {
	var b strings.Builder
	for _, r := range list {
		fmt.Fprintf(&b, "%s@%s ", r.Name, r.Version)
	}
	return b.String()
}

// TestReplicas: control planes of the same configuration give the same bytes under the same
// versions, whichever way they have come to it; a proxy that moves from one to another has
// everything already.
func TestReplicas(t *testing.T) {
	text := narrowed + passingMesh + scaleText(20, false)
	proxies := []*mesh.Proxy{cohortProxy(t, "default", 1), cohortProxy(t, "default", 9), cohortProxy(t, "narrow", 3)}
	began := passingSnapshot(t, passingMesh, nil)
	var first []map[string][]ads.Resource
	for _, s := range []*mesh.Snapshot{passingSnapshot(t, text, nil), passingSnapshot(t, text, nil), passingSnapshot(t, text, began)} {
		var shared sharing
		for i, p := range proxies {
			got := given(t, newView(s, p, &shared))
			if i == len(first) {
				first = append(first, got)
			}
			sameGiven(t, got, first[i])
		}
	}
}
