package envoy

import (
	"fmt"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

// gRPC takes a small part of Envoy's resources and refuses a whole resource for most of
// the rest (gRFC A27 and those that follow it). What is spelled for it has that part only.

// GRPCListener spells what a gRPC program calls, or a socket of its own.
func GRPCListener(l ir.GRPCListener) *listenerv3.Listener {
	if l.RouteName != "" {
		hcm := &hcmv3.HttpConnectionManager{
			RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: overADS(), RouteConfigName: l.RouteName}},
			HttpFilters:    grpcFilters(ir.Fault, ir.Router),
		}
		return &listenerv3.Listener{Name: l.Name, ApiListener: &listenerv3.ApiListener{ApiListener: typed(hcm)}}
	}
	name := fmt.Sprintf("inbound|%d||", l.Port)
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix:  name,
		HttpFilters: append(grpcRules(l.Access), grpcFilters(ir.Router)...),
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			Name: name,
			VirtualHosts: []*routev3.VirtualHost{{
				Name: fmt.Sprintf("inbound|http|%d", l.Port), Domains: []string{"*"},
				Routes: []*routev3.Route{{
					Name:   "default",
					Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
					Action: &routev3.Route_NonForwardingAction{NonForwardingAction: &routev3.NonForwardingAction{}},
				}},
			}},
		}},
	}
	chain := &listenerv3.FilterChain{
		Name:    fmt.Sprintf("inbound-%d", l.Port),
		Filters: []*listenerv3.Filter{networkFilter("envoy.filters.network.http_connection_manager", hcm)},
	}
	if l.Strict {
		chain.TransportSocket = transportSocket("envoy.transport_sockets.tls", &tlsv3.DownstreamTlsContext{
			CommonTlsContext: grpcTLSContext("default", "ROOTCA", nil), RequireClientCertificate: wrapperspb.Bool(true)})
	}
	return &listenerv3.Listener{
		Name: l.Name, Address: address(l.Address, l.Port), TrafficDirection: corev3.TrafficDirection_INBOUND,
		FilterChains: []*listenerv3.FilterChain{chain},
	}
}

// grpcRules are the filters that decide on calls; no two filters may have one name.
func grpcRules(steps []ir.AccessFilter) []*hcmv3.HttpFilter {
	out := accessFilters(steps)
	for i, f := range out {
		if i > 0 {
			f.Name = fmt.Sprintf("%s.%d", rbacFilter, i)
		}
	}
	return out
}

func grpcFilters(kinds ...ir.HTTPFilter) []*hcmv3.HttpFilter {
	return httpFilters(ir.HTTPConnectionManager{Filters: kinds})
}

// GRPCRoutes spells a route table for a gRPC program. A rule that it would refuse the table
// for is replaced by one whose calls fail.
func GRPCRoutes(c ir.RouteConfiguration) *routev3.RouteConfiguration {
	out := &routev3.RouteConfiguration{Name: c.Name}
	for _, v := range c.VirtualHosts {
		vh := &routev3.VirtualHost{Name: v.Name, Domains: v.Domains}
		for _, r := range v.Routes {
			vh.Routes = append(vh.Routes, grpcRoute(r, c.MaxDirectResponseBody))
		}
		out.VirtualHosts = append(out.VirtualHosts, vh)
	}
	return out
}

func grpcRoute(r ir.Route, maxBody uint32) *routev3.Route {
	out := &routev3.Route{Name: r.Name, Match: routeMatch(r.Match), Metadata: origin(r.Origin)}
	if r.Forward == nil {
		return broken(r) // calls that come to a route of this kind fail with UNAVAILABLE
	}
	out.Action = &routev3.Route_Route{Route: grpcAction(*r.Forward)}
	if r.Fault != nil {
		out.TypedPerFilterConfig = map[string]*anypb.Any{faultFilter: typed(faultConfig(*r.Fault))}
	}
	if flaw(r, out, maxBody) != nil {
		return broken(r)
	}
	return out
}

