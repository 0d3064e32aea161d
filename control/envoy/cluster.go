package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dfpclusterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	dfpcachev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Cluster spells a cluster.
func Cluster(c ir.Cluster) *clusterv3.Cluster {
	out := &clusterv3.Cluster{
		Name:                          c.Name,
		AltStatName:                   c.StatName,
		ConnectTimeout:                duration(c.ConnectTimeout),
		CleanupInterval:               duration(c.CleanupInterval),
		CircuitBreakers:               circuitBreakers(c.Limits),
		OutlierDetection:              outlierDetection(c.Outlier),
		Metadata:                      clusterMetadata(c.Metadata),
		TransportSocket:               upstreamSocket(c),
		TransportSocketMatches:        socketMatches(c),
		UpstreamBindConfig:            bindConfig(c.SourceAddress, c.SourceMark),
		UpstreamConnectionOptions:     connectionOptions(c.Keepalive),
		TypedExtensionProtocolOptions: httpOptions(c.HTTP),
	}
	setDiscovery(out, c)
	setDNS(out, c)
	setLoadBalancer(out, c.LoadBalancer)
	if c.PeerMetadata {
		out.Filters = []*clusterv3.Filter{peerExchangeUpstream()}
	}
	return out
}

func setDiscovery(out *clusterv3.Cluster, c ir.Cluster) {
	kind := clusterv3.Cluster_STATIC
	switch c.Discovery {
	case ir.EDS:
		kind = clusterv3.Cluster_EDS
		out.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{
			ServiceName: c.Name,
			EdsConfig:   awaitedADS(),
		}
	case ir.StrictDNS:
		kind = clusterv3.Cluster_STRICT_DNS
	case ir.LogicalDNS:
		kind = clusterv3.Cluster_LOGICAL_DNS
	case ir.OriginalDestination:
		kind = clusterv3.Cluster_ORIGINAL_DST
	case ir.DynamicForwardProxy:
		out.ClusterDiscoveryType = &clusterv3.Cluster_ClusterType{ClusterType: forwardProxy(c.DNS)}
		return
	}
	out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: kind}
	if c.Assignment != nil {
		out.LoadAssignment = Assignment(*c.Assignment)
	}
}

func forwardProxy(d *ir.DNS) *clusterv3.Cluster_CustomClusterType {
	return &clusterv3.Cluster_CustomClusterType{
		Name: "envoy.clusters.dynamic_forward_proxy",
		TypedConfig: typed(&dfpclusterv3.ClusterConfig{
			ClusterImplementationSpecifier: &dfpclusterv3.ClusterConfig_DnsCacheConfig{
				DnsCacheConfig: dnsCache(d),
			},
		}),
	}
}

// dnsCache must be the same wherever its name is used, or a proxy refuses it.
func dnsCache(d *ir.DNS) *dfpcachev3.DnsCacheConfig {
	return &dfpcachev3.DnsCacheConfig{Name: d.CacheName, DnsLookupFamily: lookupFamily(d)}
}

func setDNS(out *clusterv3.Cluster, c ir.Cluster) {
	d := c.DNS
	if d == nil || c.Discovery == ir.DynamicForwardProxy {
		return
	}
	out.DnsLookupFamily = lookupFamily(d)
	out.DnsRefreshRate = duration(d.RefreshRate) // as the original writes it
	out.DnsJitter = duration(d.Jitter)
	out.RespectDnsTtl = d.RespectTTL // as the original writes it
	if d.CaresQueries > 0 {
		out.TypedDnsResolverConfig = &corev3.TypedExtensionConfig{
			Name:        "envoy.network.dns_resolver.cares",
			TypedConfig: typed(&caresv3.CaresDnsResolverConfig{UdpMaxQueries: wrapperspb.UInt32(d.CaresQueries)}),
		}
	}
}

func lookupFamily(d *ir.DNS) clusterv3.Cluster_DnsLookupFamily {
	if d.IPv6 {
		return clusterv3.Cluster_ALL
	}
	return clusterv3.Cluster_V4_ONLY
}

