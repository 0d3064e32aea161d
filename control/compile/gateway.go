package compile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/mesh"
)

// A gatewayServer is one server of a Gateway as one proxy serves it.
type gatewayServer struct {
	*networking.Server
	gateway *mesh.Gateway
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
	m := gatewayMerge{plain: map[uint32]*gatewayPort{}, used: map[uint32]bool{},
		tlsHosts: map[string]bool{}, routes: map[string]bool{}}
	for _, g := range scope.Gateways() {
		for _, server := range g.Spec.GetServers() {
			for _, port := range boundPorts(scope, server.GetPort().GetNumber()) {
				m.add(newGatewayServer(g, server, port))
			}
		}
	}
	return m.ports
}

// boundPorts maps a port of the proxy's Service to the ports its workload listens
// on; a port that no Service of the proxy has is bound as it is.
func boundPorts(scope *mesh.Scope, number uint32) []uint32 {
	var out []uint32
	for _, i := range scope.Instances() {
		if i.Port.Number == number && !slices.Contains(out, i.Endpoint.Port) {
			out = append(out, i.Endpoint.Port)
		}
	}
	if len(out) == 0 {
		return []uint32{number}
	}
	return out
}

func newGatewayServer(c *mesh.Gateway, server *networking.Server, port uint32) *gatewayServer {
	g := &gatewayServer{Server: server, gateway: c, port: port, bind: server.GetBind()}
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
	plain    map[uint32]*gatewayPort // first claim of a port without TLS
	used     map[uint32]bool
	tlsHosts map[string]bool // "bind|port|host" of TLS servers: one chain for each SNI
	routes   map[string]bool // HTTPS route names
}

func (m *gatewayMerge) add(g *gatewayServer) {
	if g.isTLS() && !m.claimHosts(g) {
		return
	}
	first := m.plain[g.port]
	switch {
	case !m.used[g.port]:
		m.used[g.port] = true
		port := m.join(g)
		if !g.isTLS() {
			m.plain[g.port] = port
		}
	case first != nil && first.bind != g.bind:
		m.join(g)
	case first != nil:
		// One address and port without TLS is shared by HTTP servers only.
		if isPlainHTTP(g.Server) && isPlainHTTP(first.servers[0].Server) {
			first.servers = append(first.servers, g)
		}
	case g.isTLS():
		if g.isHTTP() {
			if m.routes[g.route] {
				return
			}
		}
		m.join(g)
	}
	if g.isTLS() && g.isHTTP() {
		m.routes[g.route] = true
	}
}

// claimHosts takes the SNI names of a server; false if one is already taken.
func (m *gatewayMerge) claimHosts(g *gatewayServer) bool {
	keys := make([]string, 0, len(g.hosts))
	for _, h := range g.hosts {
		k := fmt.Sprintf("%s|%d|%s", g.bind, g.port, bareHost(h))
		if m.tlsHosts[k] {
			return false
		}
		keys = append(keys, k)
	}
	for _, k := range keys {
		m.tlsHosts[k] = true
	}
	return true
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
			case mesh.HostWithin(y, x):
				h = y
			case mesh.HostWithin(x, y):
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
