package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// A gatewayServer is one server of a Gateway as one proxy serves it.
type gatewayServer struct {
	*networking.Server
	gateway *mesh.Gateway
	index   int    // of the server in its Gateway
	port    uint32 // the port that is bound; Server.Port is the one clients know
	bind    string // "" for all addresses
	hosts   []string
	route   string // RDS name, "" where connections are not HTTP
}

// isHTTP: requests are seen, as plain HTTP or inside terminated TLS.
func (g *gatewayServer) isHTTP() bool {
	return isPlainHTTP(g.Server) || protocolOf(g.Server) == "HTTPS" && g.Tls != nil && !isPassthrough(g.Server)
}

// isTLS: connections begin with a ClientHello.
func (g *gatewayServer) isTLS() bool { return g.Tls != nil && !isPlainHTTP(g.Server) }

func protocolOf(s *networking.Server) string { return strings.ToUpper(s.GetPort().GetProtocol()) }

func isPlainHTTP(s *networking.Server) bool {
	switch protocolOf(s) {
	case "HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY":
		return true
	}
	return false
}

func isPassthrough(s *networking.Server) bool {
	m := s.GetTls().GetMode()
	return m == networking.ServerTLSSettings_PASSTHROUGH || m == networking.ServerTLSSettings_AUTO_PASSTHROUGH
}

// A gatewayPort is the servers of one listener with one protocol.
type gatewayPort struct {
	port     uint32
	bind     string
	protocol string
	servers  []*gatewayServer
}

// address is what the listener binds.
func (g *gatewayPort) address() string {
	if g.bind == "" {
		return wildcardAddress
	}
	return strings.TrimPrefix(strings.TrimPrefix(g.bind, "unix://"), "unix:")
}

// gatewayPorts merges the servers of all Gateways that select the proxy. Older
// Gateways win: a server that cannot share its port with an earlier one is left out.
func gatewayPorts(scope *mesh.Scope) []*gatewayPort {
	return mergeGateways(scope.Gateways(), scope.Instances()).ports
}

// hasPlainServer reports whether a port has servers whose connections begin without TLS, as far
// as their Gateways say.
func hasPlainServer(gateways []*mesh.Gateway, port uint32) bool {
	return slices.ContainsFunc(gateways, func(g *mesh.Gateway) bool {
		return slices.ContainsFunc(g.Spec.GetServers(), func(s *networking.Server) bool {
			return s.GetPort().GetNumber() == port && !(&gatewayServer{Server: s}).isTLS()
		})
	})
}

// A LeftOut is a server of a Gateway that is not served, because of an earlier one.
type LeftOut struct {
	Object *config.Config
	Field  string // "servers[0]"
	Reason string
}

// ServersLeftOut are those of the proxy's Gateways.
//
// Kinds read: Gateway, and what says which ports the proxy's Service has.
func ServersLeftOut(s *mesh.Snapshot, p *mesh.Proxy) []LeftOut {
	return mergeGateways(s.Gateways(p), s.Instances(p)).left
}

func mergeGateways(gateways []*mesh.Gateway, instances []registry.Instance) *gatewayMerge {
	m := &gatewayMerge{first: map[uint32]*gatewayServer{}, plain: map[uint32]*gatewayPort{},
		tlsHosts: map[string]*gatewayServer{}, routes: map[string]*gatewayServer{}}
	for _, g := range gateways {
		for i, server := range g.Spec.GetServers() {
			for _, port := range boundPorts(instances, server.GetPort().GetNumber()) {
				m.add(newGatewayServer(g, i, server, port))
			}
		}
	}
	return m
}

// boundPorts maps a port of the proxy's Service to the ports its workload listens
// on; a port that no Service of the proxy has is bound as it is.
func boundPorts(instances []registry.Instance, number uint32) []uint32 {
	var out []uint32
	for _, i := range instances {
		if i.Port.Number == number && !slices.Contains(out, i.Endpoint.Port) {
			out = append(out, i.Endpoint.Port)
		}
	}
	if len(out) == 0 {
		return []uint32{number}
	}
	return out
}

func newGatewayServer(c *mesh.Gateway, index int, server *networking.Server, port uint32) *gatewayServer {
	g := &gatewayServer{Server: server, gateway: c, index: index, port: port, bind: server.GetBind()}
	for _, h := range server.GetHosts() {
		h = strings.ToLower(h)
		if rest, ok := strings.CutPrefix(h, "./"); ok {
			h = c.Namespace + "/" + rest
		}
		g.hosts = append(g.hosts, h)
	}
	switch {
	case isPlainHTTP(server):
		g.route = fmt.Sprintf("http.%d", port)
		if g.bind != "" {
			g.route += "." + g.bind
		}
	case g.isHTTP():
		g.route = fmt.Sprintf("https.%d.%s.%s.%s", server.GetPort().GetNumber(), server.GetPort().GetName(), c.Name, c.Namespace)
	}
	return g
}

// gatewayMerge is the state of one merge.
type gatewayMerge struct {
	ports    []*gatewayPort
	left     []LeftOut
	first    map[uint32]*gatewayServer // on each port
	plain    map[uint32]*gatewayPort   // first claim of a port without TLS
	tlsHosts map[string]*gatewayServer // "bind|port|host" of TLS servers: one chain for each SNI
	routes   map[string]*gatewayServer // by HTTPS route name
}