var balancers = map[ir.Balancer]clusterv3.Cluster_LbPolicy{
	ir.RoundRobin:      clusterv3.Cluster_ROUND_ROBIN,
	ir.LeastRequest:    clusterv3.Cluster_LEAST_REQUEST,
	ir.Random:          clusterv3.Cluster_RANDOM,
	ir.RingHash:        clusterv3.Cluster_RING_HASH,
	ir.Maglev:          clusterv3.Cluster_MAGLEV,
	ir.ClusterProvided: clusterv3.Cluster_CLUSTER_PROVIDED,
}

func setLoadBalancer(out *clusterv3.Cluster, lb ir.LoadBalancer) {
	out.LbPolicy = balancers[lb.Balancer]
	out.CommonLbConfig = commonLoadBalancer(lb)
	switch {
	case lb.Balancer == ir.RingHash:
		out.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{
			MinimumRingSize: wrapperspb.UInt64(lb.MinRingSize)}}
	case lb.Balancer == ir.Maglev:
		maglev := &clusterv3.Cluster_MaglevLbConfig{}
		if lb.TableSize > 0 {
			maglev.TableSize = wrapperspb.UInt64(lb.TableSize)
		}
		out.LbConfig = &clusterv3.Cluster_MaglevLbConfig_{MaglevLbConfig: maglev}
	case lb.SlowStart != nil && lb.Balancer == ir.RoundRobin:
		out.LbConfig = &clusterv3.Cluster_RoundRobinLbConfig_{RoundRobinLbConfig: &clusterv3.Cluster_RoundRobinLbConfig{
			SlowStartConfig: slowStart(lb.SlowStart)}}
	case lb.SlowStart != nil && lb.Balancer == ir.LeastRequest:
		out.LbConfig = &clusterv3.Cluster_LeastRequestLbConfig_{LeastRequestLbConfig: &clusterv3.Cluster_LeastRequestLbConfig{
			SlowStartConfig: slowStart(lb.SlowStart)}}
	}
}

func commonLoadBalancer(lb ir.LoadBalancer) *clusterv3.Cluster_CommonLbConfig {
	if !lb.Common && lb.PanicThreshold == nil && !lb.LocalityWeighted && lb.ZoneAware == nil {
		return nil
	}
	out := &clusterv3.Cluster_CommonLbConfig{}
	if lb.PanicThreshold != nil {
		out.HealthyPanicThreshold = &typev3.Percent{Value: *lb.PanicThreshold}
	}
	switch {
	case lb.ZoneAware != nil:
		zone := &clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig{}
		if lb.ZoneAware.MinClusterSize > 0 {
			zone.MinClusterSize = wrapperspb.UInt64(lb.ZoneAware.MinClusterSize)
		}
		out.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_ZoneAwareLbConfig_{ZoneAwareLbConfig: zone}
	case lb.LocalityWeighted:
		out.LocalityConfigSpecifier = &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig_{
			LocalityWeightedLbConfig: &clusterv3.Cluster_CommonLbConfig_LocalityWeightedLbConfig{}}
	}
	return out
}

func slowStart(s *ir.SlowStart) *clusterv3.Cluster_SlowStartConfig {
	out := &clusterv3.Cluster_SlowStartConfig{SlowStartWindow: durationpb.New(s.Window)}
	if s.Aggression > 0 {
		// Envoy wants a runtime key although none is meant; this is the original's.
		out.Aggression = &corev3.RuntimeDouble{DefaultValue: s.Aggression, RuntimeKey: "("}
	}
	if s.MinWeightPercent != nil {
		out.MinWeightPercent = &typev3.Percent{Value: *s.MinWeightPercent}
	}
	return out
}

func circuitBreakers(l *ir.Limits) *clusterv3.CircuitBreakers {
	if l == nil {
		return nil
	}
	t := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections:     wrapperspb.UInt32(l.MaxConnections),
		MaxPendingRequests: wrapperspb.UInt32(l.MaxPendingRequests),
		MaxRequests:        wrapperspb.UInt32(l.MaxRequests),
		MaxRetries:         wrapperspb.UInt32(l.MaxRetries),
	}
	if b := l.RetryBudget; b != nil {
		t.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: b.Percent},
			MinRetryConcurrency: wrapperspb.UInt32(b.MinConcurrency),
		}
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{t}}
}

