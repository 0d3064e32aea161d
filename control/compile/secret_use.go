package compile

import (
	"fmt"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// A SecretUse is a place in the configuration that makes a proxy ask for a secret.
type SecretUse struct {
	Object *config.Config
	Field  string // "servers[0].tls.credentialName"
	Secret string // SDS name
}

// SecretUses are the places that name secrets: in the Gateways of the proxy, and in
// all DestinationRules. Which of them the proxy makes use of its listeners and
// clusters say.
//
// Kinds read: Gateway, DestinationRule.
func SecretUses(s *mesh.Snapshot, p *mesh.Proxy) []SecretUse {
	var out []SecretUse
	for _, g := range s.Gateways(p) {
		for i, server := range g.Spec.GetServers() {
			out = append(out, serverSecrets(g.Config, fmt.Sprintf("servers[%d].tls", i), server.GetTls())...)
		}
	}
	for _, c := range s.Config.List(config.DestinationRule) {
		rule := c.Spec.(*networking.DestinationRule)
		out = append(out, policySecrets(c, "trafficPolicy", rule.GetTrafficPolicy())...)
		for i, subset := range rule.GetSubsets() {
			out = append(out, policySecrets(c, fmt.Sprintf("subsets[%d].trafficPolicy", i), subset.GetTrafficPolicy())...)
		}
	}
	return out
}

func serverSecrets(c *config.Config, field string, t *networking.ServerTLSSettings) []SecretUse {
	var out []SecretUse
	add := func(field, credential, authority string) {
		out = append(out, SecretUse{c, field, secretName(credential)})
		if authority == "" { // the same Secret holds the authorities
			out = append(out, SecretUse{c, field, secretName(credential) + caSuffix})
		}
	}
	authority := t.GetCaCertCredentialName()
	if authority != "" {
		out = append(out, SecretUse{c, field + ".caCertCredentialName", secretName(authority) + caSuffix})
	}
	if n := t.GetCredentialName(); n != "" {
		add(field+".credentialName", n, authority)
	}
	for i, n := range t.GetCredentialNames() {
		add(fmt.Sprintf("%s.credentialNames[%d]", field, i), n, authority)
	}
	return out
}

func policySecrets(c *config.Config, field string, p *networking.TrafficPolicy) []SecretUse {
	var out []SecretUse
	add := func(field string, t *networking.ClientTLSSettings) {
		if n := t.GetCredentialName(); n != "" {
			out = append(out, SecretUse{c, field, secretName(n)}, SecretUse{c, field, secretName(n) + caSuffix})
		}
	}
	add(field+".tls.credentialName", p.GetTls())
	for i, port := range p.GetPortLevelSettings() {
		add(fmt.Sprintf("%s.portLevelSettings[%d].tls.credentialName", field, i), port.GetTls())
	}
	return out
}
