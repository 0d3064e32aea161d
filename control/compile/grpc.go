package compile

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
	"github.com/lateen-mesh/lateen/wellknown"
)

// GRPCListeners returns what stands behind the names that a gRPC program asks for:
// "host:port", with the short forms of hosts that DNS would complete, is something that it
// calls; wellknown.GRPCInboundListener and an address is a socket on which it is called.
// Names that nothing stands behind are left out.
//
// Kinds read: as Routes, AuthorizationPolicy, RequestAuthentication, PeerAuthentication.
func GRPCListeners(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy, names []string) []ir.GRPCListener {
	var out []ir.GRPCListener
	tables := newSidecarTables(s, scope, p)
	access := sync.OnceValue(func() []ir.AccessFilter { return grpcAccess(s, scope, p) })
	for _, name := range names {
		socket, serves := strings.CutPrefix(name, wellknown.GRPCInboundListener)
		host, port, ok := hostPort(socket)
		switch {
		case !ok:
		case serves:
			strict := s.Identities && s.Authentication(p.Namespace, p.Labels).At(port) == mesh.Strict
			out = append(out, ir.GRPCListener{Name: name, Address: host, Port: port, Strict: strict, Access: access()})
		default:
			if host = tables.called(host, port); host != "" {
				out = append(out, ir.GRPCListener{Name: name, RouteName: clusterName(host, "", port)})
			}
		}
	}
	return out
}

func hostPort(text string) (host string, port uint32, ok bool) {
	host, number, err := net.SplitHostPort(text)
	if err != nil {
		return "", 0, false
	}
	n, err := strconv.ParseUint(number, 10, 16)
	return host, uint32(n), err == nil && n > 0
}

// called is the full name of a host that a workload calls at a port, as its DNS search path
// completes it; "" if nobody has it.
func (s *sidecarTables) called(host string, port uint32) string {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	names := []string{host}
	for suffix := s.proxy.Domain; suffix != ""; {
		names = append(names, host+"."+suffix)
		_, suffix, _ = strings.Cut(suffix, ".")
	}
	for _, name := range names {
		if s.grpcRoutes(name, port) != nil {
			return name
		}
	}
	return ""
}

// grpcRoutes are the routes of calls to a host, nil where neither a service nor a
// VirtualService has it. They are not fitted.
func (s *sidecarTables) grpcRoutes(host string, port uint32) []ir.Route {
	t := &sidecarTable{sidecarTables: s, port: port, taken: map[string]bool{}}
	e := t.egressFor("", port)
	if e == nil {
		return nil
	}
	service := e.services[host]
	if service != nil && service.Port(port) == nil {
		return nil
	}
	if routes := t.routes(e, host); len(routes) > 0 || service == nil {
		return routes
	}
	return []ir.Route{t.serviceRoute(service)}
}

// GRPCRoutes returns the route tables that a gRPC program asks for, "outbound|port||host",
// with what gRPC cannot carry out taken away (see GRPCUnfit). Names that do not exist are
// left out. Each has one virtual host for whatever the program calls itself the authority.
func GRPCRoutes(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy, names []string) []ir.RouteConfiguration {
	var out []ir.RouteConfiguration
	f := newGRPCFit(s, scope, p)
	for _, name := range names {
		host, subset, port, ok := parseClusterName(name)
		if !ok || subset != "" {
			continue
		}
		routes := f.tables.grpcRoutes(host, port)
		if routes == nil {
			continue
		}
		f.host, f.port = host, port
		vh := ir.VirtualHost{Name: fmt.Sprintf("%s:%d", host, port), Domains: []string{"*"}}
		for _, r := range routes {
			vh.Routes = append(vh.Routes, f.route(r)...)
		}
		out = append(out, ir.RouteConfiguration{Name: name, VirtualHosts: []ir.VirtualHost{vh}, MaxDirectResponseBody: maxDirectResponseBody})
	}
	return out
}

// GRPCClusters returns the clusters that a gRPC program asks for by name. There is one
// without endpoints, wellknown.BlackHoleCluster, for calls that lead nowhere; names that do
// not exist, and clusters that gRPC cannot reach, are left out.
func GRPCClusters(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy, names []string) []ir.Cluster {
	var out []ir.Cluster
	b := clusterBuilder{mesh: s, scope: scope, proxy: p}
	for _, name := range names {
		if name == wellknown.BlackHoleCluster {
			out = append(out, ir.Cluster{Name: name, Discovery: ir.EDS, LoadBalancer: ir.LoadBalancer{Balancer: ir.RoundRobin}})
			continue
		}
		t, err := b.named(name)
		if err == nil && b.unreachable(t) == "" {
			out = append(out, b.grpcCluster(name, t))
		}
	}
	return out
}