func outlierDetection(o *ir.OutlierDetection) *clusterv3.OutlierDetection {
	if o == nil {
		return nil
	}
	out := &clusterv3.OutlierDetection{
		EnforcingSuccessRate: wrapperspb.UInt32(0),
		Interval:             duration(o.Interval),
		BaseEjectionTime:     duration(o.BaseEjectionTime),
	}
	if n := o.Consecutive5xx; n != nil {
		out.Consecutive_5Xx, out.EnforcingConsecutive_5Xx = wrapperspb.UInt32(*n), enforcing(*n)
	}
	if n := o.ConsecutiveGatewayErrors; n != nil {
		out.ConsecutiveGatewayFailure, out.EnforcingConsecutiveGatewayFailure = wrapperspb.UInt32(*n), enforcing(*n)
	}
	if o.MaxEjectionPercent > 0 {
		out.MaxEjectionPercent = wrapperspb.UInt32(o.MaxEjectionPercent)
	}
	if o.SplitLocalErrors {
		out.SplitExternalLocalOriginErrors = true
		out.EnforcingLocalOriginSuccessRate = wrapperspb.UInt32(0)
		if n := o.ConsecutiveLocalErrors; n > 0 {
			out.ConsecutiveLocalOriginFailure, out.EnforcingConsecutiveLocalOriginFailure = wrapperspb.UInt32(n), enforcing(n)
		}
	}
	return out
}

// enforcing is the percentage of ejections carried out: a count of zero is off.
func enforcing(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(min(n, 1) * 100) }

// SO_MARK of Linux, by its numbers.
const (
	socketLevel = 1
	markOption  = 36
)

func bindConfig(address string, mark uint32) *corev3.BindConfig {
	if address == "" {
		return nil
	}
	out := &corev3.BindConfig{SourceAddress: &corev3.SocketAddress{
		Address: address, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 0}}}
	if mark != 0 {
		out.SocketOptions = []*corev3.SocketOption{{
			Level: socketLevel, Name: markOption, State: corev3.SocketOption_STATE_PREBIND,
			Value: &corev3.SocketOption_IntValue{IntValue: int64(mark)},
		}}
	}
	return out
}

func connectionOptions(k *ir.Keepalive) *clusterv3.UpstreamConnectionOptions {
	if k == nil {
		return nil
	}
	return &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
		KeepaliveProbes: uint32Value(k.Probes), KeepaliveTime: uint32Value(k.Time), KeepaliveInterval: uint32Value(k.Interval)}}
}

func uint32Value(n *uint32) *wrapperspb.UInt32Value {
	if n == nil {
		return nil
	}
	return wrapperspb.UInt32(*n)
}

func clusterMetadata(m ir.ClusterMetadata) *corev3.Metadata {
	fields := map[string]*structpb.Value{}
	if len(m.Services) > 0 {
		var list []*structpb.Value
		for _, s := range m.Services {
			list = append(list, structpb.NewStructValue(&structpb.Struct{Fields: map[string]*structpb.Value{
				"host":      structpb.NewStringValue(s.Host),
				"name":      structpb.NewStringValue(s.Name),
				"namespace": structpb.NewStringValue(s.Namespace),
			}}))
		}
		fields["services"] = structpb.NewListValue(&structpb.ListValue{Values: list})
	}
	if m.External {
		fields["external"] = structpb.NewBoolValue(true)
	}
	for key, text := range map[string]string{"subset": m.Subset, "config": m.Config, "alpn_override": m.ALPNOverride} {
		if text != "" {
			fields[key] = structpb.NewStringValue(text)
		}
	}
	if len(fields) == 0 {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"istio": {Fields: fields}}}
}

// peerExchangeUpstream is peerExchange on the upstream side.
func peerExchangeUpstream() *clusterv3.Filter {
	f := peerExchange()
	return &clusterv3.Filter{Name: f.Name, TypedConfig: f.GetTypedConfig()}
}