func (m *gatewayMerge) add(g *gatewayServer) {
	if g.isTLS() {
		if host, other := m.taken(g); other != nil {
			m.leave(g, other, "it has the host %s of port %d already", host, g.port)
			return
		}
		m.claimHosts(g)
	}
	first, plain := m.first[g.port], m.plain[g.port]
	switch {
	case first == nil:
		m.first[g.port] = g
		port := m.join(g)
		if !g.isTLS() {
			m.plain[g.port] = port
		}
	case plain != nil && plain.bind != g.bind:
		m.join(g)
	case plain != nil && isPlainHTTP(g.Server) && isPlainHTTP(plain.servers[0].Server):
		plain.servers = append(plain.servers, g) // only HTTP servers share one address without TLS
	case plain != nil, !g.isTLS():
		m.leave(g, first, "it has port %d for %s", g.port, protocolOf(first.Server))
		return
	case g.isHTTP() && m.routes[g.route] != nil:
		m.leave(g, m.routes[g.route], "it has the route name %s", g.route)
		return
	default:
		m.join(g)
	}
	if g.isTLS() && g.isHTTP() {
		m.routes[g.route] = g
	}
}

func (m *gatewayMerge) leave(g, other *gatewayServer, format string, args ...any) {
	m.left = append(m.left, LeftOut{Object: g.gateway.Config, Field: fmt.Sprintf("servers[%d]", g.index),
		Reason: fmt.Sprintf("left out because of servers[%d] of %s: ", other.index, other.gateway.Key) + fmt.Sprintf(format, args...)})
}

// taken finds a server name of g that another server has.
func (m *gatewayMerge) taken(g *gatewayServer) (host string, other *gatewayServer) {
	for _, h := range g.hosts {
		if other := m.tlsHosts[g.sni(h)]; other != nil {
			return bareHost(h), other
		}
	}
	return "", nil
}

func (m *gatewayMerge) claimHosts(g *gatewayServer) {
	for _, h := range g.hosts {
		m.tlsHosts[g.sni(h)] = g
	}
}

// sni is a key for one server name where the server listens.
func (g *gatewayServer) sni(host string) string {
	return fmt.Sprintf("%s|%d|%s", g.bind, g.port, bareHost(host))
}

// join adds a server to the port of its number, bind and protocol.
func (m *gatewayMerge) join(g *gatewayServer) *gatewayPort {
	for _, p := range m.ports {
		if p.port == g.port && p.bind == g.bind && p.protocol == protocolOf(g.Server) {
			p.servers = append(p.servers, g)
			return p
		}
	}
	p := &gatewayPort{port: g.port, bind: g.bind, protocol: protocolOf(g.Server), servers: []*gatewayServer{g}}
	m.ports = append(m.ports, p)
	return p
}

// bareHost is a server's host without its namespace.
func bareHost(h string) string {
	if _, host, ok := strings.Cut(h, "/"); ok {
		return host
	}
	return h
}

// hostsFor are the server's hosts that a VirtualService of the namespace may use.
func (g *gatewayServer) hostsFor(namespace string) []string {
	var out []string
	for _, h := range g.hosts {
		ns, host, ok := strings.Cut(h, "/")
		switch {
		case !ok:
			out = append(out, h)
		case ns == "*" || ns == namespace:
			out = append(out, host)
		}
	}
	return out
}

// boundRules are the VirtualServices bound to Gateways, by the Gateway's full name.
type boundRules map[string]*mesh.HostIndex

// to returns those bound to the server's Gateway that may have hosts in common with
// the server.
func (b boundRules) to(scope *mesh.Scope, g *gatewayServer) []*mesh.VirtualService {
	name := g.gateway.FullName()
	if b[name] == nil {
		b[name] = mesh.IndexHosts(scope.VirtualServicesFor(name))
	}
	hosts := make([]string, len(g.hosts))
	for i, h := range g.hosts {
		hosts[i] = bareHost(h)
	}
	return b[name].Candidates(hosts...)
}

// serverNames are the SNI names of a server, sorted; nil where one of them is *,
// for then there is nothing to match.
func (g *gatewayServer) serverNames() []string {
	var out []string
	for _, h := range g.hosts {
		h = bareHost(h)
		if h == "*" {
			return nil
		}
		if !slices.Contains(out, h) {
			out = append(out, h)
		}
	}
	slices.Sort(out)
	return out
}

// intersectHosts returns what both lists accept: of each pair where one host
// covers the other, the narrower.
func intersectHosts(a, b []string) []string {
	var out []string
	for _, x := range a {
		for _, y := range b {
			h := ""
			switch {
			case config.HostWithin(y, x):
				h = y
			case config.HostWithin(x, y):
				h = x
			default:
				continue
			}
			if !slices.Contains(out, h) {
				out = append(out, h)
			}
		}
	}
	return out
}

// moreSpecific orders hosts: exact names before wildcards, longer before shorter,
// then by name.
func moreSpecific(a, b string) int {
	wild := func(h string) int {
		if strings.HasPrefix(h, "*") {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(wild(a), wild(b)), cmp.Compare(len(b), len(a)), cmp.Compare(a, b))
}
