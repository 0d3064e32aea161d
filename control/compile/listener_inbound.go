package compile

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/registry"
	"github.com/lateen-mesh/lateen/wellknown"
)

// transparentMark is what the redirection knows packets by that have a client's address.
const transparentMark = 1337

// virtualInbound takes all connections to the workload. Ports that a service or
// the Sidecar object declares have chains of their own; the rest is passed on to
// the application unseen.
//
// Chains for mutual TLS between proxies are not made: they would wait for
// certificates that nothing issues.
func (b *listenerBuilder) virtualInbound() ir.Listener {
	var none time.Duration
	port := uint32(b.snapshot.MeshConfig.GetProxyInboundListenPort())
	l := b.newListener(captureIn, wildcardAddress, port)
	l.Direction, l.Transparent = ir.Inbound, b.transparent()
	l.InspectionTimeout, l.ContinueOnTimeout = &none, true
	if t := b.snapshot.MeshConfig.GetProtocolDetectionTimeout(); t != nil {
		d := t.AsDuration()
		l.InspectionTimeout = &d
	}
	l.Chains = b.inboundCatchAll(port)
	var declared []uint32
	for _, p := range b.inboundPorts() {
		l.Chains = append(l.Chains, b.inboundChains(p)...)
		if p.protocol != registry.Unsupported {
			declared = append(declared, p.port)
		}
	}
	l.Inspectors = []ir.Inspector{{Kind: ir.OriginalDst}}
	if b.transparent() && b.proxy.Has(extOriginalSource) {
		l.Inspectors = append(l.Inspectors, ir.Inspector{Kind: ir.OriginalSource, Mark: transparentMark})
	}
	l.Inspectors = append(l.Inspectors,
		ir.Inspector{Kind: ir.TLSInspector, SkipPorts: []uint32{port}},
		ir.Inspector{Kind: ir.HTTPInspector, SkipPorts: append(declared, port)})
	for i := range l.Chains {
		l.Chains[i].PeerExchange = b.proxy.Has(extPeerExchange)
	}
	return l
}

func (b *listenerBuilder) inboundCatchAll(port uint32) []ir.FilterChain {
	pass := tcpTo(wellknown.InboundPassthroughCluster, b.logs)
	pass.StatPrefix = b.inboundStatName(&registry.Service{FromEntry: true}, registry.Port{}, pass.StatPrefix)
	all := inboundPort{cluster: wellknown.InboundPassthroughCluster}
	return []ir.FilterChain{
		{Name: captureIn + "-blackhole", Match: ir.ChainMatch{DestinationPort: port}, TCP: tcpTo(wellknown.BlackHoleCluster, nil)},
		{Name: captureIn + "-catchall-http", Match: ir.ChainMatch{ApplicationProtocols: httpALPN, TransportProtocol: plainTCP},
			HTTP: b.inboundHTTP(all, wellknown.InboundPassthroughCluster+";")},
		{Name: captureIn, Match: ir.ChainMatch{TransportProtocol: plainTCP}, TCP: pass},
		{Name: captureIn, Match: ir.ChainMatch{TransportProtocol: "tls"}, TCP: pass},
	}
}

// An inboundPort is one port on which the workload is called.
type inboundPort struct {
	port     uint32
	protocol registry.Protocol
	cluster  string
	service  string // "host:port" of spans
	stat     string // prefix of the statistics of bytes
	origin   *ir.Origin
}

