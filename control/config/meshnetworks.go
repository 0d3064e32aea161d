package config

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	meshconfig "istio.io/api/mesh/v1alpha1"
)

// MeshNetworksKey is the key of the ConfigMap "istio" that holds the MeshNetworks as YAML.
const MeshNetworksKey = "meshNetworks"

// MeshNetworksOf returns the MeshNetworks in the set's ConfigMap "istio" of a namespace,
// empty where there are none. Its problems name the ConfigMap; with errors the result is nil.
func MeshNetworksOf(s *Set, namespace string) (*meshconfig.MeshNetworks, []Problem) {
	n := &meshconfig.MeshNetworks{}
	o := s.Get(ConfigMap, namespace, MeshConfigMap)
	if o == nil {
		return n, nil
	}
	cm, ok := o.Spec.(*corev1.ConfigMap)
	if !ok {
		return n, nil
	}
	problems := decodeMessage("", []byte(cm.Data[MeshNetworksKey]), n)
	if !HasErrors(problems) {
		problems = append(problems, validateNetworks(n)...)
	}
	for i, p := range problems {
		field := fmt.Sprintf("data.%s: %s", MeshNetworksKey, p.Field)
		if p.Source.Line > 0 {
			field = fmt.Sprintf("data.%s: line %d: %s", MeshNetworksKey, p.Source.Line, p.Field)
		}
		problems[i].Object, problems[i].Source, problems[i].Field = o.Key, o.Source, field
	}
	if HasErrors(problems) {
		return nil, problems
	}
	return n, problems
}

func validateNetworks(n *meshconfig.MeshNetworks) []Problem {
	r := &report{}
	for _, name := range sortedKeys(n.Networks) {
		network := place{r: r}.field("networks").key(name)
		for i, e := range n.Networks[name].GetEndpoints() {
			at := network.field("endpoints").index(i)
			switch {
			case e.GetFromCidr() != "":
				if _, err := netip.ParsePrefix(e.GetFromCidr()); err != nil {
					at.field("fromCidr").errorf("must be a CIDR, as 10.0.0.0/8, got %q", e.GetFromCidr())
				}
			case e.GetFromRegistry() == "":
				at.errorf("needs fromCidr or fromRegistry")
			}
		}
		for i, g := range n.Networks[name].GetGateways() {
			at := network.field("gateways").index(i)
			switch {
			case g.GetAddress() != "":
				if _, err := netip.ParseAddr(g.GetAddress()); err != nil {
					at.field("address").warnf("must be an IP address, got %q: host names of gateways are not resolved yet", g.GetAddress())
				}
			case g.GetRegistryServiceName() == "":
				at.errorf("needs address or registryServiceName")
			}
			if g.GetPort() == 0 || g.GetPort() > 65535 {
				at.field("port").errorf("must be between 1 and 65535, got %d", g.GetPort())
			}
		}
	}
	return r.problems
}