func grpcAction(f ir.Forward) *routev3.RouteAction {
	out := &routev3.RouteAction{}
	if len(f.Clusters) == 1 && !f.Split {
		out.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: f.Clusters[0].Name}
	} else {
		weighted := &routev3.WeightedCluster{}
		for _, c := range f.Clusters {
			weighted.Clusters = append(weighted.Clusters, &routev3.WeightedCluster_ClusterWeight{Name: c.Name, Weight: wrapperspb.UInt32(c.Weight)})
		}
		out.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted}
	}
	if f.Timeout > 0 {
		out.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{MaxStreamDuration: durationpb.New(f.Timeout)}
	}
	if r := f.Retry; r != nil {
		out.RetryPolicy = &routev3.RetryPolicy{RetryOn: r.On, NumRetries: wrapperspb.UInt32(r.Attempts)}
		if r.BaseInterval > 0 {
			out.RetryPolicy.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(r.BaseInterval)}
		}
	}
	for _, h := range f.HashPolicies {
		if p := grpcHash(h); p != nil {
			out.HashPolicy = append(out.HashPolicy, p)
		}
	}
	return out
}

// grpcHash is nil for what calls do not have. All calls of a channel have one source.
func grpcHash(p ir.HashPolicy) *routev3.RouteAction_HashPolicy {
	switch {
	case p.Header != "":
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_Header_{
			Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: strings.ToLower(p.Header)}}}
	case p.SourceIP:
		return &routev3.RouteAction_HashPolicy{PolicySpecifier: &routev3.RouteAction_HashPolicy_FilterState_{
			FilterState: &routev3.RouteAction_HashPolicy_FilterState{Key: "io.grpc.channel_id"}}}
	}
	return nil
}

// GRPCCluster spells a cluster for a gRPC program.
func GRPCCluster(c ir.Cluster) *clusterv3.Cluster {
	out := &clusterv3.Cluster{
		Name:            c.Name,
		LbPolicy:        balancers[c.LoadBalancer.Balancer],
		CircuitBreakers: grpcLimits(c.Limits),
	}
	if c.LoadBalancer.Balancer == ir.RingHash {
		out.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{
			MinimumRingSize: wrapperspb.UInt64(c.LoadBalancer.MinRingSize)}}
	}
	if c.Discovery == ir.LogicalDNS {
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_LOGICAL_DNS}
		out.LoadAssignment = Assignment(*c.Assignment)
	} else {
		out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		out.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: overADS(), ServiceName: c.Name}
	}
	if c.TLS != nil {
		out.TransportSocket = grpcTLS(*c.TLS)
	}
	return out
}

// grpcLimits has the one limit that gRPC knows; without it gRPC has 1024.
func grpcLimits(l *ir.Limits) *clusterv3.CircuitBreakers {
	if l == nil {
		return nil
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{MaxRequests: wrapperspb.UInt32(l.MaxRequests)}}}
}

// grpcCertificates is the provider of certificates in the bootstrap of a gRPC program.
const grpcCertificates = "default"

// grpcTLS is mTLS with the certificate that the program's bootstrap knows. A program without
// one refuses the cluster rather than calling it in plain text.
func grpcTLS(t ir.UpstreamTLS) *corev3.TransportSocket {
	return transportSocket("envoy.transport_sockets.tls", &tlsv3.UpstreamTlsContext{
		Sni: t.SNI, CommonTlsContext: grpcTLSContext(t.Certificate.Name, t.CA.Name, t.SANs)})
}

func grpcTLSContext(certificate, roots string, sans []string) *tlsv3.CommonTlsContext {
	provider := func(name string) *tlsv3.CertificateProviderPluginInstance {
		return &tlsv3.CertificateProviderPluginInstance{InstanceName: grpcCertificates, CertificateName: name}
	}
	validation := &tlsv3.CertificateValidationContext{CaCertificateProviderInstance: provider(roots)}
	for _, san := range sans {
		validation.MatchSubjectAltNames = append(validation.MatchSubjectAltNames,
			&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: san}})
	}
	return &tlsv3.CommonTlsContext{
		TlsCertificateProviderInstance: provider(certificate),
		ValidationContextType:          &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: validation},
	}
}
