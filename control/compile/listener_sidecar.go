package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Addresses and ports of traffic capture.
const (
	loopback     = "127.0.0.1"
	captureOut   = "virtualOutbound"
	captureIn    = "virtualInbound"
	plainTCP     = "raw_buffer"
	defaultChain = "PassthroughFilterChain"
)

// httpALPN is what the HTTP inspector reports for plain HTTP.
var httpALPN = []string{"http/1.1", "h2c"}

// captured reports whether the workload's traffic is redirected to the proxy.
func (b *listenerBuilder) captured() bool { return b.proxy.InterceptionMode != "NONE" }

// transparent reports whether connections come as they are (TPROXY), rather than with
// the proxy's address for their destination.
func (b *listenerBuilder) transparent() bool { return b.proxy.InterceptionMode == "TPROXY" }

func (b *listenerBuilder) sidecarListeners() []ir.Listener {
	o := &outboundListeners{listenerBuilder: b, at: map[string]int{}, virtual: mesh.IndexHosts(b.scope.VirtualServices())}
	for _, e := range b.scope.Egress() {
		o.addEgress(e)
	}
	out := o.finish()
	if b.captured() {
		out = append(out, b.virtualOutbound(), b.virtualInbound())
	}
	return out
}

// unknownCluster is where traffic to destinations that nobody declared goes.
func unknownCluster(scope *mesh.Scope) string {
	if scope.AllowAny() {
		return wellknown.PassthroughCluster
	}
	return wellknown.BlackHoleCluster
}

// virtualOutbound takes all captured outbound connections and hands each to the
// listener of its original destination; what has none goes on unseen, or nowhere.
func (b *listenerBuilder) virtualOutbound() ir.Listener {
	port := uint32(b.snapshot.MeshConfig.GetProxyListenPort())
	l := b.newListener(captureOut, wildcardAddress, port)
	l.UseOriginalDst, l.Transparent = true, b.transparent()
	l.Chains = []ir.FilterChain{
		{Name: captureOut + "-blackhole", Match: ir.ChainMatch{DestinationPort: port}, TCP: tcpTo(wellknown.BlackHoleCluster, nil)},
		{Name: captureOut + "-catchall-tcp", TCP: tcpTo(unknownCluster(b.scope), b.logs)},
	}
	return l
}

// outboundListeners collects the listeners for what the workload calls.
type outboundListeners struct {
	*listenerBuilder
	listeners []*outboundListener
	at        map[string]int // index by name
	virtual   *mesh.HostIndex
	first     map[string]*registry.Service // whose an address and port is, by name of listener
}

// An outboundListener is one listener while services are added to it.
type outboundListener struct {
	ir.Listener
	http     bool // an HTTP chain, shared by all services of the port
	tcp      bool
	wildcard bool
	locked   bool // of an egress listener of its own, to which no other adds
}

// An outboundPort is where one port of a service is listened for.
type outboundPort struct {
	bind   string // "": by protocol and the service's addresses
	port   uint32
	bound  bool // with a socket of its own
	spec   registry.Protocol
	egress *networking.IstioEgressListener
}

func (o *outboundListeners) addEgress(e mesh.EgressListener) {
	if e.Spec.GetPort().GetNumber() == 0 {
		for _, l := range o.listeners {
			l.locked = true
		}
	}
	bound := !o.captured() || e.Spec.GetCaptureMode() == networking.CaptureMode_NONE
	for _, s := range e.Services {
		if n := e.Spec.GetPort().GetNumber(); n != 0 {
			protocol := registry.ParseProtocol(e.Spec.GetPort().GetProtocol())
			o.addPort(s, outboundPort{bind: e.Spec.GetBind(), port: n, bound: bound, spec: protocol, egress: e.Spec})
			continue
		}
		for _, p := range s.Ports {
			o.addPort(s, outboundPort{bind: e.Spec.GetBind(), port: p.Number, bound: bound, spec: p.Protocol, egress: e.Spec})
		}
	}
}

func (o *outboundListeners) addPort(s *registry.Service, p outboundPort) {
	if p.spec == registry.UDP {
		return
	}
	if p.bound && p.bind == "" {
		p.bind = loopback
	}
	if p.spec.IsHTTP() {
		o.addHTTP(p)
		return
	}
	for _, address := range o.destinations(s, p) {
		o.addTCP(s, p, address)
	}
}

