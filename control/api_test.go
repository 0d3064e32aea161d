package control_test

import (
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/kube"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/wellknown"
)

// startOn runs a control plane on an API, and on files if there are any.
func startOn(t *testing.T, api *kubetest.API, files map[string]string, change func(*control.Options)) *plane {
	t.Helper()
	return start(t, files, func(o *control.Options) {
		o.Kubernetes = &kube.Connection{Socket: api.Socket}
		if len(files) == 0 {
			o.Paths = nil
		}
		if change != nil {
			change(o)
		}
	})
}

const webMap = `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data:
  mesh: |
    accessLogFile: /tmp/one.log
`

const backend = `
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.1.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080, protocol: TCP}]}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1, topology.istio.io/subzone: s1}}
`

const backendPod = `
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: default, labels: {app: web, version: v1, security.istio.io/tlsMode: istio}}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, image: x}]}
status: {phase: Running, podIP: 10.244.0.5, podIPs: [{ip: 10.244.0.5}], conditions: [{type: Ready, status: "True"}]}
`

const backendSlice = `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-a, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints: [{addresses: [10.244.0.5], conditions: {ready: true}, nodeName: n1, targetRef: {kind: Pod, name: web-1, namespace: default}}]
`

const webCluster = "outbound|80||web.default.svc.cluster.local"

