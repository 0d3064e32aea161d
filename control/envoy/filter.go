package envoy

import (
	udpatypev1 "github.com/cncf/xds/go/udpa/type/v1"
	rulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	dfpfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/dynamic_forward_proxy/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	sniv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	alpnv2 "istio.io/api/envoy/config/filter/http/alpn/v2alpha1"
	statspb "istio.io/api/envoy/extensions/stats"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Names of filters that route and virtual host configuration refers to.
const (
	faultFilter = "envoy.filters.http.fault"
	corsFilter  = "envoy.filters.http.cors"

	metricsFilter = "istio.stats"
)

func httpFilters(h ir.HTTPConnectionManager) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	for _, f := range h.Filters {
		if f == ir.ForwardProxy {
			out = append(out, lookups(h.Lookups)...)
			continue
		}
		if guards, ok := guardFilters(f, h); ok {
			out = append(out, guards...)
			continue
		}
		name, config := httpFilter(f, h)
		out = append(out, &hcmv3.HttpFilter{Name: name,
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: typed(config)}})
	}
	return out
}

// lookups are filters that resolve hosts, one for each cache.
func lookups(caches []ir.DNS) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	for i := range caches {
		config := &dfpfilterv3.FilterConfig{ImplementationSpecifier: &dfpfilterv3.FilterConfig_DnsCacheConfig{DnsCacheConfig: dnsCache(&caches[i])}}
		out = append(out, &hcmv3.HttpFilter{Name: "envoy.filters.http.dynamic_forward_proxy",
			ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: typed(config)}})
	}
	return out
}

// sniLookup resolves the server name of a TLS client.
func sniLookup(l *ir.SNILookup) *listenerv3.Filter {
	return networkFilter("envoy.filters.network.sni_dynamic_forward_proxy", &sniv3.FilterConfig{
		DnsCacheConfig: dnsCache(&l.DNS), PortSpecifier: &sniv3.FilterConfig_PortValue{PortValue: l.Port}})
}

// httpFilter is the table of HTTP filters: name on the wire and settings.
func httpFilter(f ir.HTTPFilter, h ir.HTTPConnectionManager) (string, proto.Message) {
	switch f {
	case ir.HeaderMutation:
		return "envoy.filters.http.header_mutation", &mutationv3.HeaderMutation{Mutations: &mutationv3.Mutations{
			RequestMutations:  mutations(h.Headers.RequestAdd, h.Headers.RequestRemove),
			ResponseMutations: mutations(h.Headers.ResponseAdd, h.Headers.ResponseRemove),
		}}
	case ir.PeerMetadataUpstream:
		return "istio.metadata_exchange", peerMetadata("upstream", h.MetadataInMesh)
	case ir.PeerMetadataDownstream:
		return "istio.metadata_exchange", peerMetadata("downstream", false)
	case ir.GRPCWeb:
		return "envoy.filters.http.grpc_web", &grpcwebv3.GrpcWeb{}
	case ir.GRPCStats:
		return "envoy.filters.http.grpc_stats", &grpcstatsv3.FilterConfig{
			EmitFilterState: true,
			PerMethodStatSpecifier: &grpcstatsv3.FilterConfig_StatsForAllMethods{
				StatsForAllMethods: wrapperspb.Bool(false)},
		}
	case ir.ALPN:
		return "istio.alpn", alpn()
	case ir.Fault:
		return faultFilter, &faultv3.HTTPFault{}
	case ir.CORS:
		return corsFilter, &corsv3.Cors{}
	case ir.Metrics:
		return metricsFilter, &statspb.PluginConfig{}
	case ir.MetricsNoHost:
		return metricsFilter, &statspb.PluginConfig{DisableHostHeaderFallback: true}
	}
	return "envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: h.Quiet}
}

func mutations(add []ir.HeaderValue, remove []string) []*rulesv3.HeaderMutation {
	var out []*rulesv3.HeaderMutation
	for _, name := range remove {
		out = append(out, &rulesv3.HeaderMutation{Action: &rulesv3.HeaderMutation_Remove{Remove: name}})
	}
	for _, v := range headerValues(add) {
		out = append(out, &rulesv3.HeaderMutation{Action: &rulesv3.HeaderMutation_Append{Append: v}})
	}
	return out
}

// peerMetadata trades the workload's description with peers in headers; the side is
// that of the peer. What peers outside of the mesh are told may be left out.
func peerMetadata(side string, inMesh bool) *udpatypev1.TypedStruct {
	headers := map[string]any{"istio_headers": map[string]any{}}
	workloads := map[string]any{"workload_discovery": map[string]any{}}
	told := headers
	if inMesh {
		told = map[string]any{"istio_headers": map[string]any{"skip_external_clusters": true}}
	}
	return typedStruct("io.istio.http.peer_metadata.Config", map[string]any{
		side + "_discovery":   []any{headers, workloads},
		side + "_propagation": []any{told},
	})
}

// peerExchange trades the workload's description in the first bytes of a TLS connection.
func peerExchange() *listenerv3.Filter {
	return networkFilter("istio.metadata_exchange", typedStruct("envoy.tcp.metadataexchange.config.MetadataExchange",
		map[string]any{"protocol": "istio-peer-exchange", "enable_discovery": true}))
}

// alpn offers upstream TLS the mesh's own protocol names beside the plain ones.
func alpn() *alpnv2.FilterConfig {
	names := func(p alpnv2.FilterConfig_Protocol, own, plain string) *alpnv2.FilterConfig_AlpnOverride {
		return &alpnv2.FilterConfig_AlpnOverride{UpstreamProtocol: p, AlpnOverride: []string{own, "istio", plain}}
	}
	return &alpnv2.FilterConfig{AlpnOverride: []*alpnv2.FilterConfig_AlpnOverride{
		names(alpnv2.FilterConfig_HTTP10, "istio-http/1.0", "http/1.0"),
		names(alpnv2.FilterConfig_HTTP11, "istio-http/1.1", "http/1.1"),
		names(alpnv2.FilterConfig_HTTP2, "istio-h2", "h2"),
	}}
}

// typedStruct is the form of a filter's settings whose proto is not in Envoy's API.
func typedStruct(typeName string, value map[string]any) *udpatypev1.TypedStruct {
	v, err := structpb.NewStruct(value)
	if err != nil { // only for Go types that the calls above do not use
		v = &structpb.Struct{}
	}
	return &udpatypev1.TypedStruct{TypeUrl: "type.googleapis.com/" + typeName, Value: v}
}
