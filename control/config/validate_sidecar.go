package config

import (
	"net"
	"strconv"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

func validateSidecar(p place, o *Config) {
	sc := o.Spec.(*networking.Sidecar)
	if sc.WorkloadSelector != nil {
		p.field("workloadSelector").selector(sc.WorkloadSelector.Labels, "labels")
	}
	if len(sc.Egress) == 0 && len(sc.Ingress) == 0 && sc.OutboundTrafficPolicy == nil && sc.InboundConnectionPool == nil {
		p.errorf("one of egress, ingress, outboundTrafficPolicy and inboundConnectionPool is required")
	}
	ports := map[uint32]bool{}
	for i, in := range sc.Ingress {
		validateIngress(p.at("ingress", i), in, ports)
	}
	validateConnectionPool(p.field("inboundConnectionPool"), sc.InboundConnectionPool)
	validateEgressListeners(p.field("egress"), sc.Egress, o.Namespace)
	validateOutboundPolicy(p.field("outboundTrafficPolicy"), sc.OutboundTrafficPolicy)
}

func validateIngress(p place, in *networking.IstioIngressListener, ports map[uint32]bool) {
	if in.Port == nil {
		p.field("port").errorf("required")
		return
	}
	validateSidecarPort(p.field("port"), in.Port)
	p.field("port.number").wrong(port(int64(in.Port.Number)))
	if in.Bind != "" {
		p.field("bind").wrong(ipAddress(in.Bind))
	}
	if ports[in.Port.Number] {
		p.field("port.number").errorf("duplicate port %d", in.Port.Number)
	}
	ports[in.Port.Number] = true
	validateDefaultEndpoint(p.field("defaultEndpoint"), in.DefaultEndpoint)
	validateIngressTLS(p.field("tls"), in.Tls)
	validateConnectionPool(p.field("connectionPool"), in.ConnectionPool)
	if in.ConnectionPool.GetHttp() != nil && classify(in.Port.Protocol) != httpProtocol {
		p.field("connectionPool.http").warnf("has no effect: protocol %s of the port is not an HTTP one", in.Port.Protocol)
	}
}

func validateSidecarPort(p place, sp *networking.SidecarPort) {
	if sp.Name != "" {
		p.field("name").wrong(portName(sp.Name))
	}
	p.field("protocol").protocol(sp.Protocol)
	if sp.TargetPort > 0 { //nolint:staticcheck // deprecated, still in users' files
		p.field("targetPort").errorf("has no effect on sidecars")
	}
}

func validateDefaultEndpoint(p place, endpoint string) {
	if endpoint == "" {
		return
	}
	if sock, unix := strings.CutPrefix(endpoint, unixScheme); unix {
		p.wrong(unixPath(sock))
		return
	}
	host, number, err := net.SplitHostPort(endpoint)
	if err != nil {
		p.errorf("must be 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT, [::]:PORT or unix:///PATH, got %q", shorten(endpoint))
		return
	}
	switch host {
	case "", "127.0.0.1", "0.0.0.0", "::1", "::":
	default:
		p.errorf("the host must be 127.0.0.1, ::1, 0.0.0.0 or ::, got %q", shorten(host))
	}
	if n, err := strconv.Atoi(number); err != nil {
		p.errorf("the port must be a number, got %q", shorten(number))
	} else {
		p.wrong(port(int64(n)))
	}
}

func validateIngressTLS(p place, t *networking.ServerTLSSettings) {
	if t == nil {
		return
	}
	p.excluded("not supported at sidecars", map[string]bool{
		"subjectAltNames": len(t.SubjectAltNames) > 0, "httpsRedirect": t.HttpsRedirect, "credentialName": t.CredentialName != "",
		"credentialNames": len(t.CredentialNames) > 0, "caCertCredentialName": t.CaCertCredentialName != "", "tlsCertificates": len(t.TlsCertificates) > 0})
	if t.Mode == networking.ServerTLSSettings_ISTIO_MUTUAL || t.Mode == networking.ServerTLSSettings_AUTO_PASSTHROUGH {
		p.field("mode").errorf("%s is not supported at sidecars", t.Mode)
	}
	validateServerTLS(p, t)
}

func validateEgressListeners(p place, listeners []*networking.IstioEgressListener, namespace string) {
	ports, sockets := map[uint32]bool{}, map[string]bool{}
	for i, e := range listeners {
		at := p.index(i)
		if e.Port == nil {
			if i != len(listeners)-1 {
				at.errorf("a listener without port takes all other services: only the last one may have none")
			}
		} else {
			validateEgressPort(at, e)
			switch {
			case e.Port.Number == 0 && sockets[e.Bind]:
				at.field("bind").errorf("duplicate socket %q", shorten(e.Bind))
			case e.Port.Number != 0 && ports[e.Port.Number]:
				at.field("port.number").errorf("duplicate port %d", e.Port.Number)
			}
			sockets[e.Bind], ports[e.Port.Number] = true, true
		}
		if len(e.Hosts) == 0 {
			at.field("hosts").errorf("at least one host is required")
		}
		for j, h := range e.Hosts {
			validateEgressHost(at.at("hosts", j), h)
		}
		warnEgressOverlap(at.field("hosts"), e.Hosts, namespace)
	}
}

func validateEgressPort(p place, e *networking.IstioEgressListener) {
	validateSidecarPort(p.field("port"), e.Port)
	sock, unix := strings.CutPrefix(e.Bind, unixScheme)
	if e.Port.Number != 0 {
		p.field("port.number").wrong(port(int64(e.Port.Number)))
		if e.Bind != "" {
			p.field("bind").wrong(ipAddress(e.Bind))
		}
		return
	}
	if !unix {
		p.field("bind").errorf("must be a unix socket (unix:///PATH) when the port is 0")
	} else {
		p.field("bind").wrong(unixPath(sock))
	}
	if e.CaptureMode != networking.CaptureMode_DEFAULT && e.CaptureMode != networking.CaptureMode_NONE {
		p.field("captureMode").errorf("must be DEFAULT or NONE for a unix socket, got %s", e.CaptureMode)
	}
}

// validateEgressHost checks "namespace/host"; "~namespace/*" takes services out again.
func validateEgressHost(p place, h string) {
	ns, name, split := strings.Cut(h, "/")
	if !split {
		p.add(Error, "write "+quoted("*/"+h), "must be namespace/host, got %q", shorten(h))
		return
	}
	excluded, exclusion := strings.CutPrefix(ns, "~")
	switch {
	case ns == "*" || ns == "." || ns == "~":
	case exclusion && isDNSLabel(excluded):
	case !isDNSLabel(ns):
		p.errorf("%q is not a namespace, \".\", \"*\" or \"~\"", shorten(ns))
	}
	validateListenerHost(p, name, false)
}

// warnEgressOverlap warns of hosts that say nothing new.
func warnEgressOverlap(p place, hosts []string, namespace string) {
	seen := map[string]map[string]bool{}
	for i, h := range hosts {
		ns, name, split := strings.Cut(h, "/")
		if !split || strings.HasPrefix(ns, "~") {
			continue
		}
		if ns == "." {
			ns = namespace
		}
		if seen[ns][name] || seen[ns]["*"] || name == "*" && len(seen[ns]) > 0 {
			p.index(i).warnf("%q is covered twice", shorten(h))
		}
		if seen[ns] == nil {
			seen[ns] = map[string]bool{}
		}
		seen[ns][name] = true
	}
	if seen["*"]["*"] && len(seen) > 1 {
		p.warnf(`"*/*" selects everything: the other hosts say nothing new`)
	}
}

func validateOutboundPolicy(p place, t *networking.OutboundTrafficPolicy) {
	if t.GetEgressProxy() == nil {
		return
	}
	if t.Mode != networking.OutboundTrafficPolicy_ALLOW_ANY {
		p.field("egressProxy").errorf("needs mode ALLOW_ANY")
		return
	}
	p.field("egressProxy.host").wrong(fqdn(t.EgressProxy.Host))
	if t.EgressProxy.Port == nil {
		p.field("egressProxy.port").errorf("required")
		return
	}
	validateDestination(p.field("egressProxy"), t.EgressProxy)
	p.field("egressProxy").notYet("has no effect yet: unknown destinations are called directly")
}
