package control_test

import (
	"slices"
	"strings"
	"testing"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
	"github.com/lateen-mesh/lateen/wellknown"
)

const shopIngress = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: default, annotations: {kubernetes.io/ingress.class: istio}}
spec:
  rules:
  - host: shop.test
    http:
      paths:
      - {path: /shop, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}
`

const edgeService = `
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system}
spec: {type: LoadBalancer, clusterIP: 10.96.2.2, selector: {istio: ingressgateway}, ports: [{name: http2, port: 80, targetPort: 80, protocol: TCP}]}
status: {loadBalancer: {ingress: [{ip: 192.0.2.7}]}}
`

func TestIngress(t *testing.T) {
	t.Run("KC-001 KC-003 an Ingress of the API reaches a gateway", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(backend + "---" + shopIngress)
		p := startOn(t, api, nil, nil)
		c := p.connect(wellknown.RouteType, nil, "http.80")
		has(t, "RDS", text(t, c.next("")), `"pathSeparatedPrefix":"/shop"`)
		api.Apply(strings.Replace(shopIngress, "{kubernetes.io/ingress.class: istio}", "{kubernetes.io/ingress.class: nginx}", 1))
		has(t, "RDS", text(t, c.next("")), "blackhole")
	})
	t.Run("KC-002 an IngressClass comes later", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(backend + "---" + strings.NewReplacer(", annotations: {kubernetes.io/ingress.class: istio}", "", "spec:\n", "spec:\n  ingressClassName: mesh\n").Replace(shopIngress))
		p := startOn(t, api, nil, nil)
		c := p.connect(wellknown.RouteType, nil, "http.80")
		has(t, "RDS", text(t, c.next("")), "blackhole")
		api.Apply("{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: mesh}, spec: {controller: istio.io/ingress-controller}}")
		has(t, "RDS", text(t, c.next("")), `"pathSeparatedPrefix":"/shop"`)
	})
	t.Run("KC-007 an Ingress says where it is reached", func(t *testing.T) {
		api := kubetest.New(t).Start()
		api.Apply(backend + "---" + shopIngress + "---" + edgeService + "---" +
			strings.NewReplacer("name: shop,", "name: foreign,", "istio", "nginx").Replace(shopIngress))
		startOn(t, api, nil, nil)
		wait(t, func() bool {
			return strings.Contains(api.Get("Ingress", "default/shop"), `"ingress":[{"ip":"192.0.2.7"}]`)
		})
		api.Apply(strings.Replace(edgeService, "ip: 192.0.2.7", "hostname: edge.test", 1))
		wait(t, func() bool {
			return strings.Contains(api.Get("Ingress", "default/shop"), `"ingress":[{"hostname":"edge.test"}]`)
		})
		if got := api.Get("Ingress", "default/foreign"); strings.Contains(got, "loadBalancer") {
			t.Errorf("that of another controller is touched: %s", got)
		}
	})
	t.Run("KC-003 what an Ingress cannot have is a problem with its place", func(t *testing.T) {
		p := start(t, map[string]string{"shop.yaml": strings.Replace(backend, "name: http,", "name: http-web,", 1) + "---" + shopIngress}, nil)
		wait(t, func() bool {
			for _, pr := range p.server.Status().Problems {
				if pr.Object == "Ingress default/shop" && pr.Field == "spec.rules[0].http.paths[0].backend.service.port.name" && strings.Contains(pr.Place, "shop.yaml:") {
					return true
				}
			}
			return false
		})
	})
}

// The engine publishes the ports that Ingresses ask for, as those of Gateways.
func TestPortsOfIngresses(t *testing.T) {
	secure := strings.Replace(shopIngress, "  rules:", "  tls: [{hosts: [shop.test], secretName: shop-cert}]\n  rules:", 1)
	metadata, err := structpb.NewStruct(map[string]any{"LABELS": map[string]any{"istio": "ingressgateway"}, "NAMESPACE": "istio-system"})
	if err != nil {
		t.Fatal(err)
	}
	node := &corepb.Node{Id: "router~127.0.2.1~gw.istio-system~istio-system.svc.cluster.local", Metadata: metadata}
	for name, c := range map[string]struct {
		text string
		want []uint32
	}{
		"KC-006 with certificates":    {secure, []uint32{80, 443}},
		"KC-001 of another's class":   {strings.Replace(secure, "istio}", "nginx}", 1), []uint32{80}},
		"KC-003 without certificates": {shopIngress, []uint32{80}},
	} {
		t.Run(name, func(t *testing.T) {
			ports, err := control.GatewayPorts([]string{"-"}, strings.NewReader(c.text), node)
			if err != nil || !slices.Equal(ports, c.want) {
				t.Errorf("ports %v, want %v; %v", ports, c.want, err)
			}
		})
	}
}