// grpcCluster spreads calls in turn, or by hash: these are what every gRPC has.
func (b *clusterBuilder) grpcCluster(name string, t target) ir.Cluster {
	p := policyFor(t.rule, t.subset, t.port.Number)
	c := ir.Cluster{Name: name, Discovery: ir.EDS, Limits: noLimits(), LoadBalancer: ir.LoadBalancer{Balancer: ir.RoundRobin}}
	if h := p.balancer.GetConsistentHash(); h != nil {
		if hashBalancer(&c.LoadBalancer, h); c.LoadBalancer.Balancer != ir.RingHash { // Maglev
			c.LoadBalancer = ir.LoadBalancer{Balancer: ir.RingHash, MinRingSize: defaultRingSize}
		}
	}
	limit(&c.Limits.MaxRequests, p.pool.GetHttp().GetHttp2MaxRequests())
	if d := b.discovery(t.service); d == ir.StrictDNS || d == ir.LogicalDNS {
		c.Discovery, c.Assignment = ir.LogicalDNS, b.assignment(name, t, p)
	}
	if p.tls.GetMode() == networking.ClientTLSSettings_ISTIO_MUTUAL {
		c.TLS = b.meshTLS(&c, t, p.tls)
	}
	return c
}

// unreachable is why gRPC cannot call a target, "" if it can. What is to be encrypted is
// never called in plain text instead.
func (b *clusterBuilder) unreachable(t target) string {
	p := policyFor(t.rule, t.subset, t.port.Number)
	switch mode := p.tls.GetMode(); mode {
	case networking.ClientTLSSettings_SIMPLE, networking.ClientTLSSettings_MUTUAL:
		return fmt.Sprintf("a DestinationRule asks for TLS of mode %s", mode)
	}
	if p.proxy != nil {
		return "a DestinationRule asks for the PROXY protocol"
	}
	switch b.discovery(t.service) {
	case ir.DynamicForwardProxy:
		return "its resolution is DYNAMIC_DNS"
	case ir.StrictDNS, ir.LogicalDNS:
		a := b.assignment("", t, p)
		if len(a.Localities) != 1 || len(a.Localities[0].Endpoints) != 1 || a.Localities[0].Endpoints[0].Port == 0 {
			return "its resolution is DNS and it has not exactly one endpoint"
		}
	}
	return ""
}

// GRPCEndpoints returns the endpoints of a cluster that a gRPC program asks for, nil when
// there is no such cluster. What gRPC would refuse the whole cluster for is left out: an
// address that is there already, and sockets of files.
func GRPCEndpoints(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy, cluster string) *ir.Assignment {
	if cluster == wellknown.BlackHoleCluster {
		return &ir.Assignment{Cluster: cluster}
	}
	a := Endpoints(s, scope, p, cluster)
	if a == nil {
		return nil
	}
	seen := map[string]bool{}
	for i, l := range a.Localities {
		a.Localities[i].Endpoints = slices.DeleteFunc(l.Endpoints, func(e ir.Endpoint) bool {
			at := fmt.Sprintf("%s:%d", e.Address, e.Port)
			drop := e.Port == 0 || seen[at]
			seen[at] = true
			return drop
		})
	}
	return a
}

// named is the target behind the name of an outbound cluster.
func (b *clusterBuilder) named(cluster string) (target, error) {
	host, subset, number, ok := parseClusterName(cluster)
	if !ok {
		return target{}, fmt.Errorf("%q names no destination", cluster)
	}
	service := b.scope.Service(host)
	if service == nil {
		return target{}, fmt.Errorf("no service has the host %s", host)
	}
	port := service.Port(number)
	if port == nil || port.Protocol == registry.UDP {
		return target{}, fmt.Errorf("the service %s has no port %d", host, number)
	}
	t := target{service: service, port: *port, rule: b.scope.DestinationRule(service)}
	if subset != "" {
		if t.subset = t.rule.Subset(subset); t.subset == nil {
			return target{}, fmt.Errorf("no DestinationRule has a subset %s of %s", subset, host)
		}
	}
	return t, nil
}
