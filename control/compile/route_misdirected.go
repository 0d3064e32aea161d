package compile

import (
	"fmt"
	"slices"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
)

// A client that speaks HTTP/2 sends requests for one host on a connection that it opened for
// another, when the certificate covers both and they have one address. Where another server
// of the port serves the second host, with rules of its own, the answer is 421: the client
// asks again on a connection of that host's (RFC 9113, 9.1.1). The original says 404.

// maxElsewhere bounds the hosts that one table sends elsewhere: each server of a port would
// have all hosts of all others. Further ones are answered 404, as in the original.
const maxElsewhere = 200

// socket is a key for where the server listens.
func (g *gatewayServer) socket() string { return fmt.Sprintf("%s|%d", g.bind, g.port) }

// elsewhere returns the hosts of the other servers that share the socket of g, as far as
// its table has no virtual host for them, and the hosts of g itself that these would take
// from it: they need virtual hosts of their own.
func (t *gatewayTables) elsewhere(g *gatewayServer, known map[string]*ir.VirtualHost) (hosts, own []string) {
	if !g.isTLS() || known["*"] != nil {
		return nil, nil
	}
	for _, other := range t.tls[g.socket()] {
		if other == g {
			continue
		}
		for _, h := range other.hosts {
			if h = bareHost(h); h != "*" && len(hosts) < maxElsewhere && !slices.Contains(hosts, h) && !covered(h, known) {
				hosts = append(hosts, h)
			}
		}
	}
	for _, h := range g.hosts {
		h = bareHost(h)
		takes := func(other string) bool { return config.HostWithin(h, other) }
		if known[h] == nil && !slices.Contains(own, h) && slices.ContainsFunc(hosts, takes) {
			own = append(own, h)
		}
	}
	return hosts, own
}

// covered reports whether one of the virtual hosts takes every request for the host.
func covered(host string, known map[string]*ir.VirtualHost) bool {
	for domain := range known {
		if config.HostWithin(host, domain) {
			return true
		}
	}
	return false
}

// misdirected answers 421 for hosts that other servers of the port serve.
func misdirected(c *ir.RouteConfiguration, port uint32, hosts []string) *ir.RouteConfiguration {
	if len(hosts) == 0 {
		return c
	}
	c.IgnoreHostPort = true
	c.VirtualHosts = append(c.VirtualHosts, ir.VirtualHost{
		Name:    fmt.Sprintf("misdirected:%d", port),
		Domains: hosts,
		Routes: []ir.Route{{
			Name:   "misdirected",
			Match:  ir.RouteMatch{Path: ir.PathMatch{Value: "/"}},
			Direct: &ir.DirectResponse{Status: 421},
		}},
	})
	return c
}
