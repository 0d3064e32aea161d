package envoy

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	originalsrcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

// tlsInspectorBuffer is the first read of the TLS inspector in bytes; a ClientHello
// that is longer makes the buffer grow.
const tlsInspectorBuffer = 512

// Listener returns the listener resource of l.
func Listener(l ir.Listener) *listenerv3.Listener {
	out := &listenerv3.Listener{
		Name:                             l.Name,
		Address:                          address(l.Address, l.Port),
		TrafficDirection:                 direction(l.Direction),
		ContinueOnListenerFiltersTimeout: l.ContinueOnTimeout,
		AccessLog:                        accessLogs(l.AccessLogs),
	}
	if l.Unbound {
		out.BindToPort = wrapperspb.Bool(false)
	}
	if l.UseOriginalDst {
		out.UseOriginalDst = wrapperspb.Bool(true)
	}
	if l.Transparent {
		out.Transparent = wrapperspb.Bool(true)
	}
	if l.InspectionTimeout != nil {
		out.ListenerFiltersTimeout = durationpb.New(*l.InspectionTimeout)
	}
	if l.AcceptsPerEvent > 0 {
		out.MaxConnectionsToAcceptPerSocketEvent = wrapperspb.UInt32(l.AcceptsPerEvent)
	}
	for _, i := range l.Inspectors {
		out.ListenerFilters = append(out.ListenerFilters, inspector(i))
	}
	for _, c := range l.Chains {
		out.FilterChains = append(out.FilterChains, filterChain(c))
	}
	if l.DefaultChain != nil {
		out.DefaultFilterChain = filterChain(*l.DefaultChain)
	}
	return out
}

// address takes an IP with a port, or a path or @abstract name where port is 0.
func address(host string, port uint32) *corev3.Address {
	if strings.HasPrefix(host, "/") || strings.HasPrefix(host, "@") {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: host}}}
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func direction(d ir.Direction) corev3.TrafficDirection {
	if d == ir.Inbound {
		return corev3.TrafficDirection_INBOUND
	}
	return corev3.TrafficDirection_OUTBOUND
}

func inspector(i ir.Inspector) *listenerv3.ListenerFilter {
	f := &listenerv3.ListenerFilter{FilterDisabled: onPorts(i.SkipPorts)}
	if only := onPorts(i.OnlyPorts); only != nil {
		f.FilterDisabled = &listenerv3.ListenerFilterChainMatchPredicate{
			Rule: &listenerv3.ListenerFilterChainMatchPredicate_NotMatch{NotMatch: only}}
	}
	var config proto.Message
	switch i.Kind {
	case ir.OriginalDst:
		f.Name, config = "envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{}
	case ir.TLSInspector:
		f.Name, config = "envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{
			InitialReadBufferSize: wrapperspb.UInt32(tlsInspectorBuffer)}
	case ir.HTTPInspector:
		f.Name, config = "envoy.filters.listener.http_inspector", &httpinspectorv3.HttpInspector{}
	case ir.OriginalSource:
		f.Name, config = "envoy.filters.listener.original_src", &originalsrcv3.OriginalSrc{Mark: i.Mark}
	}
	f.ConfigType = &listenerv3.ListenerFilter_TypedConfig{TypedConfig: typed(config)}
	return f
}

// onPorts matches connections whose original destination is one of the ports.
func onPorts(ports []uint32) *listenerv3.ListenerFilterChainMatchPredicate {
	var rules []*listenerv3.ListenerFilterChainMatchPredicate
	for _, p := range ports {
		rules = append(rules, &listenerv3.ListenerFilterChainMatchPredicate{
			Rule: &listenerv3.ListenerFilterChainMatchPredicate_DestinationPortRange{
				DestinationPortRange: &typev3.Int32Range{Start: int32(p), End: int32(p) + 1}},
		})
	}
	switch len(rules) {
	case 0:
		return nil
	case 1:
		return rules[0]
	}
	return &listenerv3.ListenerFilterChainMatchPredicate{
		Rule: &listenerv3.ListenerFilterChainMatchPredicate_OrMatch{
			OrMatch: &listenerv3.ListenerFilterChainMatchPredicate_MatchSet{Rules: rules}},
	}
}

// typed packs a message with a stable order of map entries, so that equal values
// are equal bytes.
func typed(m proto.Message) *anypb.Any {
	out := &anypb.Any{}
	// Fails only on strings that are not UTF-8, which the decoder of configuration refuses.
	_ = anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true})
	return out
}
