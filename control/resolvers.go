package control

import (
	"net/netip"
	"strings"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	carespb "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// resolversOf reads the DNS servers that a proxy is to ask, "127.0.0.1:5353,…" in its
// metadata; what cannot be read counts as not given. The bootstrap cannot say so: a
// cluster that configures the resolver, as ours do, puts its setting out of force.
func resolversOf(p *mesh.Proxy) []*corepb.Address {
	list, _ := p.Metadata[wellknown.ResolversKey].(string)
	var all []*corepb.Address
	for text := range strings.SplitSeq(list, ",") {
		a, err := netip.ParseAddrPort(text)
		if err != nil {
			continue
		}
		all = append(all, &corepb.Address{Address: &corepb.Address_SocketAddress{SocketAddress: &corepb.SocketAddress{
			Address: a.Addr().String(), PortSpecifier: &corepb.SocketAddress_PortValue{PortValue: uint32(a.Port())}}}})
	}
	return all
}

// resolveWith has a cluster ask the given DNS servers.
func resolveWith(c *clusterpb.Cluster, servers []*corepb.Address) error {
	if len(servers) == 0 || c.GetTypedDnsResolverConfig() == nil {
		return nil
	}
	var cares carespb.CaresDnsResolverConfig
	if err := c.TypedDnsResolverConfig.TypedConfig.UnmarshalTo(&cares); err != nil {
		return err
	}
	cares.Resolvers = servers
	packed, err := anypb.New(&cares)
	c.TypedDnsResolverConfig.TypedConfig = packed
	return err
}