// A destination is an address on which a service is listened for.
type destination struct {
	bind  string
	cidrs []string // further condition on a shared address
}

// destinations are the addresses of a service's port. A service without address of
// its own shares the wildcard with others; a headless one is listened for on each
// endpoint.
func (o *outboundListeners) destinations(s *registry.Service, p outboundPort) []destination {
	if p.bind != "" {
		return []destination{{bind: p.bind}}
	}
	var out []destination
	for _, a := range serviceAddresses(s, o.proxy) {
		prefix, err := netip.ParsePrefix(a)
		switch {
		case err != nil:
			out = append(out, destination{bind: a})
		case prefix.IsSingleIP():
			out = append(out, destination{bind: prefix.Addr().String()})
		default:
			out = append(out, destination{bind: wildcardAddress, cidrs: []string{a}})
		}
	}
	if len(out) == 0 && s.Headless {
		out = o.endpointAddresses(s, p.port)
	}
	if len(out) == 0 {
		out = []destination{{bind: wildcardAddress}}
	}
	return out
}

func (o *outboundListeners) endpointAddresses(s *registry.Service, port uint32) []destination {
	p := s.Port(port)
	if p == nil {
		return nil
	}
	var out []destination
	for _, e := range o.snapshot.Registry.Endpoints(s, *p) {
		d := destination{bind: e.Address}
		if _, err := netip.ParseAddr(e.Address); err != nil || slices.Contains(o.proxy.Addresses, e.Address) {
			continue
		}
		if !slices.ContainsFunc(out, func(x destination) bool { return x.bind == d.bind }) {
			out = append(out, d)
		}
	}
	return out
}

// serviceAddresses are the addresses by which the proxy's workload reaches a
// service. Allocated ones are known to workloads whose DNS the mesh answers.
func serviceAddresses(s *registry.Service, p *mesh.Proxy) []string {
	if len(s.Addresses) == 0 && s.AutoAddress != "" && p.DNSCapture {
		return []string{s.AutoAddress}
	}
	return s.Addresses
}

// get returns the listener on an address, nil if it is not there yet.
func (o *outboundListeners) get(address string, port uint32) *outboundListener {
	if i, ok := o.at[listenerName(address, port)]; ok {
		return o.listeners[i]
	}
	return nil
}

func (o *outboundListeners) open(address string, port uint32, bound bool) *outboundListener {
	var none time.Duration
	name := listenerName(address, port)
	l := &outboundListener{wildcard: address == wildcardAddress, Listener: ir.Listener{
		Name: name, Address: address, Port: port, Unbound: !bound,
		InspectionTimeout: &none, ContinueOnTimeout: true,
	}}
	if t := o.snapshot.MeshConfig.GetProtocolDetectionTimeout(); t != nil {
		d := t.AsDuration()
		l.InspectionTimeout = &d
	}
	if bound {
		l.AcceptsPerEvent, l.AccessLogs = 1, noRouteLogs(o.logs)
	}
	o.at[name] = len(o.listeners)
	o.listeners = append(o.listeners, l)
	return l
}

// addHTTP opens the listener that all HTTP services on a port share: their requests
// are told apart by host. A TCP service that had the address first keeps it.
func (o *outboundListeners) addHTTP(p outboundPort) {
	address, route := wildcardAddress, fmt.Sprint(p.port)
	if p.bind != "" {
		address = p.bind
		if p.egress.GetBind() != "" {
			route = listenerName(p.bind, p.port)
		}
	}
	if o.get(address, p.port) != nil {
		return
	}
	l := o.open(address, p.port, p.bound)
	l.http = true
	c := o.outboundHTTPChain(l.Name, route, p.port, p.spec)
	if l.wildcard { // other bytes than HTTP may arrive at any address
		c.Match = ir.ChainMatch{ApplicationProtocols: httpALPN, TransportProtocol: plainTCP}
		l.Inspectors = []ir.Inspector{{Kind: ir.HTTPInspector}}
	}
	l.Chains = []ir.FilterChain{c}
}

