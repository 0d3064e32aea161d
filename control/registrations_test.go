package control_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/wellknown"
)

const machines = `
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: shop, namespace: vms}
spec:
  metadata: {labels: {app: shop, version: v1}, annotations: {note: kept}}
  template: {ports: {http: 9000}, serviceAccount: shop, network: none, labels: {tier: template, version: v0}, weight: 7}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: shop, namespace: vms}
spec:
  hosts: [shop.test]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  workloadSelector: {labels: {app: shop}}
`

const shopCluster = "outbound|80||shop.test"

// machine connects the agent of a workload that registers itself.
func (p *plane) machine(metadata map[string]any) *proxy {
	p.t.Helper()
	all := map[string]any{"NAMESPACE": "vms", "AUTO_REGISTER_GROUP": "shop", "LABELS": map[string]any{"own": "node", "istio-locality": "r/z/s"}}
	maps.Copy(all, metadata)
	meta, err := structpb.NewStruct(all)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.connectNode(&corepb.Node{Id: "sidecar~10.9.8.7~vm-1.vms~vms.svc.cluster.local", Metadata: meta}, wellknown.ClusterType)
}

// tell tells of the workload's health.
func (c *proxy) tell(wrong string) {
	c.t.Helper()
	m := &discoverypb.DeltaDiscoveryRequest{TypeUrl: wellknown.HealthType}
	if wrong != "" {
		m.ErrorDetail = &statuspb.Status{Code: 500, Message: wrong}
	}
	if err := c.stream.Send(m); err != nil {
		c.t.Fatal(err)
	}
}

// until reads responses until one has a text, or lacks it.
func (c *proxy) until(part string, there bool) string {
	c.t.Helper()
	for {
		if got := text(c.t, c.next("")); strings.Contains(got, part) == there {
			return got
		}
	}
}

func (c *proxy) end() {
	c.t.Helper()
	if err := c.stream.CloseSend(); err != nil {
		c.t.Fatal(err)
	}
}

func TestRegistration(t *testing.T) {
	files := map[string]string{"machines.yaml": machines}
	grace := func(d time.Duration) func(*control.Options) {
		return func(o *control.Options) { o.AutoRegistration.Grace = d }
	}
	t.Run("SE-019 SE-025 a workload of a group is an endpoint while it is connected, and for a grace", func(t *testing.T) {
		p := start(t, files, grace(100*time.Millisecond))
		client := p.connect(wellknown.EndpointType, nil, shopCluster)
		client.until("10.9.8.7", false)
		vm := p.machine(nil)
		has(t, "EDS", client.until("10.9.8.7", true), `"portValue":9000`)
		vm.end()
		client.until("10.9.8.7", false)
	})
	t.Run("SE-018 SE-025 its entry has the group's labels and annotations, and the node's labels", func(t *testing.T) {
		p := start(t, files, grace(time.Hour))
		p.machine(map[string]any{"NETWORK": "net1"})
		var entry struct {
			Metadata struct{ Labels, Annotations map[string]string }
			Spec     struct {
				Address, Network, Locality, ServiceAccount string
				Weight                                     int
			}
		}
		wait(t, func() bool { return p.object("WorkloadEntry", "vms", "shop-10.9.8.7-net1", &entry) })
		labels := map[string]string{"app": "shop", "version": "v1", "tier": "template", "own": "node"}
		for k, v := range labels {
			if entry.Metadata.Labels[k] != v || len(entry.Metadata.Labels) != len(labels) {
				t.Errorf("labels %v, want %v", entry.Metadata.Labels, labels)
				break
			}
		}
		if a := entry.Metadata.Annotations; a["note"] != "kept" || a["istio.io/autoRegistrationGroup"] != "shop" || a["istio.io/connectedAt"] == "" {
			t.Errorf("annotations %v", a)
		}
		if s := entry.Spec; s.Address != "10.9.8.7" || s.Network != "net1" || s.Locality != "r/z/s" || s.ServiceAccount != "shop" || s.Weight != 7 {
			t.Errorf("spec %+v", s)
		}
	})
	t.Run("SE-025 one that comes back within the grace was never away", func(t *testing.T) {
		p := start(t, files, grace(time.Hour))
		client := p.connect(wellknown.EndpointType, nil, shopCluster)
		client.until("10.9.8.7", false)
		first := p.machine(nil)
		client.until("10.9.8.7", true)
		first.end()
		second := p.machine(nil)
		second.next("")
		wait(t, func() bool { return len(p.server.Status().Proxies) == 2 })
		p.write("more.yaml", strings.ReplaceAll(backend, "web", "more")) // brings the next generation
		wait(t, func() bool { return p.object("WorkloadEntry", "vms", "shop-10.9.8.7", nil) })
	})
	t.Run("SE-017 SE-020 one that is probed counts while it is healthy", func(t *testing.T) {
		p := start(t, files, grace(time.Hour))
		client := p.connect(wellknown.EndpointType, nil, shopCluster)
		client.until("10.9.8.7", false)
		vm := p.machine(map[string]any{"PROXY_CONFIG": map[string]any{"readinessProbe": map[string]any{"tcpSocket": map[string]any{"port": 9000}}}})
		vm.next("")
		vm.tell("connection refused")
		vm.tell("")
		client.until("10.9.8.7", true)
		vm.tell("connection refused")
		client.until("10.9.8.7", false)
		vm.tell("")
		client.until("10.9.8.7", true)
	})
	t.Run("SE-025 a group that is not there refuses the stream", func(t *testing.T) {
		p := start(t, map[string]string{"other.yaml": backend}, nil)
		_, err := p.machine(nil).stream.Recv()
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "no WorkloadGroup vms/shop") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("EN-050 nobody registers where that is off", func(t *testing.T) {
		p := start(t, files, func(o *control.Options) { o.AutoRegistration.Off = true })
		p.machine(nil).next("")
		if p.object("WorkloadEntry", "vms", "shop-10.9.8.7", nil) {
			t.Error("it has registered")
		}
	})
	t.Run("EN-050 everybody is healthy where health is not looked at", func(t *testing.T) {
		p := start(t, files, func(o *control.Options) { o.AutoRegistration.Unchecked = true })
		client := p.connect(wellknown.EndpointType, nil, shopCluster)
		client.until("10.9.8.7", false)
		p.machine(map[string]any{"PROXY_CONFIG": map[string]any{"readinessProbe": map[string]any{"exec": map[string]any{}}}})
		client.until("10.9.8.7", true)
	})
}

// object reads an object that is in force.
func (p *plane) object(kind, namespace, name string, into any) bool {
	p.t.Helper()
	_, body := p.get("/debug/configz")
	var all []json.RawMessage
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		p.t.Fatalf("%v in %s", err, body)
	}
	for _, text := range all {
		var head struct {
			Kind     string
			Metadata struct{ Name, Namespace string }
		}
		if json.Unmarshal(text, &head) == nil && head.Kind == kind && head.Metadata.Name == name && head.Metadata.Namespace == namespace {
			return into == nil || json.Unmarshal(text, into) == nil
		}
	}
	return false
}
