package install

import (
	"cmp"
	"fmt"
	"slices"
)

// A gatewayKind is a list of gateways in a spec.
type gatewayKind struct {
	list, title, label string
	values             string // under values.gateways, which all of the kind share
	istio              string // value of the label istio
}

var gatewayKinds = []gatewayKind{
	{"ingressGateways", "Ingress gateways", "IngressGateways", "istio-ingressgateway", "ingressgateway"},
	{"egressGateways", "Egress gateways", "EgressGateways", "istio-egressgateway", "egressgateway"},
}

// gateway is what the template of gateways sees.
func (i *Installation) gateway(kind gatewayKind, g map[string]any) (view, error) {
	v, err := i.view(g)
	if err != nil {
		return v, err
	}
	v.Name, v.Settings = text(g, "name"), mapping(i.values, "gateways", kind.values)
	v.Labels = lay(map[string]any{"app": kind.values, "istio": kind.istio}, mapping(v.Settings, "labels"))
	v.Labels = lay(v.Labels, mapping(g, "label"))
	v.Image = i.image(g, text(i.values, "global", "proxy", "image"))
	ports, ok := at(g, "k8s", "service", "ports").([]any)
	if !ok {
		ports, _ = v.Settings["ports"].([]any)
	}
	onMachine := i.local != nil && kind.list == "ingressGateways" && v.Name == kind.values
	if v.ServicePorts, v.ContainerPorts, err = i.ports(ports, onMachine); err != nil {
		return v, fmt.Errorf("gateway %s: %w", v.Name, err)
	}
	v.scale(i, g)
	return v, nil
}

// ports are those of the Service and of the container. The ingress gateway of one machine
// has 80 and 443 of that machine, and its Service shows where they are.
func (i *Installation) ports(ports []any, onMachine bool) (service, container []any, err error) {
	seen := map[int]bool{}
	for n, element := range ports {
		p, ok := copied(element).(map[string]any)
		port := number(p["port"])
		if !ok || port < 1 || port > 65535 {
			return nil, nil, fmt.Errorf("ports[%d]: must have a port of 1 to 65535", n)
		}
		target := number(p["targetPort"]) // 0 where it is a name
		if p["targetPort"] == nil {
			target = port
		}
		c := map[string]any{"containerPort": target, "protocol": cmp.Or(text(p, "protocol"), "TCP")}
		if onMachine && (port == 80 || port == 443) {
			c["hostPort"] = port
			shown := map[int]int{80: i.local.HTTPPort, 443: i.local.HTTPSPort}[port]
			p["port"], p["targetPort"] = cmp.Or(shown, port), target
		}
		service = append(service, p)
		if onMachine && (port == 80 || port == 443) && !hasPort(ports, port+8000) {
			service = append(service, alternative(p, port, target))
		}
		if target != 0 && !seen[target] {
			seen[target] = true
			container = append(container, c)
		}
	}
	container = append(container, map[string]any{"containerPort": 15090, "protocol": "TCP", "name": "http-envoy-prom"})
	return service, container, nil
}

// alternative is the Service's other number of a port that Gateways name in two ways, 80 or
// 8080, 443 or 8443: later releases of the original have their gateways listen on the higher
// one, and the Gateways of their samples say it.
func alternative(shown map[string]any, port, target int) map[string]any {
	other := copied(shown).(map[string]any)
	other["name"], other["port"], other["targetPort"] = text(shown, "name")+"-alt", port+8000, target
	if number(shown["port"]) == port+8000 {
		other["port"] = port
	}
	return other
}

func hasPort(ports []any, wanted int) bool {
	return slices.ContainsFunc(ports, func(element any) bool {
		p, _ := element.(map[string]any)
		return number(p["port"]) == wanted
	})
}
