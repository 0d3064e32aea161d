package config_test

import (
	"slices"
	"testing"

	"github.com/lateen-mesh/lateen/control/config"
)

func TestValidate(t *testing.T) {
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: ["
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"VS-002 an unknown field names the message that has not got it",
			"apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {name: a}\nspec: {servers: [{prt: {}}]}",
			[]string{`error: f:4: Gateway a: servers[0].prt: unknown field "prt" in istio.networking.v1alpha3.Server`}},
		{"a key that is written twice", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {b: c}\ndata: {b: d}",
			[]string{`error: f:5: ConfigMap a: duplicate key "data" (first on line 4)`}},
		{"an object that is there twice", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}", nil},
		{"kinds of others", "apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {name: a}\n---\napiVersion: a.test/v1\nkind: B\nmetadata: {name: a}", nil},
		{"what is no object", "replicas: 3\n---\nkind: Gateway", []string{"error: f:3: Gateway : apiVersion: required"}},
		{"a kind that is mis-spelt", "apiVersion: networking.istio.io/v1\nkind: Virtualservice\nmetadata: {name: a, namespace: b}",
			[]string{`error: f:2: Virtualservice b/a: kind: unknown kind "Virtualservice" in "networking.istio.io/v1"`}},
		{"an unnamed port", service + "{port: 80}]}", []string{"error: f:4: Service a: spec.ports[0].name: required: an unnamed port does not say what is spoken on it"}},
		{"a port by its protocol", service + "{port: 80, name: grpc-web-a}, {port: 81, name: mysql}, {port: 82, name: dns, protocol: UDP}]}", nil},
		{"a port of another name", service + "{port: 80, name: web-http}]}", []string{`error: f:4: Service a: spec.ports[0].name: "web-http" does not begin with a protocol, as Istio's naming convention has it`}},
		{"a port with appProtocol", service + "{port: 80, name: web, appProtocol: HTTP2}, {port: 81, name: b, appProtocol: kubernetes.io/h2c}]}", nil},
		{"a port with another appProtocol", service + "{port: 80, name: http, appProtocol: smtp}]}", []string{`error: f:4: Service a: spec.ports[0].appProtocol: "smtp" is not a protocol that the mesh knows`}},
		{"a port of the control plane", "apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: istio-system}\nspec: {ports: [{port: 80}]}", nil},
		{"a Deployment without labels", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec:\n  template: {}",
			[]string{"aside: f:5: Deployment a: spec.template.metadata.labels: may not provide Istio metrics and telemetry labels"}},
		{"a Deployment with labels", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {app: a, app.kubernetes.io/version: v1}}}}", nil},
		{"an EnvoyFilter", "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: a, namespace: b}\nspec: {}",
			[]string{"warning: f:1: EnvoyFilter b/a: patches what proxies get, which may change with any version: prefer other kinds, and take care at upgrades"}},
		{"a kind that nothing follows yet", "apiVersion: telemetry.istio.io/v1\nkind: Telemetry\nmetadata: {name: a}\nspec: {}",
			[]string{"aside: f:1: Telemetry a: is read but has no effect yet: proxies report what the mesh's defaults say"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, p := range config.Validate("shop", "f", []byte(c.text)) {
				severity := p.Severity.String()
				if p.Aside {
					severity = "aside"
				}
				got = append(got, severity+": "+p.Error())
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
