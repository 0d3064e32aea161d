package envoy

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tracev3 "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	detectorsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/tracers/opentelemetry/resource_detectors/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
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
	if t.Tracer != nil {
		out.Provider = tracer(t.Tracer)
	}
	for _, tag := range t.Tags {
		out.CustomTags = append(out.CustomTags, tracingTag(tag))
	}
	return out
}

func tracer(t *ir.Tracer) *tracev3.Tracing_Http {
	name, config := "envoy.tracers.opentelemetry", proto.Message(nil)
	if t.Form == ir.Zipkin {
		name, config = "envoy.tracers.zipkin", zipkin(t)
	} else {
		config = openTelemetry(t)
	}
	return &tracev3.Tracing_Http{Name: name, ConfigType: &tracev3.Tracing_Http_TypedConfig{TypedConfig: typed(config)}}
}

// zipkinTimeout is that of Envoy where it cannot be told.
const zipkinTimeout = 5 * time.Second

func zipkin(t *ir.Tracer) *tracev3.ZipkinConfig {
	out := &tracev3.ZipkinConfig{
		CollectorEndpointVersion: tracev3.ZipkinConfig_HTTP_JSON,
		TraceId_128Bit:           !t.ShortIDs,
		SharedSpanContext:        wrapperspb.Bool(false),
	}
	if len(t.Headers) > 0 || t.Timeout != zipkinTimeout { // which an older Envoy refuses
		out.CollectorService = spanService(t)
	} else {
		out.CollectorCluster, out.CollectorEndpoint, out.CollectorHostname = t.Cluster, t.Path, t.Host
	}
	if t.BothB3 {
		out.TraceContextOption = tracev3.ZipkinConfig_USE_B3_WITH_W3C_PROPAGATION
	}
	return out
}

// spanService takes spans over HTTP.
func spanService(t *ir.Tracer) *corev3.HttpService {
	return &corev3.HttpService{
		HttpUri: &corev3.HttpUri{
			Uri:              "http://" + t.Host + t.Path,
			HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: t.Cluster},
			Timeout:          durationpb.New(t.Timeout),
		},
		RequestHeadersToAdd: headerValues(t.Headers),
	}
}

func openTelemetry(t *ir.Tracer) *tracev3.OpenTelemetryConfig {
	out := &tracev3.OpenTelemetryConfig{ServiceName: t.Service}
	if t.Form == ir.OTLPHTTP {
		out.HttpService = spanService(t)
	} else {
		out.GrpcService = &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: t.Cluster, Authority: t.Host}},
			Timeout:         duration(t.Timeout),
		}
		for _, h := range t.Headers {
			out.GrpcService.InitialMetadata = append(out.GrpcService.InitialMetadata, &corev3.HeaderValue{Key: h.Name, Value: h.Value})
		}
	}
	detector := func(name string, config proto.Message) {
		out.ResourceDetectors = append(out.ResourceDetectors, &corev3.TypedExtensionConfig{
			Name: "envoy.tracers.opentelemetry.resource_detectors." + name, TypedConfig: typed(config)})
	}
	if t.Environment {
		detector("environment", &detectorsv3.EnvironmentResourceDetectorConfig{})
	}
	if t.Dynatrace {
		detector("dynatrace", &detectorsv3.DynatraceResourceDetectorConfig{})
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
