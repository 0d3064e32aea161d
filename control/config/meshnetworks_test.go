package config

import (
	"strings"
	"testing"
)

func TestMeshNetworks(t *testing.T) {
	read := func(text string) (networks int, problems []string) {
		objects, _ := DecodeYAML("map.yaml", []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  meshNetworks: |\n    "+
			strings.ReplaceAll(text, "\n", "\n    ")))
		n, wrong := MeshNetworksOf(NewSet(1, objects), "istio-system")
		for _, p := range wrong {
			problems = append(problems, p.Error())
		}
		if n == nil {
			return -1, problems
		}
		return len(n.Networks), problems
	}
	for _, c := range []struct {
		name, text string
		networks   int
		want       string
	}{
		{"MC-084 MC-085 all forms", `networks: {a: {endpoints: [{fromCidr: 10.0.0.0/8}, {fromRegistry: c1}], gateways: [{address: 1.2.3.4, port: 15443, locality: r/z}]}, b: {gateways: [{registryServiceName: e.w, port: 443}]}}`, 2, ""},
		{"none", ``, 0, ""},
		{"an unknown field is named", `networks: {a: {endpoint: []}}`, 1, `data.meshNetworks: line 1: networks["a"].endpoint`},
		{"a block that is none", `networks: {a: {endpoints: [{fromCidr: 10.0.0.0}]}}`, -1, `networks["a"].endpoints[0].fromCidr: must be a CIDR`},
		{"endpoints of nowhere", `networks: {a: {endpoints: [{}]}}`, -1, `networks["a"].endpoints[0]: needs fromCidr or fromRegistry`},
		{"a gateway of nowhere", `networks: {a: {gateways: [{port: 1}]}}`, -1, `networks["a"].gateways[0]: needs address or registryServiceName`},
		{"a gateway without port", `networks: {a: {gateways: [{address: 1.2.3.4}]}}`, -1, `networks["a"].gateways[0].port: must be between`},
		{"a host name", `networks: {a: {gateways: [{address: gw.test, port: 1}]}}`, 1, `networks["a"].gateways[0].address: must be an IP address`},
		{"no YAML", `networks: [`, -1, `data.meshNetworks: `},
	} {
		t.Run(c.name, func(t *testing.T) {
			networks, problems := read(c.text)
			if networks != c.networks {
				t.Errorf("%d networks, want %d", networks, c.networks)
			}
			got := strings.Join(problems, "\n")
			if c.want == "" && got != "" || !strings.Contains(got, c.want) {
				t.Errorf("problems %q, want %q", got, c.want)
			}
		})
	}
}
