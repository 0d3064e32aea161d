package compile

import (
	"testing"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

const originated = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext, namespace: default}
spec:
  hosts: [open.test, ca.test, sni.test, names.test]
  ports: [{number: 443, name: https, protocol: TLS}]
  resolution: DNS
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: open, namespace: default}, spec: {host: open.test, trafficPolicy: {tls: {mode: SIMPLE}}}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: ca, namespace: default}, spec: {host: ca.test, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /ca.pem}}}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: sni, namespace: default}, spec: {host: sni.test, trafficPolicy: {tls: {mode: SIMPLE, sni: a.test}}}}
---
{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: names, namespace: default}, spec: {host: names.test, trafficPolicy: {tls: {mode: SIMPLE, subjectAltNames: [a.test]}}}}
`

// What a rule leaves open is as safe as can be, or as it was in Istio 1.8, where an operator says
// so (scenario 41; design/0033).
func TestOrigination(t *testing.T) {
	objects, problems := config.DecodeYAML("in.yaml", []byte(originated))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	type made struct {
		ca            string
		names         int
		sni           string
		auto, checked bool
	}
	const system = systemRootsFile
	for _, tc := range []struct {
		name string
		o    mesh.Origination
		want map[string]made // by host
	}{
		{"DR-044 DR-046 DR-047 the default", mesh.Origination{}, map[string]made{
			"open.test":  {ca: system, auto: true, checked: true},
			"ca.test":    {ca: "/ca.pem", auto: true, checked: true},
			"sni.test":   {ca: system, sni: "a.test"},
			"names.test": {ca: system, names: 1, auto: true},
		}},
		{"EN-052 VERIFY_CERTIFICATE_AT_CLIENT=false", mesh.Origination{Unverified: true}, map[string]made{
			"open.test":  {auto: true},
			"ca.test":    {ca: "/ca.pem", auto: true},
			"sni.test":   {sni: "a.test"},
			"names.test": {auto: true},
		}},
		{"ENABLE_AUTO_SNI=false", mesh.Origination{NoAutoSNI: true}, map[string]made{
			"open.test":  {ca: system},
			"ca.test":    {ca: "/ca.pem"},
			"sni.test":   {ca: system, sni: "a.test"},
			"names.test": {ca: system, names: 1},
		}},
		{"both, as in 1.8", mesh.Origination{Unverified: true, NoAutoSNI: true}, map[string]made{
			"open.test":  {},
			"ca.test":    {ca: "/ca.pem"},
			"sni.test":   {sni: "a.test"},
			"names.test": {},
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := mesh.Build(config.NewSet(1, objects), mesh.Options{Origination: tc.o})
			p := parseProxy(t, "router default 10.9.9.9")
			seen := 0
			for _, c := range Clusters(s, s.Scope(p), p) {
				host, _, _, _ := parseClusterName(c.Name)
				want, ok := tc.want[host]
				if !ok {
					continue
				}
				seen++
				http := ir.UpstreamHTTP{}
				if c.HTTP != nil {
					http = *c.HTTP
				}
				got := made{c.TLS.CAFile, len(c.TLS.SANs), c.TLS.SNI, http.AutoSNI, http.AutoSANValidation}
				if got != want {
					t.Errorf("%s: got %+v, want %+v", host, got, want)
				}
			}
			if seen != len(tc.want) {
				t.Errorf("%d clusters, want %d", seen, len(tc.want))
			}
		})
	}
}
