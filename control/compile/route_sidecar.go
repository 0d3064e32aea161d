package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
	"github.com/lateen-mesh/lateen/wellknown"
)

// sidecarTables is what the tables of one sidecar are made from.
type sidecarTables struct {
	snapshot *mesh.Snapshot
	scope    *mesh.Scope
	proxy    *mesh.Proxy
	egress   []*egress
}

// An egress is an egress listener with what is looked up in it for each host.
type egress struct {
	mesh.EgressListener
	virtual  *mesh.HostIndex
	services map[string]*registry.Service // by host
}

func newSidecarTables(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) *sidecarTables {
	t := &sidecarTables{snapshot: s, scope: scope, proxy: p}
	for _, e := range scope.Egress() {
		x := &egress{EgressListener: e, virtual: mesh.IndexHosts(e.VirtualServices), services: map[string]*registry.Service{}}
		for _, service := range e.Services {
			x.services[service.Host] = service
		}
		t.egress = append(t.egress, x)
	}
	return t
}

// table is the one behind an RDS name: a port ("9080"), a bound egress listener
// ("127.0.0.1_9080"), or one service whose protocol is detected ("host:port"). It is
// nil if there is none.
func (s *sidecarTables) table(name string) *ir.RouteConfiguration {
	t := &sidecarTable{sidecarTables: s, taken: map[string]bool{}}
	host, number, single := strings.Cut(name, ":")
	if !single {
		number = name[strings.LastIndexByte(name, '_')+1:]
	}
	port, err := strconv.ParseUint(number, 10, 16)
	if err != nil {
		return nil
	}
	t.port = uint32(port)
	e := t.egressFor(name, t.port)
	if e == nil {
		return nil
	}
	out := &ir.RouteConfiguration{Name: name, IgnoreHostPort: true, MaxDirectResponseBody: maxDirectResponseBody}
	if single {
		out.VirtualHosts = t.detected(e, host)
		return out
	}
	out.VirtualHosts = append(t.virtualHosts(e), unknownHost(t.scope))
	return out
}

// egressFor is the egress listener behind an RDS name: the one with the port, else
// the one without any.
func (s *sidecarTables) egressFor(name string, port uint32) *egress {
	bind, _, bound := strings.Cut(name, "_")
	for _, e := range s.egress {
		switch {
		case bound && e.Spec.GetBind() != bind:
		case e.Spec.GetPort().GetNumber() == 0, e.Spec.GetPort().GetNumber() == port:
			return e
		}
	}
	return nil
}

// unknownHost takes requests to hosts that nobody declared.
func unknownHost(scope *mesh.Scope) ir.VirtualHost {
	r := ir.Route{Name: "block_all", Match: ir.RouteMatch{Path: ir.PathMatch{Value: "/"}},
		Direct: &ir.DirectResponse{Status: 502}}
	if scope.AllowAny() {
		r.Name, r.Direct = "allow_any", nil
		r.Forward = &ir.Forward{Clusters: []ir.WeightedCluster{{Name: wellknown.PassthroughCluster}}}
	}
	return ir.VirtualHost{Name: r.Name, Domains: []string{"*"}, AttemptCount: true, Routes: []ir.Route{r}}
}

// sidecarTable is one table while it is made.
type sidecarTable struct {
	*sidecarTables
	port  uint32
	taken map[string]bool // domains; one must not be in two virtual hosts
}

func (t *sidecarTable) rules() *ruleContext {
	return &ruleContext{snapshot: t.snapshot, scope: t.scope, proxy: t.proxy, port: t.port, gateway: mesh.MeshGateway}
}

// detected is the table of a single service: whatever its host, a request that came
// to its address is meant for it.
func (t *sidecarTable) detected(e *egress, host string) []ir.VirtualHost {
	service := e.services[host]
	if service == nil {
		return []ir.VirtualHost{unknownHost(t.scope)}
	}
	for _, v := range t.host(e, service) {
		v.Domains = []string{"*"}
		return []ir.VirtualHost{v}
	}
	return nil
}

