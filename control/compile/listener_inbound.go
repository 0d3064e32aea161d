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
// the application unseen. What each takes, PeerAuthentications say.
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
	ports := b.inboundPorts()
	l.Chains = b.inboundCatchAll(port, ports)
	for _, p := range ports {
		l.Chains = append(l.Chains, b.inboundChains(p)...)
	}
	l.Inspectors = []ir.Inspector{{Kind: ir.OriginalDst}}
	if b.transparent() && b.proxy.Has(extOriginalSource) {
		l.Inspectors = append(l.Inspectors, ir.Inspector{Kind: ir.OriginalSource, Mark: transparentMark})
	}
	l.Inspectors = append(l.Inspectors, inspectors(l.Chains)...)
	for i := range l.Chains {
		l.Chains[i].PeerExchange = b.proxy.Has(extPeerExchange)
	}
	return l
}

// inboundCatchAll are the chains of connections to other ports than the declared ones.
// Those of which a PeerAuthentication says something have chains of their own.
func (b *listenerBuilder) inboundCatchAll(own uint32, declared []inboundPort) []ir.FilterChain {
	out := []ir.FilterChain{{Name: captureIn + "-blackhole", Match: ir.ChainMatch{DestinationPort: own}, TCP: tcpTo(wellknown.BlackHoleCluster, b.logs)}}
	stat := b.inboundStatName(&registry.Service{FromEntry: true}, registry.Port{}, wellknown.InboundPassthroughCluster)
	ports := []uint32{0}
	if b.snapshot.Identified(b.proxy) {
		for port := range b.authentication().Ports {
			if port != own && !slices.ContainsFunc(declared, func(p inboundPort) bool { return p.port == port }) {
				ports = append(ports, port)
			}
		}
		slices.Sort(ports)
	}
	for _, port := range ports {
		out = append(out, b.inboundChains(inboundPort{port: port, protocol: registry.Unsupported, cluster: wellknown.InboundPassthroughCluster, stat: stat})...)
	}
	return out
}

// An inboundPort is one port on which the workload is called.
type inboundPort struct {
	port     uint32
	protocol registry.Protocol
	cluster  string
	service  string // "host:port" of spans, "" of a port that nobody declares
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

// names are those of the port's chains and the prefix of its statistics of HTTP.
func (p inboundPort) names() (tcp, http, stat string) {
	if p.service == "" {
		return captureIn, captureIn + "-catchall-http", p.cluster + ";"
	}
	name := listenerName(wildcardAddress, p.port)
	return name, name, "inbound_" + name + ";"
}

// inboundChains are the chains of one port: HTTP where it is declared or detected,
// bytes otherwise.
func (b *listenerBuilder) inboundChains(p inboundPort) []ir.FilterChain {
	var out []ir.FilterChain
	tcpName, httpName, httpStat := p.names()
	for _, t := range b.takes(p.port, p.protocol) {
		c := ir.FilterChain{Name: tcpName, Origin: p.origin, Match: t.match}
		c.Match.DestinationPort = p.port
		if t.mutual {
			c.TLS = b.peerTLS(t.http)
		}
		if t.http {
			c.Name, c.HTTP = httpName, b.inboundHTTP(p, httpStat)
		} else {
			c.TCP = tcpTo(p.cluster, b.logs)
			c.TCP.StatPrefix = p.stat
		}
		out = append(out, c)
	}
	return out
}

// inboundHTTP routes every request to the workload. A request that certainly did
// not reach it is sent again.
func (b *listenerBuilder) inboundHTTP(p inboundPort, statPrefix string) *ir.HTTPConnectionManager {
	h := b.connectionManager(statPrefix)
	b.setHeaders(h, inbound)
	b.filter(h, ir.PeerMetadataDownstream, p.port, p.protocol == registry.GRPCWeb)
	operation, number := p.service, p.port
	if operation == "" {
		operation, number = ":0", 0
	}
	h.Routes = &ir.RouteConfiguration{Name: p.cluster, VirtualHosts: []ir.VirtualHost{{
		Name:    fmt.Sprintf("inbound|http|%d", number),
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