// inboundPorts are those of the Sidecar object, else those of the services that
// the workload is an endpoint of; of two on one port the older.
func (b *listenerBuilder) inboundPorts() []inboundPort {
	if ingress := b.scope.Sidecar().GetIngress(); len(ingress) > 0 {
		var out []inboundPort
		for i, in := range ingress {
			n := in.GetPort().GetNumber()
			out = append(out, inboundPort{port: n, protocol: registry.ParseProtocol(in.GetPort().GetProtocol()),
				cluster: inboundName(n), stat: inboundName(n), service: b.ingressOperation(n),
				origin: originOf(b.scope.SidecarConfig(), fmt.Sprintf("ingress[%d]", i))})
		}
		return out
	}
	var out []inboundPort
	for _, i := range b.scope.Instances() {
		n := i.Endpoint.Port
		if i.Port.Protocol == registry.UDP || slices.ContainsFunc(out, func(p inboundPort) bool { return p.port == n }) {
			continue
		}
		out = append(out, inboundPort{port: n, protocol: i.Port.Protocol, cluster: inboundName(n),
			stat: b.inboundStatName(i.Service, i.Port, inboundName(n)), service: fmt.Sprintf("%s:%d", i.Service.Host, i.Port.Number)})
	}
	slices.SortStableFunc(out, func(a, b inboundPort) int { return cmp.Compare(a.port, b.port) })
	return out
}

// ingressOperation names a declared port after the Sidecar object that declares it.
func (b *listenerBuilder) ingressOperation(port uint32) string {
	c := b.scope.SidecarConfig()
	return fmt.Sprintf("%s.%s:%d", c.Name, c.Namespace, port)
}

// inboundStatName is the mesh's pattern for inbound statistics, else the given name.
func (b *listenerBuilder) inboundStatName(s *registry.Service, port registry.Port, name string) string {
	return cmp.Or(statName(b.snapshot.MeshConfig.GetInboundClusterStatName(), s, port, ""), name)
}

// inboundChains are the chains of one port: HTTP where it is declared or detected,
// bytes otherwise.
func (b *listenerBuilder) inboundChains(p inboundPort) []ir.FilterChain {
	name := listenerName(wildcardAddress, p.port)
	chain := func(transport string, alpn []string) ir.FilterChain {
		return ir.FilterChain{Name: name, Origin: p.origin, Match: ir.ChainMatch{
			DestinationPort: p.port, TransportProtocol: transport, ApplicationProtocols: alpn}}
	}
	http := func(alpn []string) ir.FilterChain {
		c := chain(plainTCP, alpn)
		c.HTTP = b.inboundHTTP(p, "inbound_"+name+";")
		return c
	}
	tcp := func(transport string) ir.FilterChain {
		c := chain(transport, nil)
		c.TCP = tcpTo(p.cluster, b.logs)
		c.TCP.StatPrefix = p.stat
		return c
	}
	switch {
	case p.protocol.IsHTTP():
		return []ir.FilterChain{http(nil)}
	case p.protocol == registry.Unsupported:
		return []ir.FilterChain{http(httpALPN), tcp(plainTCP), tcp("tls")}
	}
	return []ir.FilterChain{tcp("tls"), tcp(plainTCP)}
}

// inboundHTTP routes every request to the workload. A request that certainly did
// not reach it is sent again.
func (b *listenerBuilder) inboundHTTP(p inboundPort, statPrefix string) *ir.HTTPConnectionManager {
	h := b.connectionManager(statPrefix)
	b.setHeaders(h, inbound)
	b.filter(h, ir.PeerMetadataDownstream, p.port, p.protocol == registry.GRPCWeb)
	operation := p.service
	if operation == "" {
		operation = ":0"
	}
	h.Routes = &ir.RouteConfiguration{Name: p.cluster, VirtualHosts: []ir.VirtualHost{{
		Name:    fmt.Sprintf("inbound|http|%d", p.port),
		Domains: []string{"*"},
		Routes: []ir.Route{{
			Name:      "default",
			Match:     ir.RouteMatch{Path: ir.PathMatch{Value: "/"}},
			Operation: operation + "/*",
			Forward: &ir.Forward{
				Clusters: []ir.WeightedCluster{{Name: p.cluster}},
				Inbound:  true,
				Retry:    &ir.Retry{Attempts: defaultAttempts, On: "reset-before-request"},
			},
		}},
	}}}
	return h
}
