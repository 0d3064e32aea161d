package analyze

import (
	"fmt"
	"maps"
	"slices"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/registry"
)

// caCertificates finds rules that speak TLS without saying whom to believe. A credential
// brings its own certificates, but only where a workload selector tells who reads it.
func caCertificates(p *pass) {
	for _, o := range of[*networking.DestinationRule](p.Mesh, destinationRule) {
		policy := o.spec.TrafficPolicy
		if tls := policy.GetTls(); unverified(o.spec, tls) {
			p.report(o.object, "spec.trafficPolicy.tls", NoServerCertificateVerificationDestinationLevel,
				o.Name, o.Namespace, tls.Mode.String(), o.spec.Host)
		}
		for i, port := range policy.GetPortLevelSettings() {
			if unverified(o.spec, port.Tls) {
				p.report(o.object, indexed("spec.trafficPolicy.portLevelSettings", i)+".tls", NoServerCertificateVerificationPortLevel,
					o.Name, o.Namespace, port.Tls.Mode.String(), o.spec.Host, fmt.Sprint(port.Port.GetNumber()))
			}
		}
	}
}

func unverified(rule *networking.DestinationRule, tls *networking.ClientTLSSettings) bool {
	switch tls.GetMode() {
	case networking.ClientTLSSettings_SIMPLE, networking.ClientTLSSettings_MUTUAL:
		read := tls.CredentialName != "" && rule.WorkloadSelector != nil
		return tls.CaCertificates == "" && !read && !tls.InsecureSkipVerify.GetValue()
	}
	return false
}

// subsets finds rules for hosts that nobody knows, and subsets that no pod is in.
func subsets(p *pass) {
	placed := p.placedLabels()
	for _, o := range of[*networking.DestinationRule](p.Mesh, destinationRule) {
		s := p.visibleHost(o.Namespace, o.spec.Host)
		if s == nil {
			p.report(o.object, "spec.host", UnknownDestinationRuleHost, o.spec.Host)
			continue
		}
		for i, subset := range o.spec.Subsets {
			served := p.servesEndpoint(s, subset.Labels) || slices.ContainsFunc(placed[s.Namespace], func(have map[string]string) bool {
				return selects(subset.Labels, have) && selects(s.Selector, have)
			})
			if !served {
				p.report(o.object, indexed("spec.subsets", i), DestinationRuleSubsetNotSelectPods, subset.Name)
			}
		}
	}
}

// servesEndpoint reports whether an endpoint of the service, of a pod or not, has the labels.
func (p *pass) servesEndpoint(s *registry.Service, labels map[string]string) bool {
	for _, port := range s.Ports {
		for _, e := range p.snapshot.Registry.Endpoints(s, port) {
			if selects(labels, e.Labels) {
				return true
			}
		}
	}
	return false
}

// placedLabels are the labels of the pods of each namespace, those of a pod's node's place
// included.
func (p *pass) placedLabels() map[string][]map[string]string {
	all := map[string][]map[string]string{}
	for _, w := range p.pods() {
		have := maps.Clone(w.labels)
		if have == nil {
			have = map[string]string{}
		}
		if n := p.get(node, "", w.spec.Spec.NodeName); n != nil {
			for _, name := range []string{corev1.LabelTopologyRegion, corev1.LabelTopologyZone, "topology.istio.io/subzone", corev1.LabelHostname} {
				if place := n.labels[name]; place != "" {
					have[name] = place
				}
			}
		}
		all[w.Namespace] = append(all[w.Namespace], have)
	}
	return all
}
