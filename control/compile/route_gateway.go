package compile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// gatewayTables is what the tables of one gateway are made from.
type gatewayTables struct {
	snapshot *mesh.Snapshot
	scope    *mesh.Scope
	proxy    *mesh.Proxy
	servers  map[string][]*gatewayServer // by RDS name
	tls      map[string][]*gatewayServer // those that are found by SNI, by socket
	bound    boundRules
}

func newGatewayTables(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) *gatewayTables {
	t := &gatewayTables{snapshot: s, scope: scope, proxy: p, servers: map[string][]*gatewayServer{}, tls: map[string][]*gatewayServer{}, bound: boundRules{}}
	for _, port := range gatewayPorts(scope) {
		for _, g := range port.servers {
			if g.isTLS() {
				t.tls[g.socket()] = append(t.tls[g.socket()], g)
			}
			if g.route != "" {
				t.servers[g.route] = append(t.servers[g.route], g)
			}
		}
	}
	return t
}

// table is the one behind an RDS name, nil if there is none.
func (t *gatewayTables) table(name string) *ir.RouteConfiguration {
	servers := t.servers[name]
	if len(servers) == 0 {
		// The name of a listener that is just going away, or port 80 of an ingress
		// gateway that no Gateway has claimed.
		if port, ok := strings.CutPrefix(name, "http."); ok && isPort(port) {
			return blackhole(name, port)
		}
		return nil
	}
	hosts := gatewayHosts{gatewayTables: t, hosts: map[string]*ir.VirtualHost{}, sources: map[string]string{}}
	for _, g := range servers {
		hosts.addServer(g)
	}
	number := servers[0].GetPort().GetNumber()
	elsewhere, own := t.elsewhere(servers[0], hosts.hosts)
	if len(hosts.hosts) == 0 {
		c := blackhole(name, strconv.FormatUint(uint64(number), 10))
		c.VirtualHosts[0].Domains = append(c.VirtualHosts[0].Domains, own...)
		return misdirected(c, number, elsewhere)
	}
	for _, host := range own {
		hosts.get(host, number)
	}
	return misdirected(&ir.RouteConfiguration{Name: name, IgnoreHostPort: true, MaxDirectResponseBody: maxDirectResponseBody,
		VirtualHosts: hosts.collapse()}, number, elsewhere)
}

func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return err == nil
}

// blackhole answers 404 to everything. The route has a name so that the access log
// can tell this from a request that an existing host has no route for.
func blackhole(name, port string) *ir.RouteConfiguration {
	return &ir.RouteConfiguration{Name: name, VirtualHosts: []ir.VirtualHost{{
		Name:    "blackhole:" + port,
		Domains: []string{"*"},
		Routes: []ir.Route{{
			Name:   "default",
			Match:  ir.RouteMatch{Path: ir.PathMatch{Value: "/"}},
			Direct: &ir.DirectResponse{Status: 404},
		}},
	}}}
}

// gatewayHosts collects the virtual hosts of one table by host name.
type gatewayHosts struct {
	*gatewayTables
	hosts map[string]*ir.VirtualHost
	// sources says which VirtualServices a host's routes are made of: hosts of equal
	// sources are one virtual host.
	sources map[string]string
}

// addServer adds what the VirtualServices bound to the server's Gateway say about
// its hosts.
func (h *gatewayHosts) addServer(g *gatewayServer) {
	rc := &ruleContext{snapshot: h.snapshot, scope: h.scope, proxy: h.proxy, port: g.GetPort().GetNumber(),
		gateway: g.gateway.FullName(), tls: g.isTLS()}
	redirect := g.GetTls().GetHttpsRedirect()
	for _, v := range h.bound.to(h.scope, g) {
		hosts := intersectHosts(g.hostsFor(v.Namespace), v.Spec.GetHosts())
		if len(hosts) == 0 {
			continue
		}
		routes := rc.httpRoutes(v)
		if len(routes) == 0 {
			continue
		}
		for _, host := range hosts {
			vh := h.get(host, rc.port)
			vh.Routes = append(vh.Routes, routes...)
			vh.AttemptCount = true
			vh.RequireTLS = vh.RequireTLS || redirect
			h.sources[host] += fmt.Sprintf("%s %s/%s %d\n", rc.gateway, v.Namespace, v.Name, rc.port)
		}
	}
	if !redirect {
		return
	}
	for _, host := range g.hosts {
		vh := h.get(bareHost(host), rc.port)
		vh.AttemptCount, vh.RequireTLS = true, true
	}
}

func (h *gatewayHosts) get(host string, port uint32) *ir.VirtualHost {
	vh := h.hosts[host]
	if vh == nil {
		vh = &ir.VirtualHost{Name: fmt.Sprintf("%s:%d", host, port), Domains: []string{host}}
		h.hosts[host] = vh
	}
	return vh
}

// collapse returns the virtual hosts sorted by name, with hosts of equal routes in
// one. Within a host routes that take every request stand last, so that no
// VirtualService hides the rules of another.
func (h *gatewayHosts) collapse() []ir.VirtualHost {
	var out []*ir.VirtualHost
	same := map[string]*ir.VirtualHost{}
	for _, host := range slices.SortedFunc(maps.Keys(h.hosts), moreSpecific) {
		vh := h.hosts[host]
		if source := h.sources[host]; source != "" {
			key := fmt.Sprintf("%s%v", source, vh.RequireTLS)
			if first := same[key]; first != nil {
				first.Domains = append(first.Domains, vh.Domains...)
				continue
			}
			same[key] = vh
		}
		vh.Routes = catchAllLast(vh.Routes)
		out = append(out, vh)
	}
	slices.SortFunc(out, func(a, b *ir.VirtualHost) int { return strings.Compare(a.Name, b.Name) })
	hosts := make([]ir.VirtualHost, len(out))
	for i, vh := range out {
		hosts[i] = *vh
	}
	return hosts
}

// catchAllLast moves the first route that takes every request to the end; others
// like it could never be reached.
func catchAllLast(routes []ir.Route) []ir.Route {
	var out, last []ir.Route
	for _, r := range routes {
		switch {
		case !catchesAll(r):
			out = append(out, r)
		case last == nil:
			last = []ir.Route{r}
		}
	}
	return append(out, last...)
}
