package compile

import (
	"slices"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// ALPN names that say what is inside of TLS between proxies of the mesh.
var (
	meshHTTP = []string{"istio-http/1.0", "istio-http/1.1", "istio-h2"}
	meshTCP  = []string{alpnPeerExchange, alpnIstio}
)

// A taking is one kind of connection that a port takes.
type taking struct {
	match  ir.ChainMatch // but for the port
	http   bool
	mutual bool // mutual TLS ends here; else bytes are taken as they come
}

// takings are the kinds of connections that a port takes. In the permissive mode TLS
// without a name of the mesh's is the application's own.
func takings(mode mesh.TLSMode, protocol registry.Protocol) []taking {
	tls := func(alpn []string, http bool) taking {
		return taking{match: ir.ChainMatch{TransportProtocol: "tls", ApplicationProtocols: alpn}, http: http, mutual: true}
	}
	plain := func(transport string, alpn []string, http bool) taking {
		return taking{match: ir.ChainMatch{TransportProtocol: transport, ApplicationProtocols: alpn}, http: http}
	}
	switch http, unknown := protocol.IsHTTP(), protocol == registry.Unsupported; mode {
	case mesh.Strict:
		if unknown {
			return []taking{tls(meshHTTP, true), tls(nil, false)}
		}
		return []taking{tls(nil, http)}
	case mesh.Disable:
		if unknown {
			return []taking{plain(plainTCP, httpALPN, true), plain(plainTCP, nil, false)}
		}
		return []taking{plain(plainTCP, nil, http)}
	default:
		switch {
		case unknown:
			return []taking{tls(meshHTTP, true), plain(plainTCP, httpALPN, true), tls(meshTCP, false),
				plain(plainTCP, nil, false), plain("tls", nil, false)}
		case http:
			return []taking{tls(meshALPN, true), plain(plainTCP, nil, true)}
		}
		return []taking{tls(meshALPN, false), plain("tls", nil, false), plain(plainTCP, nil, false)}
	}
}

// takes are the kinds of connections that a port of the proxy's workload takes. Without a
// certificate to show, it takes all that is not mutual TLS.
func (b *listenerBuilder) takes(port uint32, protocol registry.Protocol) []taking {
	if b.snapshot.Identified(b.proxy) {
		return takings(b.authentication().At(port), protocol)
	}
	return slices.DeleteFunc(takings(mesh.Permissive, protocol), func(t taking) bool { return t.mutual })
}

// authentication is what PeerAuthentications say of the proxy's workload.
func (b *listenerBuilder) authentication() mesh.Authentication {
	return b.snapshot.Authentication(b.proxy.Namespace, b.proxy.Labels)
}

// peerTLS takes mutual TLS from other proxies of the mesh.
func (b *listenerBuilder) peerTLS(http bool) *ir.DownstreamTLS {
	var alpn []string
	if !http && b.proxy.Has(extPeerExchange) {
		alpn = append(alpn, alpnPeerExchange)
	}
	return meshServerTLS(b.snapshot.MeshConfig, append(alpn, "h2", "http/1.1")...)
}

// inspectors are those that the chains of a listener for captured connections need, each on
// the ports where it is needed: elsewhere it would hold up connections of which the server
// speaks first.
func inspectors(chains []ir.FilterChain) []ir.Inspector {
	var out []ir.Inspector
	for _, i := range []struct {
		kind   ir.InspectorKind
		needed func(ir.ChainMatch) bool
	}{
		{ir.TLSInspector, func(m ir.ChainMatch) bool { return m.TransportProtocol == "tls" }},
		{ir.HTTPInspector, func(m ir.ChainMatch) bool { return slices.Contains(m.ApplicationProtocols, httpALPN[0]) }},
	} {
		if inspector, any := inspectorOn(chains, i.needed); any {
			inspector.Kind = i.kind
			out = append(out, inspector)
		}
	}
	return out
}

// inspectorOn is an inspector for the ports of which a chain needs it. Where a chain without
// port does, it is for all ports but those that have chains none of which does.
func inspectorOn(chains []ir.FilterChain, needed func(ir.ChainMatch) bool) (i ir.Inspector, any bool) {
	on := map[uint32]bool{}
	for _, c := range chains {
		on[c.Match.DestinationPort] = on[c.Match.DestinationPort] || needed(c.Match)
	}
	for port, need := range on {
		switch {
		case port == 0:
		case need && !on[0]:
			i.OnlyPorts = append(i.OnlyPorts, port)
		case !need && on[0]:
			i.SkipPorts = append(i.SkipPorts, port)
		}
	}
	slices.Sort(i.OnlyPorts)
	slices.Sort(i.SkipPorts)
	return i, on[0] || len(i.OnlyPorts) > 0
}
