package compile

import (
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// gatewayListeners are one listener for each bound address and port. Servers that
// lead nowhere (TCP or pass-through without a route) get no chain, and a listener
// without chains is not opened.
func (b *listenerBuilder) gatewayListeners() []ir.Listener {
	var out []ir.Listener
	for _, port := range gatewayPorts(b.scope) {
		chains := b.gatewayChains(port)
		if len(chains) == 0 {
			continue
		}
		name := listenerName(port.address(), port.port)
		i := slices.IndexFunc(out, func(l ir.Listener) bool { return l.Name == name })
		if i < 0 {
			out = append(out, b.newListener(name, port.address(), port.port))
			i = len(out) - 1
		}
		out[i].Chains = append(out[i].Chains, chains...)
	}
	out = append(out, b.unclaimed(out)...)
	for i := range out {
		out[i].Chains = distinctChains(out[i].Chains)
		if slices.ContainsFunc(out[i].Chains, seesClientHello) {
			out[i].Inspectors = []ir.Inspector{{Kind: ir.TLSInspector}}
		}
	}
	return out
}

// unclaimed is the listener on port 80 of an ingress gateway that no Gateway uses:
// it answers 404 rather than refuse connections, so that a client sees a mesh that
// has no route yet, not a host that is down.
func (b *listenerBuilder) unclaimed(claimed []ir.Listener) []ir.Listener {
	if b.proxy.Labels["istio"] != "ingressgateway" {
		return nil
	}
	var out []ir.Listener
	for _, port := range boundPorts(b.scope.Instances(), 80) {
		if slices.ContainsFunc(claimed, func(l ir.Listener) bool { return l.Port == port }) {
			continue
		}
		l := b.newListener(listenerName(wildcardAddress, port), wildcardAddress, port)
		l.Chains = []ir.FilterChain{b.gatewayHTTPChain(&gatewayPort{port: port}, l.Name, fmt.Sprintf("http.%d", port))}
		out = append(out, l)
	}
	return out
}

func (b *listenerBuilder) gatewayChains(port *gatewayPort) []ir.FilterChain {
	name := listenerName(port.address(), port.port)
	if isPlainHTTP(port.servers[0].Server) { // the servers share one route table
		return []ir.FilterChain{b.closed(b.gatewayHTTPChain(port, name, port.servers[0].route))}
	}
	var out []ir.FilterChain
	for _, g := range port.servers {
		if needsMeshIdentity(g) && !b.proxy.HasAgent() {
			continue // nobody serves its certificate; a proxy would refuse the whole listener
		}
		if !g.isHTTP() {
			out = append(out, b.gatewayTCPChains(g)...)
			continue
		}
		c := b.gatewayHTTPChain(port, name, g.route)
		c.Match.ServerNames = g.serverNames()
		c.TLS = b.serverTLS(g)
		out = append(out, c)
	}
	return out
}

// closed is the chain of a server without TLS of its own: a gateway that is closed to all but the
// mesh takes its mutual TLS there, and resets what is plain text. Its clients are proxies of the
// mesh, so their request ids go on (scenario 43).
func (b *listenerBuilder) closed(c ir.FilterChain) ir.FilterChain {
	if b.proxy.HasAgent() && b.snapshot.ClosedGateway(b.proxy.Namespace, b.proxy.Labels) {
		c.Match.TransportProtocol = "tls"
		c.TLS = meshServerTLS(b.snapshot.MeshConfig, "istio-peer-exchange", "h2", "http/1.1")
		if c.HTTP != nil {
			c.HTTP.KeepRequestID = true
		}
	}
	return c
}

func needsMeshIdentity(g *gatewayServer) bool {
	return g.GetTls().GetMode() == networking.ServerTLSSettings_ISTIO_MUTUAL && g.isTLS()
}

// gatewayHTTPChain is the edge of the mesh: the client's address is that of the
// connection, and its certificate, if any, is told to the upstream.
func (b *listenerBuilder) gatewayHTTPChain(port *gatewayPort, listener, route string) ir.FilterChain {
	h := b.connectionManager("outbound_" + listener + ";")
	h.RouteName = route
	h.Lookups = b.lookups(b.scope.Services(), 0)
	b.filter(h, ir.PeerMetadataUpstream, port.port, port.protocol == "GRPC-WEB")
	b.setHeaders(h, edge)
	h.UseRemoteAddress = true
	h.TrustedHops = b.config.GetGatewayTopology().GetNumTrustedProxies()
	h.ExplicitHTTP1 = true
	return ir.FilterChain{HandshakeTimeout: handshakeTimeout, HTTP: h}
}

// gatewayTCPChains are the chains of a server whose connections are passed on as
// bytes, after TLS is taken off where the server does that.
func (b *listenerBuilder) gatewayTCPChains(g *gatewayServer) []ir.FilterChain {
	switch {
	case g.GetTls().GetMode() == networking.ServerTLSSettings_AUTO_PASSTHROUGH && g.Tls != nil:
		return b.autoPassthrough(g)
	case g.Tls != nil && isPassthrough(g.Server):
		return b.passthroughChains(g)
	}
	proxy := b.gatewayTCPRoute(g)
	if proxy == nil {
		return nil
	}
	c := ir.FilterChain{HandshakeTimeout: handshakeTimeout, TCP: proxy}
	if g.isTLS() {
		c.Match.ServerNames = g.serverNames()
		c.TLS = b.serverTLS(g)
		c.PeerExchange = needsMeshIdentity(g) && b.proxy.Has(extPeerExchange)
	} else {
		c = b.closed(c)
	}
	return []ir.FilterChain{c}
}

// boundTo returns the VirtualServices of a server with hosts in common.
func (b *listenerBuilder) boundTo(g *gatewayServer) []*mesh.VirtualService {
	var out []*mesh.VirtualService
	for _, v := range b.bound.to(b.scope, g) {
		if len(intersectHosts(g.hostsFor(v.Namespace), v.Spec.GetHosts())) > 0 {
			out = append(out, v)
		}
	}
	return out
}

// gatewayTCPRoute is the first TCP route that takes the server's connections.
func (b *listenerBuilder) gatewayTCPRoute(g *gatewayServer) *ir.TCPProxy {
	rc := b.ruleContext(g.GetPort().GetNumber(), g.gateway.FullName())
	for _, v := range b.boundTo(g) {
		for _, r := range v.Spec.GetTcp() {
			if rc.matchesTCP(r) {
				return rc.tcpProxy(v, r.GetRoute(), b.logs)
			}
		}
	}
	return nil
}

// passthroughChains are the chains of TLS routes, by the SNI that they name.
func (b *listenerBuilder) passthroughChains(g *gatewayServer) []ir.FilterChain {
	rc := b.ruleContext(g.GetPort().GetNumber(), g.gateway.FullName())
	var out []ir.FilterChain
	for _, v := range b.boundTo(g) {
		for _, r := range v.Spec.GetTls() {
			for _, m := range r.GetMatch() {
				if m.GetPort() != 0 && m.GetPort() != rc.port || !rc.from(m.GetGateways(), nil, "") {
					continue
				}
				out = append(out, ir.FilterChain{
					Match:            ir.ChainMatch{ServerNames: sniMatch(m.GetSniHosts())},
					HandshakeTimeout: handshakeTimeout,
					TCP:              rc.tcpProxy(v, r.GetRoute(), b.logs),
				})
			}
		}
	}
	return out
}

// sniMatch turns SNI names into a match; "*" is no condition.
func sniMatch(hosts []string) []string {
	if slices.Contains(hosts, "*") {
		return nil
	}
	out := make([]string, len(hosts))
	for i, h := range hosts {
		out[i] = strings.ToLower(h)
	}
	return out
}

// meshALPN are the protocols that proxies of a mesh offer one another.
var meshALPN = []string{"istio", "istio-peer-exchange", "istio-http/1.0", "istio-http/1.1", "istio-h2"}

// autoPassthrough leads mesh TLS to the service that its SNI names, for services
// of the mesh that the server's hosts cover.
func (b *listenerBuilder) autoPassthrough(g *gatewayServer) []ir.FilterChain {
	var out []ir.FilterChain
	add := func(cluster string) {
		out = append(out, ir.FilterChain{
			Match:            ir.ChainMatch{ServerNames: []string{cluster}, ApplicationProtocols: meshALPN},
			HandshakeTimeout: handshakeTimeout,
			TCP: &ir.TCPProxy{StatPrefix: cluster, Clusters: []ir.WeightedCluster{{Name: cluster}},
				AccessLogs: b.logs},
		})
	}
	for _, svc := range b.scope.Services() {
		if svc.MeshExternal || !slices.ContainsFunc(g.hosts, func(h string) bool {
			return config.HostWithin(svc.Host, bareHost(h))
		}) {
			continue
		}
		for _, port := range svc.Ports {
			if port.Protocol == "UDP" {
				continue
			}
			add(sniCluster(svc.Host, "", port.Number))
			rule := b.scope.DestinationRule(svc)
			if rule == nil {
				continue
			}
			for _, subset := range rule.Spec.GetSubsets() {
				add(sniCluster(svc.Host, subset.GetName(), port.Number))
			}
		}
	}
	return out
}

// sniCluster is the name of the cluster for mesh TLS that passes a gateway; it is
// a valid server name, since clients send it as SNI.
func sniCluster(host, subset string, port uint32) string {
	return fmt.Sprintf("outbound_.%d_.%s_.%s", port, subset, host)
}

// seesClientHello reports whether a chain needs what the TLS inspector finds.
func seesClientHello(c ir.FilterChain) bool {
	return c.TLS != nil || len(c.Match.ServerNames) > 0 || c.Match.TransportProtocol == "tls"
}
