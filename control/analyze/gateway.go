package analyze

import (
	"crypto/tls"
	"slices"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
)

// gatewayPorts finds servers of a gateway on ports that no service leads to.
func gatewayPorts(p *pass) {
	known := map[string]map[uint32]bool{} // open ports by selector
	for _, o := range of[*networking.Gateway](p.Mesh, gateway) {
		workloads := p.gatewayPods(o)
		if len(workloads) == 0 {
			p.missingSelector(o)
			continue
		}
		selector := written(o.spec.Selector)
		if known[selector] == nil {
			known[selector] = p.openPorts(workloads)
		}
		for i, server := range o.spec.Servers {
			if number := server.Port.GetNumber(); server.Port != nil && !known[selector][number] {
				p.report(o.object, indexed("spec.servers", i)+".port", GatewayPortNotDefinedOnService, int(number), selector)
			}
		}
	}
}

// openPorts are those by which services lead to the workloads, and those that they lead to:
// a server may name either, the service's port is translated.
func (p *pass) openPorts(workloads []item[*corev1.Pod]) map[uint32]bool {
	open := map[uint32]bool{}
	for _, s := range of[*corev1.Service](p.Mesh, service) {
		for _, w := range workloads {
			if s.Namespace != w.Namespace || len(s.spec.Spec.Selector) == 0 || !selects(s.spec.Spec.Selector, w.labels) {
				continue
			}
			for _, port := range s.spec.Spec.Ports {
				if port.Protocol == corev1.ProtocolTCP {
					open[uint32(port.Port)], open[uint32(targetPort(w.spec, port))] = true, true
				}
			}
		}
	}
	return open
}

// targetPort is the port of the pod that a service's port leads to.
func targetPort(w *corev1.Pod, port corev1.ServicePort) int {
	if n := port.TargetPort.IntValue(); n != 0 {
		return n
	}
	for _, c := range w.Spec.Containers {
		for _, have := range c.Ports {
			if have.Name == port.TargetPort.StrVal && have.Name != "" {
				return int(have.ContainerPort)
			}
		}
	}
	return int(port.Port)
}

// gatewayPods are the workloads of a gateway. The caller must not change the slice.
func (p *pass) gatewayPods(o item[*networking.Gateway]) []item[*corev1.Pod] {
	selector := written(o.spec.Selector)
	all, known := p.selected[selector]
	if !known {
		for _, w := range p.pods() {
			if selects(o.spec.Selector, w.labels) {
				all = append(all, w)
			}
		}
		p.selected[selector] = all
	}
	return all
}

func (p *pass) missingSelector(o item[*networking.Gateway]) {
	p.report(o.object, "spec.selector", ReferencedResourceNotFound, "selector", written(o.spec.Selector))
}

// gatewayCertificates finds one certificate at several gateways of the same workload. A
// client that knows it from one of their hosts sends requests for others on the same
// connection.
func gatewayCertificates(p *pass) {
	all := of[*networking.Gateway](p.Mesh, gateway)
	for _, o := range all {
		for _, other := range all {
			if other.object == o.object || !selects(o.spec.Selector, other.spec.Selector) {
				continue
			}
			if i := sharedCertificate(o.spec, other.spec); i >= 0 {
				p.report(o.object, indexed("spec.servers", i)+".tls", GatewayDuplicateCertificate, []string{o.fullName(), other.fullName()})
			}
		}
	}
}

// sharedCertificate is the first server of a whose certificate b has as well, or -1.
func sharedCertificate(a, b *networking.Gateway) int {
	return slices.IndexFunc(a.Servers, func(s *networking.Server) bool {
		name := certificateOf(s.Tls)
		return name != "" && slices.ContainsFunc(b.Servers, func(t *networking.Server) bool { return certificateOf(t.Tls) == name })
	})
}

func certificateOf(t *networking.ServerTLSSettings) string {
	switch {
	case t.GetCredentialName() != "":
		return t.CredentialName
	case t.GetServerCertificate() != "" && t.PrivateKey != "":
		return t.ServerCertificate + " " + t.PrivateKey
	}
	return ""
}

// gatewaySecrets finds credentials that are not there, or that are no pair of key and
// certificate.
func gatewaySecrets(p *pass) {
	for _, o := range of[*networking.Gateway](p.Mesh, gateway) {
		workloads := p.gatewayPods(o)
		if len(workloads) == 0 {
			p.missingSelector(o)
			continue
		}
		for i, server := range o.spec.Servers {
			name := server.Tls.GetCredentialName()
			if name == "" || server.Tls.GetMode() == networking.ServerTLSSettings_ISTIO_MUTUAL {
				continue
			}
			at := indexed("spec.servers", i) + ".tls.credentialName"
			found := p.get(secret, workloads[0].Namespace, strings.TrimPrefix(name, "kubernetes://"))
			if found == nil {
				p.report(o.object, at, ReferencedResourceNotFound, "credentialName", name)
			} else if s, ok := found.spec.(*corev1.Secret); !ok || !isPair(s.Data) {
				p.report(o.object, at, InvalidGatewayCredential, o.Name, workloads[0].Namespace)
			}
		}
	}
}

// isPair reports whether a secret, in either of the forms that gateways read, holds a
// certificate with its key.
func isPair(data map[string][]byte) bool {
	cert, key := data[corev1.TLSCertKey], data[corev1.TLSPrivateKeyKey]
	if len(cert) == 0 {
		cert, key = data["cert"], data["key"]
	}
	_, err := tls.X509KeyPair(cert, key)
	return err == nil
}

// conflictingGateways finds gateways that want the same host at the same port of the same
// workload.
func conflictingGateways(p *pass) {
	all := of[*networking.Gateway](p.Mesh, gateway)
	for _, o := range all {
		workloads := p.gatewayPods(o)
		if len(o.spec.Selector) > 0 && len(workloads) == 0 {
			p.missingSelector(o)
			continue
		}
		for i, server := range o.spec.Servers {
			var others []string
			for _, other := range all {
				if other.object != o.object && wantsHostOf(other.spec, server) && sharePod(workloads, other.spec.Selector) {
					others = append(others, other.fullName())
				}
			}
			if len(others) > 0 {
				p.report(o.object, indexed("spec.servers", i), ConflictingGateways, strings.Join(others, ","), written(o.spec.Selector),
					strconv.Itoa(int(server.Port.GetNumber())), strings.Join(server.Hosts, ","))
			}
		}
	}
}

func sharePod(workloads []item[*corev1.Pod], selector map[string]string) bool {
	return slices.ContainsFunc(workloads, func(w item[*corev1.Pod]) bool { return selects(selector, w.labels) })
}

// wantsHostOf reports whether the gateway has a server with a host, port and address of
// the other server.
func wantsHostOf(g *networking.Gateway, other *networking.Server) bool {
	return slices.ContainsFunc(g.Servers, func(s *networking.Server) bool {
		return s.Port.GetNumber() == other.Port.GetNumber() && s.Bind == other.Bind &&
			slices.ContainsFunc(s.Hosts, func(h string) bool { return slices.Contains(other.Hosts, h) })
	})
}
