package compile

import (
	"cmp"
	"fmt"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// tlsChains are the chains of a port whose connections begin with a ClientHello: by
// the TLS routes of VirtualServices on the host, else to the service itself.
func (o *outboundListeners) tlsChains(s *registry.Service, p outboundPort, d destination) []ir.FilterChain {
	rc := o.ruleContext(p.port, mesh.MeshGateway)
	var out []ir.FilterChain
	for _, v := range o.virtualServicesOn(s.Host) {
		for i, r := range v.Spec.GetTls() {
			for _, m := range r.GetMatch() {
				if !rc.matchesTLS(m) {
					continue
				}
				cidrs := d.cidrs
				if len(m.GetDestinationSubnets()) > 0 {
					cidrs = m.GetDestinationSubnets()
				}
				out = append(out, ir.FilterChain{
					Match:            ir.ChainMatch{ServerNames: sniMatch(m.GetSniHosts()), DestinationCIDRs: cidrs},
					HandshakeTimeout: handshakeTimeout,
					TCP:              rc.tcpProxy(v, r.GetRoute(), o.logs),
					Origin:           originOf(v.Config, fmt.Sprintf("tls[%d]", i)),
				})
			}
		}
	}
	if len(out) > 0 {
		return out
	}
	c := o.serviceChain(s, p, d)
	if d.bind == wildcardAddress { // only the SNI tells the services of the address apart
		c.Match.ServerNames = []string{s.Host}
	}
	return []ir.FilterChain{c}
}

// matchesTLS reports whether a TLS match can apply on this port for this workload.
func (rc *ruleContext) matchesTLS(m *networking.TLSMatchAttributes) bool {
	return (m.GetPort() == 0 || m.GetPort() == rc.port) &&
		rc.from(m.GetGateways(), m.GetSourceLabels(), m.GetSourceNamespace())
}

// tcpChains are the chains of a port that is passed on as bytes: by the TCP routes of
// VirtualServices on the host up to the first that takes all, else to the service.
func (o *outboundListeners) tcpChains(s *registry.Service, p outboundPort, d destination) []ir.FilterChain {
	rc := o.ruleContext(p.port, mesh.MeshGateway)
	var out []ir.FilterChain
	for _, v := range o.virtualServicesOn(s.Host) {
		for i, r := range v.Spec.GetTcp() {
			cidrs, ok := rc.tcpSubnets(r, d.cidrs)
			if !ok {
				continue
			}
			out = append(out, ir.FilterChain{
				Match:            ir.ChainMatch{DestinationCIDRs: cidrs.list},
				HandshakeTimeout: handshakeTimeout,
				TCP:              rc.tcpProxy(v, r.GetRoute(), o.logs),
				Origin:           originOf(v.Config, fmt.Sprintf("tcp[%d]", i)),
			})
			if cidrs.all {
				return out
			}
		}
	}
	return append(out, o.serviceChain(s, p, d))
}

// subnets are the destinations that a TCP route takes; all: every one of the port.
type subnets struct {
	list []string
	all  bool
}

// tcpSubnets are the destinations of a TCP route here, false if it does not apply.
func (rc *ruleContext) tcpSubnets(r *networking.TCPRoute, service []string) (subnets, bool) {
	if len(r.GetMatch()) == 0 {
		return subnets{service, true}, true
	}
	var list []string
	for _, m := range r.GetMatch() {
		if m.GetPort() != 0 && m.GetPort() != rc.port ||
			!rc.from(m.GetGateways(), m.GetSourceLabels(), m.GetSourceNamespace()) {
			continue
		}
		if len(m.GetDestinationSubnets()) == 0 {
			return subnets{service, true}, true
		}
		list = append(list, m.GetDestinationSubnets()...)
	}
	return subnets{list: list}, len(list) > 0
}

// serviceChain sends connections to the service itself. On a listener whose port
// is not the service's, the service's only port is meant.
func (o *outboundListeners) serviceChain(s *registry.Service, p outboundPort, d destination) ir.FilterChain {
	port := p.port
	if len(s.Ports) == 1 {
		port = s.Ports[0].Number
	}
	proxy := tcpTo(clusterName(s.Host, "", port), o.logs)
	if known := s.Port(port); known != nil {
		proxy.StatPrefix = cmp.Or(statName(o.snapshot.MeshConfig.GetOutboundClusterStatName(), s, *known, ""), proxy.StatPrefix)
	}
	c := ir.FilterChain{Match: ir.ChainMatch{DestinationCIDRs: d.cidrs}, HandshakeTimeout: handshakeTimeout, TCP: proxy}
	if s.Resolution == registry.DynamicDNS && o.proxy.Has(extForwardSNI) {
		c.Lookup = &ir.SNILookup{DNS: forwardDNS(s, o.proxy), Port: port}
	}
	return c
}

// virtualServicesOn are the VirtualServices of the mesh that name the host.
func (o *outboundListeners) virtualServicesOn(host string) []*mesh.VirtualService {
	var out []*mesh.VirtualService
	for _, v := range o.virtual.Candidates(host) {
		for _, h := range v.Spec.GetHosts() {
			if config.HostWithin(host, h) {
				out = append(out, v)
				break
			}
		}
	}
	return out
}
