package control_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
	"github.com/lateen-mesh/lateen/nametable"
	"github.com/lateen-mesh/lateen/wellknown"
)

// sidecar connects the proxy of a Pod.
func (p *plane) sidecar(name, ip, typeURL string, names ...string) *proxy {
	p.t.Helper()
	id := "sidecar~" + ip + "~" + name + ".default~default.svc.cluster.local"
	return p.connectAs(id, typeURL, map[string]any{"NAMESPACE": "default"}, names...)
}

// ask sends another subscription on the stream.
func (c *proxy) ask(typeURL string, names ...string) {
	c.t.Helper()
	if err := c.stream.Send(&discoverypb.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names}); err != nil {
		c.t.Fatal(err)
	}
}

func TestLeaving(t *testing.T) {
	twin := func(text string) string {
		return strings.ReplaceAll(strings.ReplaceAll(text, "web-1", "web-2"), "10.244.0.5", "10.244.0.6")
	}
	both := strings.Replace(backendSlice, "endpoints: [", "endpoints: ["+twin(backendSlice[strings.Index(backendSlice, "{addresses"):strings.LastIndex(backendSlice, "]")])+", ", 1)
	whole := backend + "---" + backendPod + "---" + twin(backendPod) + "---" + both
	patient := func(o *control.Options) { o.Debounce = control.Debounce{After: time.Hour, Max: time.Hour} }
	t.Run("a proxy that is about to end is taken from the others at once, and told when they know", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(whole)
		p := startOn(t, api, nil, patient)
		other := p.sidecar("sleep-1", "10.244.0.9", wellknown.EndpointType, webCluster)
		has(t, "EDS", text(t, other.next("")), "10.244.0.5")
		own := p.sidecar("web-1", "10.244.0.5", wellknown.EndpointType, webCluster)
		has(t, "EDS", text(t, own.next("")), "10.244.0.5")
		own.ask(wellknown.DrainType)
		if got := text(t, other.next("")); strings.Contains(got, "10.244.0.5") {
			t.Errorf("the endpoint stays: %s", got)
		}
		for m := own.next(""); m.TypeUrl != wellknown.DrainType; m = own.next("") {
			if m.TypeUrl != wellknown.EndpointType { // its own view changes too
				t.Errorf("response of type %s", m.TypeUrl)
			}
		}
		t.Run("it still gets what its listeners serve", func(t *testing.T) {
			own.ask(wellknown.ListenerType)
			has(t, "LDS", text(t, own.next("")), `"cluster":"inbound|8080||"`)
		})
		t.Run("it is back when its proxy comes back", func(t *testing.T) {
			p.sidecar("web-1", "10.244.0.5", wellknown.EndpointType, webCluster).next("")
			has(t, "EDS", text(t, other.next("")), "10.244.0.5")
		})
	})
	t.Run("a proxy that does not answer is not waited for longer than a second", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(whole)
		p := startOn(t, api, nil, patient)
		stuck := p.sidecar("sleep-1", "10.244.0.9", wellknown.EndpointType, webCluster)
		if _, err := stuck.stream.Recv(); err != nil {
			t.Fatal(err)
		}
		own := p.sidecar("web-1", "10.244.0.5", wellknown.DrainType)
		if m := own.next(""); m.TypeUrl != wellknown.DrainType || len(m.Resources) != 0 {
			t.Errorf("response %v", m)
		}
		has(t, "log", p.log.String(), "not every proxy has said that it knows")
	})
	t.Run("the control plane says that it knows of leaving, and what istioctl asks for", func(t *testing.T) {
		p := start(t, nil, nil)
		got := p.sidecar("a", "10.0.0.1", wellknown.ClusterType).next("").GetControlPlane().GetIdentifier()
		for _, want := range []string{wellknown.DrainIdentifier, `"Component":"istiod"`, `"version":"` + wellknown.Version() + `"`} {
			has(t, "identifier", got, want)
		}
	})
	t.Run("a Pod that is to end leaves at once, while it still serves and before its slice says so", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(whole)
		p := startOn(t, api, nil, patient)
		other := p.sidecar("sleep-1", "10.244.0.9", wellknown.EndpointType, webCluster)
		has(t, "EDS", text(t, other.next("")), "10.244.0.5")
		began := time.Now()
		api.Apply(strings.Replace(backendPod, "name: web-1,", `name: web-1, deletionTimestamp: "2026-01-01T00:00:00Z",`, 1))
		if got := text(t, other.next("")); strings.Contains(got, "10.244.0.5") {
			t.Errorf("the endpoint stays: %s", got)
		}
		t.Logf("gone from the others after %v", time.Since(began).Round(time.Millisecond))
	})
	t.Run("the only one gets requests until there is another", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(backend + "---" + backendPod + "---" + backendSlice)
		p := startOn(t, api, nil, nil)
		other := p.sidecar("sleep-1", "10.244.0.9", wellknown.EndpointType, webCluster)
		has(t, "EDS", text(t, other.next("")), "10.244.0.5")
		p.sidecar("web-1", "10.244.0.5", wellknown.DrainType).next("")
		has(t, "EDS", text(t, p.sidecar("late-1", "10.244.0.8", wellknown.EndpointType, webCluster).next("")), "10.244.0.5")
		api.Apply(twin(backendPod) + "---" + both)
		if got := text(t, other.next("")); strings.Contains(got, "10.244.0.5") || !strings.Contains(got, "10.244.0.6") {
			t.Errorf("EDS %s", got)
		}
	})
	t.Run("KC-010 one whose slice says that it ends leaves with the next changes", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(whole)
		p := startOn(t, api, nil, nil)
		other := p.sidecar("sleep-1", "10.244.0.9", wellknown.EndpointType, webCluster)
		has(t, "EDS", text(t, other.next("")), "10.244.0.5")
		api.Apply(strings.Replace(backendSlice, "ready: true", "ready: false, serving: true, terminating: true", 1)) // and the other is gone
		if got := text(t, other.next("")); strings.Contains(got, "10.244.0.5") {
			t.Errorf("the endpoint stays: %s", got)
		}
	})
}

