package envoy

import (
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	statspb "istio.io/api/envoy/extensions/stats"

	"github.com/lateen-mesh/lateen/control/ir"
)

func filterChain(c ir.FilterChain) *listenerv3.FilterChain {
	out := &listenerv3.FilterChain{
		Name:             c.Name,
		FilterChainMatch: chainMatch(c.Match),
		Metadata:         origin(c.Origin),
	}
	if c.HandshakeTimeout > 0 {
		out.TransportSocketConnectTimeout = durationpb.New(c.HandshakeTimeout)
	}
	if c.TLS != nil {
		out.TransportSocket = downstreamTLS(*c.TLS)
	}
	if c.PeerExchange {
		out.Filters = append(out.Filters, peerExchange())
	}
	out.Filters = append(out.Filters, networkAccess(c.Access)...)
	if c.Metrics {
		out.Filters = append(out.Filters, networkFilter(metricsFilter, &statspb.PluginConfig{}))
	}
	switch {
	case c.HTTP != nil:
		out.Filters = append(out.Filters,
			networkFilter("envoy.filters.network.http_connection_manager", connectionManager(*c.HTTP)))
	case c.TCP != nil:
		if c.Lookup != nil {
			out.Filters = append(out.Filters, sniLookup(c.Lookup))
		}
		out.Filters = append(out.Filters, networkFilter("envoy.filters.network.tcp_proxy", tcpProxy(*c.TCP)))
	}
	return out
}

func networkFilter(name string, config proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: typed(config)}}
}

// chainMatch returns nil for a match on nothing unless it is asked for.
func chainMatch(m ir.ChainMatch) *listenerv3.FilterChainMatch {
	out := &listenerv3.FilterChainMatch{
		ServerNames:          m.ServerNames,
		TransportProtocol:    m.TransportProtocol,
		ApplicationProtocols: m.ApplicationProtocols,
	}
	if m.DestinationPort > 0 {
		out.DestinationPort = wrapperspb.UInt32(m.DestinationPort)
	}
	for _, c := range m.DestinationCIDRs {
		if r := cidrRange(c); r != nil {
			out.PrefixRanges = append(out.PrefixRanges, r)
		}
	}
	if !m.All && proto.Size(out) == 0 {
		return nil
	}
	return out
}

// cidrRange reads "10.0.0.0/8" or a single address; nil for anything else.
func cidrRange(s string) *corev3.CidrRange {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}
}

func tcpProxy(t ir.TCPProxy) *tcpproxyv3.TcpProxy {
	out := &tcpproxyv3.TcpProxy{StatPrefix: t.StatPrefix, AccessLog: accessLogs(t.AccessLogs)}
	if len(t.Clusters) == 1 {
		out.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: t.Clusters[0].Name}
		return out
	}
	weighted := &tcpproxyv3.TcpProxy_WeightedCluster{}
	for _, c := range t.Clusters {
		weighted.Clusters = append(weighted.Clusters,
			&tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: c.Name, Weight: c.Weight})
	}
	out.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: weighted}
	return out
}

// duration returns nil for 0: the field is left to the proxy's default.
func duration(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