func (o *outboundListeners) outboundHTTPChain(listener, route string, port uint32, protocol registry.Protocol) ir.FilterChain {
	h := o.connectionManager("outbound_" + listener + ";")
	h.RouteName = route
	o.setHeaders(h, outbound)
	h.Lookups = o.lookups(o.scope.Services(), port)
	o.filter(h, ir.PeerMetadataUpstream, port, protocol == registry.GRPCWeb)
	return ir.FilterChain{HandshakeTimeout: handshakeTimeout, HTTP: h}
}

// addTCP adds a service whose connections are passed on as bytes. Where its protocol
// is not known, connections that turn out to be HTTP are routed as such.
func (o *outboundListeners) addTCP(s *registry.Service, p outboundPort, d destination) {
	l := o.get(d.bind, p.port)
	if l != nil && (l.http || l.locked) || p.bind == "" && o.served(s, d.bind, p.port) {
		return // the older HTTP service, or the egress listener, has the address
	}
	if l == nil {
		l = o.open(d.bind, p.port, p.bound)
	}
	l.tcp = true
	var chains []ir.FilterChain
	if p.spec.IsTLS() {
		chains = o.tlsChains(s, p, d)
	} else {
		chains = o.tcpChains(s, p, d)
	}
	if p.spec == registry.Unsupported && len(l.Chains) == 0 && l.DefaultChain == nil {
		o.detectHTTP(l, s, p, chains)
		return
	}
	l.Chains = append(l.Chains, chains...)
}

// served reports whether an address of a service is that of an older HTTP service, which a
// listener for the address alone would take all requests from.
func (o *outboundListeners) served(s *registry.Service, address string, port uint32) bool {
	if address == wildcardAddress {
		return false
	}
	if o.first == nil {
		o.first = map[string]*registry.Service{}
		for _, older := range o.scope.Services() {
			for _, p := range older.Ports {
				for _, a := range older.Addresses {
					if name := listenerName(a, p.Number); o.first[name] == nil {
						o.first[name] = older
					}
				}
			}
		}
	}
	first := o.first[listenerName(address, port)]
	return first != nil && first.Host != s.Host && first.Port(port).Protocol.IsHTTP()
}

// detectHTTP makes a listener that looks at the first bytes: HTTP goes to the
// routes of the service, the rest where it would go as TCP.
func (o *outboundListeners) detectHTTP(l *outboundListener, s *registry.Service, p outboundPort, tcp []ir.FilterChain) {
	l.http = true
	route := fmt.Sprintf("%s:%d", s.Host, p.port)
	if l.wildcard {
		route = fmt.Sprint(p.port)
	}
	c := o.outboundHTTPChain(l.Name, route, p.port, p.spec)
	c.Match = ir.ChainMatch{ApplicationProtocols: httpALPN, TransportProtocol: plainTCP}
	l.Inspectors = []ir.Inspector{{Kind: ir.HTTPInspector}}
	l.Chains = []ir.FilterChain{c}
	for i := range tcp {
		if len(tcp[i].Match.DestinationCIDRs) == 0 {
			l.DefaultChain = &tcp[i]
			continue
		}
		l.Chains = append(l.Chains, tcp[i])
	}
}

// finish gives every shared listener the chain for what it does not know, and the
// inspectors that its chains need.
func (o *outboundListeners) finish() []ir.Listener {
	out := make([]ir.Listener, len(o.listeners))
	for i, l := range o.listeners {
		l.Chains = distinctChains(l.Chains)
		open := slices.ContainsFunc(l.Chains, func(c ir.FilterChain) bool { return chainTakesAll(c.Match) })
		if l.wildcard && l.DefaultChain == nil && !open {
			l.DefaultChain = &ir.FilterChain{Name: defaultChain, Match: ir.ChainMatch{All: true},
				TCP: tcpTo(unknownCluster(o.scope), o.logs)}
		}
		if slices.ContainsFunc(l.Chains, seesClientHello) {
			l.Inspectors = append([]ir.Inspector{{Kind: ir.TLSInspector}}, l.Inspectors...)
		}
		out[i] = l.Listener
	}
	return out
}

func chainTakesAll(m ir.ChainMatch) bool {
	return m.DestinationPort == 0 && len(m.ServerNames)+len(m.ApplicationProtocols)+len(m.DestinationCIDRs) == 0 &&
		m.TransportProtocol == ""
}