func TestNameTable(t *testing.T) {
	api := kubetest.New(t).Start()
	api.Apply(backend)
	p := startOn(t, api, nil, nil)
	c := p.sidecar("sleep-1", "10.244.0.9", nametable.Type)
	table := func() nametable.Table {
		t.Helper()
		m := c.next("")
		if m.TypeUrl != nametable.Type || len(m.Resources) != 1 {
			t.Fatalf("response %v", m)
		}
		got, err := nametable.Unmarshal(m.Resources[0].Resource.Value)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := table()["web.default.svc.cluster.local"]; strings.Join(got.Addresses, ",") != "10.96.1.1" || got.ShortName != "web" {
		t.Errorf("name %+v", got)
	}
	api.Apply(strings.NewReplacer("name: web", "name: late", "10.96.1.1", "10.96.1.2").Replace(backend))
	if got := table(); strings.Join(got["late.default.svc.cluster.local"].Addresses, ",") != "10.96.1.2" || len(got) != 2 {
		t.Errorf("table %+v", got)
	}
	_, page := p.get("/debug/ndsz?proxyID=sleep-1.default")
	has(t, "/debug/ndsz", strings.Join(strings.Fields(page), ""), `"late.default.svc.cluster.local":{"ips":["10.96.1.2"],"registry":"Kubernetes","shortname":"late","namespace":"default"}`)
	if m := p.connect(nametable.Type, nil).next(""); len(m.Resources) != 0 {
		t.Errorf("a gateway has names: %v", m)
	}
}

func TestTraceSampling(t *testing.T) {
	for _, tc := range []struct{ name, mesh, want string }{
		{"EN-048 OB-045 as the control plane is told", "", `"randomSampling":{"value":100}`},
		{"MC-071 unless the mesh configuration says it", "defaultConfig: {tracing: {sampling: 7}}\n", `"randomSampling":{"value":7}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			all := 100.0
			p := start(t, map[string]string{"gateway.yaml": gateway, "mesh.yaml": tc.mesh}, func(o *control.Options) { o.TraceSampling = &all })
			has(t, "LDS", text(t, p.connect(wellknown.ListenerType, nil).next("")), tc.want)
		})
	}
}

func TestPortProblems(t *testing.T) {
	services := strings.Replace(backend, "ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]",
		"ports: [{name: http, port: 80, targetPort: 8080}, {name: web, port: 81, targetPort: 8081}, {name: grpc, port: 82, targetPort: 8082}]", 1)
	slice := strings.Replace(backendSlice, "ports: [{name: http, port: 8080, protocol: TCP}]",
		"ports: [{name: http, port: 8080}, {name: web, port: 8081}, {name: grpc, port: 8082}]", 1)
	const rule = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: grpc, namespace: default}
spec:
  hosts: [web.default.svc.cluster.local]
  http: [{route: [{destination: {host: web.default.svc.cluster.local, port: {number: 82}}}]}]
`
	p := start(t, map[string]string{"all.yaml": services + "---" + backendPod + "---" + slice + "---" + rule}, nil)
	messages := func() []string {
		var all []string
		for _, pr := range p.server.Status().Problems {
			all = append(all, pr.Object+": "+pr.Field+": "+pr.Message)
		}
		return all
	}
	named := `Service default/web: spec.ports: port 81 is named "web", which does not say what is spoken there: it is found out on each connection`
	p.sidecar("other", "10.244.0.9", wellknown.ClusterType).next("")
	if got := messages(); !slices.Equal(got, []string{named}) {
		t.Errorf("%q", got)
	}
}

// How long a rule takes from the API to the proxies of a machine, as users run it; the
// log says it, bench/ keeps it.
func TestRuleReachesAllSidecars(t *testing.T) {
	const rule = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [web.default.svc.cluster.local]
  http: [{timeout: 1s, route: [{destination: {host: web.default.svc.cluster.local}}]}]
`
	api := kubetest.New(t).Start()
	api.Apply(backend + "---" + backendPod + "---" + backendSlice)
	p := startOn(t, api, nil, func(o *control.Options) { o.Debounce = control.Debounce{} })
	const count = 12
	var all []*proxy
	for i := range count {
		c := p.sidecar(fmt.Sprintf("p-%d", i), fmt.Sprintf("10.244.1.%d", i), wellknown.RouteType, "80")
		has(t, "RDS", text(t, c.next("")), `"outbound|80||web.default.svc.cluster.local"`)
		all = append(all, c)
	}
	began := time.Now()
	api.Apply(rule)
	for _, c := range all {
		has(t, "RDS", text(t, c.next("")), `"timeout":"1s"`)
	}
	t.Logf("in force at %d proxies %v after it was applied", count, time.Since(began).Round(time.Millisecond))
}