func TestKubernetes(t *testing.T) {
	t.Run("EN-023 objects of an API reach a proxy, changes and removals too", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(gateway + "---" + routes)
		p := startOn(t, api, nil, nil)
		c := p.connect(wellknown.RouteType, nil, "http.80")
		has(t, "RDS", text(t, c.next("")), `"inlineString":"one"`)
		api.Apply(strings.Replace(routes, "one", "two", 1))
		has(t, "RDS", text(t, c.next("")), `"inlineString":"two"`)
		api.Delete("VirtualService", "default/web")
		has(t, "RDS", text(t, c.next("")), "blackhole")
	})
	t.Run("KC-015 an edit of the ConfigMap istio is in force at once", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(gateway + "---" + webMap)
		p := startOn(t, api, nil, nil)
		c := p.connect(wellknown.ListenerType, nil)
		has(t, "LDS", text(t, c.next("")), `"path":"/tmp/one.log"`)
		api.Apply(strings.Replace(webMap, "one", "two", 1))
		has(t, "LDS", text(t, c.next("")), `"path":"/tmp/two.log"`)
		api.Apply(strings.Replace(webMap, "accessLogFile: /tmp/one.log", "accessLogFile: [", 1))
		wait(t, func() bool { return len(p.server.Status().Problems) == 1 })
		if pr := p.server.Status().Problems[0]; pr.Object != "ConfigMap istio-system/istio" || !strings.HasPrefix(pr.Field, "data.mesh") {
			t.Errorf("problem %+v", pr)
		}
	})
	t.Run("KC-015 MC-016 a mode of outbound traffic that is edited reaches sidecars", func(t *testing.T) {
		api := kubetest.New(t).Start()
		mode := strings.Replace(webMap, "accessLogFile: /tmp/one.log", "outboundTrafficPolicy: {mode: ALLOW_ANY}", 1)
		api.Apply(mode)
		p := startOn(t, api, nil, nil)
		c := p.connectAs("sidecar~10.244.0.9~sleep.default~default.svc.cluster.local", wellknown.ListenerType, map[string]any{"NAMESPACE": "default"})
		has(t, "LDS", text(t, c.next("")), `"cluster":"PassthroughCluster"`)
		api.Apply(strings.Replace(mode, "ALLOW_ANY", "REGISTRY_ONLY", 1))
		if got := text(t, c.next("")); strings.Contains(got, `"cluster":"PassthroughCluster"`) || !strings.Contains(got, `"cluster":"BlackHoleCluster"`) {
			t.Errorf("LDS %s", got)
		}
	})
	t.Run("KC-015 a broken mesh configuration leaves the last good in force, after a restart too", func(t *testing.T) {
		api := kubetest.New(t).Start()
		only := strings.Replace(webMap, "accessLogFile: /tmp/one.log", "outboundTrafficPolicy: {mode: REGISTRY_ONLY}", 1)
		api.Apply(only)
		keep := t.TempDir()
		state := func(o *control.Options) { o.State = keep }
		outbound := func(p *plane) string {
			return text(t, p.connectAs("sidecar~10.244.0.9~sleep.default~default.svc.cluster.local", wellknown.ListenerType, nil).next(""))
		}
		p := startOn(t, api, nil, state)
		has(t, "LDS", outbound(p), `"cluster":"BlackHoleCluster"`)
		api.Apply(strings.Replace(only, "REGISTRY_ONLY", "REGISTRI_ONLY", 1))
		wait(t, func() bool { return len(p.server.Status().Problems) == 1 })
		if pr := p.server.Status().Problems[0]; pr.Object != "ConfigMap istio-system/istio" || pr.Field != "data.mesh: line 1: outboundTrafficPolicy.mode" {
			t.Errorf("problem %+v", pr)
		}
		p.stop()
		if got := outbound(startOn(t, api, nil, state)); strings.Contains(got, `"cluster":"PassthroughCluster"`) {
			t.Errorf("traffic to anywhere passes after a restart: %s", got)
		}
	})
	t.Run("KC-010 KC-011 KC-012 endpoints are those of slices, with what Pods and Nodes tell of them", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(backend + "---" + backendSlice)
		p := startOn(t, api, nil, nil)
		c := p.connect(wellknown.EndpointType, nil, webCluster)
		if first := text(t, c.next("")); strings.Contains(first, "10.244.0.5") {
			t.Errorf("the endpoint is given out before its Pod is known: %s", first)
		}
		api.Apply(backendPod)
		got := text(t, c.next(""))
		for _, want := range []string{`"address":"10.244.0.5","portValue":8080`, `"locality":{"region":"r1","zone":"z1","subZone":"s1"}`, `"tlsMode":"istio"`, `"workload":"web-1;default;web;v1;Kubernetes"`} {
			has(t, "EDS", got, want)
		}
		api.Apply(strings.Replace(backendSlice, "ready: true", "ready: false", 1))
		if got := text(t, c.next("")); strings.Contains(got, "10.244.0.5") {
			t.Errorf("an endpoint that is not ready stays: %s", got)
		}
	})
	t.Run("of an object that files have too the file's counts, and it is said", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(gateway + "---" + strings.Replace(routes, "one", "of the API", 1))
		p := startOn(t, api, map[string]string{"routes.yaml": routes}, nil)
		has(t, "RDS", text(t, p.connect(wellknown.RouteType, nil, "http.80").next("")), `"inlineString":"one"`)
		pr := p.server.Status().Problems
		if len(pr) != 1 || pr[0].Object != "VirtualService default/web" || !strings.Contains(pr[0].Message, "routes.yaml:2 is used") || pr[0].Severity != "warning" {
			t.Errorf("problems %+v", pr)
		}
	})
	t.Run("a broken object leaves the last good state and is shown by its name and field", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(gateway + "---" + routes)
		p := startOn(t, api, nil, nil)
		c := p.connect(wellknown.RouteType, nil, "http.80")
		c.next("")
		api.Apply(strings.Replace(routes, "status: 200", "status: 42", 1))
		wait(t, func() bool { return p.server.Status().Kubernetes.Stale == 1 })
		st := p.server.Status()
		if len(st.Problems) != 1 || st.Problems[0].Object != "VirtualService default/web" || st.Problems[0].Field != "http[0].directResponse.status" || st.Problems[0].Place != "" {
			t.Errorf("problems %+v", st.Problems)
		}
		if k := st.Kubernetes; !k.Synced || k.Objects != 2 || k.Trouble != "" {
			t.Errorf("Kubernetes %+v", k)
		}
		has(t, "RDS", text(t, p.connect(wellknown.RouteType, nil, "http.80").next("")), `"inlineString":"one"`)
	})
	t.Run("nothing is served before the API is read", func(t *testing.T) {
		api := kubetest.New(t)
		api.Apply(gateway + "---" + routes)
		p := startOn(t, api, nil, nil)
		if code, _ := p.get("/ready"); code == 200 {
			t.Error("ready without the API")
		}
		wait(t, func() bool { return len(p.server.Status().Problems) == 1 })
		if pr := p.server.Status().Problems[0]; pr.Severity != "error" || !strings.Contains(pr.Message, "nothing is served before it is") {
			t.Errorf("problem %+v", pr)
		}
		api.Start()
		has(t, "RDS", text(t, p.connect(wellknown.RouteType, nil, "http.80").next("")), `"inlineString":"one"`)
	})
	t.Run("an API that is away is shown until it is back", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(gateway + "---" + routes)
		p := startOn(t, api, nil, nil)
		p.connect(wellknown.RouteType, nil, "http.80").next("")
		api.Stop()
		wait(t, func() bool { return len(p.server.Status().Problems) == 1 })
		if pr := p.server.Status().Problems[0]; pr.Severity != "warning" || !strings.Contains(pr.Message, "what is in force stays") {
			t.Errorf("problem %+v", pr)
		}
		has(t, "RDS", text(t, p.connect(wellknown.RouteType, nil, "http.80").next("")), `"inlineString":"one"`)
		api.Start()
		wait(t, func() bool { return len(p.server.Status().Problems) == 0 })
	})
	t.Run("a kubeconfig that is not there is an error", func(t *testing.T) {
		_, err := control.New(control.Options{Kubernetes: &kube.Connection{Kubeconfig: "/nonexistent"}, Log: logging.Discard()})
		if err == nil || !strings.Contains(err.Error(), "/nonexistent") {
			t.Errorf("error %v", err)
		}
	})
}