// virtualHosts are those of the services on the port, and on port 80 those of hosts
// that only a VirtualService knows.
func (t *sidecarTable) virtualHosts(e *egress) []ir.VirtualHost {
	var out []ir.VirtualHost
	for _, s := range e.Services {
		if t.serves(e, s) {
			out = append(out, t.host(e, s)...)
		}
	}
	out = append(out, t.unregistered(e)...)
	slices.SortStableFunc(out, func(a, b ir.VirtualHost) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// serves reports whether HTTP requests to the service come to this port.
func (t *sidecarTable) serves(e *egress, s *registry.Service) bool {
	if n := e.Spec.GetPort().GetNumber(); n != 0 {
		return true
	}
	p := s.Port(t.port)
	return p != nil && (p.Protocol.IsHTTP() || p.Protocol == registry.Unsupported && len(serviceAddresses(s, t.proxy)) == 0)
}

// host is the virtual host of a service, with the routes of the oldest
// VirtualService for it or the route to the service itself.
func (t *sidecarTable) host(e *egress, s *registry.Service) []ir.VirtualHost {
	domains := t.claim(domainsOf(s, t.proxy))
	if len(domains) == 0 {
		return nil
	}
	routes := t.routes(e, s.Host)
	if len(routes) == 0 {
		routes = []ir.Route{t.serviceRoute(s)}
	}
	return []ir.VirtualHost{{Name: fmt.Sprintf("%s:%d", s.Host, t.port), Domains: domains, Routes: routes, AttemptCount: true}}
}

// routes are those of the VirtualService in force for a host: the one with the most
// specific host, of equal ones the oldest, among those with rules for this workload and
// port.
func (t *sidecarTable) routes(e *egress, host string) []ir.Route {
	type claim struct {
		host string
		by   *mesh.VirtualService
	}
	var claims []claim
	for _, v := range e.virtual.Candidates(host) {
		best := ""
		for _, h := range v.Spec.GetHosts() {
			if config.HostWithin(host, h) && (best == "" || moreSpecific(h, best) < 0) {
				best = h
			}
		}
		if best != "" {
			claims = append(claims, claim{best, v})
		}
	}
	slices.SortStableFunc(claims, func(a, b claim) int { return moreSpecific(a.host, b.host) })
	for _, c := range claims {
		if routes := t.rules().httpRoutes(c.by); len(routes) > 0 {
			return routes
		}
	}
	return nil
}

// serviceRoute sends everything to the service itself.
func (t *sidecarTable) serviceRoute(s *registry.Service) ir.Route {
	port := t.port
	if s.Port(port) == nil && len(s.Ports) == 1 {
		port = s.Ports[0].Number
	}
	rc := t.rules()
	f := &ir.Forward{Clusters: []ir.WeightedCluster{{Name: clusterName(s.Host, "", port)}}, Retry: rc.retry(nil, false)}
	if hash := rc.serviceHash(s, port); hash != nil {
		f.HashPolicies = []ir.HashPolicy{*hash}
	}
	return ir.Route{
		Name:      "default",
		Match:     ir.RouteMatch{Path: ir.PathMatch{Value: "/"}},
		Operation: fmt.Sprintf("%s:%d/*", s.Host, port),
		Forward:   f,
	}
}

// unregistered are the hosts of VirtualServices that no registry has.
func (t *sidecarTable) unregistered(e *egress) []ir.VirtualHost {
	if t.port != 80 {
		return nil
	}
	var out []ir.VirtualHost
	for _, v := range e.VirtualServices {
		var routes []ir.Route
		for _, h := range v.Spec.GetHosts() {
			if t.registered(e, h) {
				continue
			}
			domains := t.claim([]string{h})
			if len(domains) == 0 {
				continue
			}
			if routes == nil {
				routes = t.rules().httpRoutes(v)
			}
			if len(routes) > 0 {
				out = append(out, ir.VirtualHost{Name: fmt.Sprintf("%s:%d", h, t.port), Domains: domains,
					Routes: routes, AttemptCount: true})
			}
		}
	}
	return out
}

// registered reports whether a service answers to the host, or is covered by it.
func (t *sidecarTable) registered(e *egress, host string) bool {
	if !strings.HasPrefix(host, "*") {
		return e.services[host] != nil
	}
	return slices.ContainsFunc(e.Services, func(s *registry.Service) bool { return config.HostWithin(s.Host, host) })
}

// claim keeps the domains that no earlier virtual host has.
func (t *sidecarTable) claim(domains []string) []string {
	var out []string
	for _, d := range domains {
		if !t.taken[d] {
			t.taken[d] = true
			out = append(out, d)
		}
	}
	return out
}

// domainsOf are the names under which the proxy's workload may call a service: the
// full name, also absolute, the short forms that the workload's DNS search path
// completes, and the service's addresses.
func domainsOf(s *registry.Service, p *mesh.Proxy) []string {
	out := []string{s.Host, absolute(s.Host)}
	short := shortNames(s.Host, p.Domain)
	out = append(out, short...)
	if s.Headless && !s.FromEntry { // StatefulSet members
		out = append(out, "*."+s.Host, "*."+absolute(s.Host))
		for _, n := range short {
			out = append(out, "*."+n)
		}
	}
	for _, a := range serviceAddresses(s, p) {
		if prefix, err := netip.ParsePrefix(a); err == nil {
			if !prefix.IsSingleIP() {
				continue
			}
			a = prefix.Addr().String()
		}
		if strings.Contains(a, ":") {
			a = "[" + a + "]"
		}
		out = append(out, a)
	}
	return out
}

// absolute is the host with the trailing dot of an absolute DNS name.
func absolute(host string) string {
	if host == "*" {
		return host
	}
	return host + "."
}

// shortNames are the forms of a cluster host that a workload of the domain
// ("default.svc.cluster.local") may use.
func shortNames(host, domain string) []string {
	namespace, cluster, ok := strings.Cut(domain, ".")
	if !ok || !strings.HasPrefix(cluster, "svc.") {
		return nil
	}
	rest, ok := strings.CutSuffix(host, "."+cluster)
	if !ok {
		return nil
	}
	if name, own := strings.CutSuffix(rest, "."+namespace); own {
		return []string{name, rest + ".svc", rest}
	}
	return []string{rest, rest + ".svc"}
}
