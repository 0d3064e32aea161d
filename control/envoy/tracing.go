package envoy

import (
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

func tracing(t *ir.Tracing) *hcmv3.HttpConnectionManager_Tracing {
	if t == nil {
		return nil
	}
	out := &hcmv3.HttpConnectionManager_Tracing{
		ClientSampling:  &typev3.Percent{Value: t.ClientSampling},
		RandomSampling:  &typev3.Percent{Value: t.RandomSampling},
		OverallSampling: &typev3.Percent{Value: t.OverallSampling},
	}
	if t.MaxPathTag > 0 {
		out.MaxPathTagLength = wrapperspb.UInt32(t.MaxPathTag)
	}
	if t.Zipkin != "" {
		out.Provider = &tracev3.Tracing_Http{Name: "envoy.tracers.zipkin", ConfigType: &tracev3.Tracing_Http_TypedConfig{
			TypedConfig: typed(&tracev3.ZipkinConfig{
				CollectorCluster: t.Zipkin, CollectorEndpoint: "/api/v2/spans", CollectorEndpointVersion: tracev3.ZipkinConfig_HTTP_JSON,
				TraceId_128Bit: true, SharedSpanContext: wrapperspb.Bool(false),
			})}}
	}
	for _, tag := range t.Tags {
		out.CustomTags = append(out.CustomTags, tracingTag(tag))
	}
	return out
}

func tracingTag(t ir.TracingTag) *tracingv3.CustomTag {
	if t.MetadataKey == "" {
		return &tracingv3.CustomTag{Tag: t.Name,
			Type: &tracingv3.CustomTag_Literal_{Literal: &tracingv3.CustomTag_Literal{Value: t.Literal}}}
	}
	return &tracingv3.CustomTag{Tag: t.Name, Type: &tracingv3.CustomTag_Metadata_{Metadata: &tracingv3.CustomTag_Metadata{
		Kind: &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Request_{Request: &metadatav3.MetadataKind_Request{}}},
		MetadataKey: &metadatav3.MetadataKey{Key: t.MetadataKey, Path: []*metadatav3.MetadataKey_PathSegment{{
			Segment: &metadatav3.MetadataKey_PathSegment_Key{Key: t.MetadataPath}}}},
	}}}
}
