package envoy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	otellogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/cel/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/metadata/v3"
	withoutqueryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/req_without_query/v3"
	otlppb "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control/ir"
)

func accessLogs(logs []ir.AccessLog) []*accesslogv3.AccessLog {
	var out []*accesslogv3.AccessLog
	for _, l := range logs {
		log := &accesslogv3.AccessLog{Name: "envoy.access_loggers.file", ConfigType: typedLog(&filelogv3.FileAccessLog{
			Path:            l.Path,
			AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: logFormat(l)},
		})}
		if l.Collector != nil {
			log.Name, log.ConfigType = "envoy.access_loggers.open_telemetry", typedLog(collectedLog(l))
		}
		if l.OnlyNoRoute {
			log.Filter = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
				ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{"NR"}}}}
		}
		out = append(out, log)
	}
	return out
}

func typedLog(config proto.Message) *accesslogv3.AccessLog_TypedConfig {
	return &accesslogv3.AccessLog_TypedConfig{TypedConfig: typed(config)}
}

// collectedLog is told with the labels of its own alone, as the original does.
func collectedLog(l ir.AccessLog) *otellogv3.OpenTelemetryAccessLogConfig {
	out := &otellogv3.OpenTelemetryAccessLogConfig{
		CommonConfig: &grpclogv3.CommonGrpcAccessLogConfig{
			LogName: l.Collector.LogName,
			GrpcService: &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: l.Collector.Cluster, Authority: l.Collector.Host}}},
			TransportApiVersion: corev3.ApiVersion_V3,
		},
		DisableBuiltinLabels: true,
		Body:                 &otlppb.AnyValue{Value: &otlppb.AnyValue_StringValue{StringValue: l.Text}},
		Formatters: formatters(func(operator string) bool {
			return strings.Contains(l.Text, operator) || uses(l.JSON, operator)
		}),
	}
	if len(l.JSON) > 0 {
		out.Attributes = otlpValue(l.JSON).GetKvlistValue()
	}
	return out
}

// otlpValue is a value of JSON in OpenTelemetry's form, its keys in order. Envoy takes text,
// lists and maps, so that numbers and truth are their text.
func otlpValue(value any) *otlppb.AnyValue {
	switch v := value.(type) {
	case map[string]any:
		list := &otlppb.KeyValueList{}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			list.Values = append(list.Values, &otlppb.KeyValue{Key: key, Value: otlpValue(v[key])})
		}
		return &otlppb.AnyValue{Value: &otlppb.AnyValue_KvlistValue{KvlistValue: list}}
	case []any:
		list := &otlppb.ArrayValue{}
		for _, e := range v {
			list.Values = append(list.Values, otlpValue(e))
		}
		return &otlppb.AnyValue{Value: &otlppb.AnyValue_ArrayValue{ArrayValue: list}}
	case string:
		return &otlppb.AnyValue{Value: &otlppb.AnyValue_StringValue{StringValue: v}}
	case nil:
		return &otlppb.AnyValue{Value: &otlppb.AnyValue_StringValue{}}
	}
	return &otlppb.AnyValue{Value: &otlppb.AnyValue_StringValue{StringValue: fmt.Sprint(value)}}
}

func logFormat(l ir.AccessLog) *corev3.SubstitutionFormatString {
	if l.JSON != nil {
		return &corev3.SubstitutionFormatString{
			Format:            &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: jsonFormat(l.JSON)},
			OmitEmptyValues:   l.OmitEmpty,
			JsonFormatOptions: &corev3.JsonFormatOptions{},
			Formatters:        formatters(func(operator string) bool { return uses(l.JSON, operator) }),
		}
	}
	return &corev3.SubstitutionFormatString{
		Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: l.Text}}},
		OmitEmptyValues: l.OmitEmpty,
		Formatters:      formatters(func(operator string) bool { return strings.Contains(l.Text, operator) }),
	}
}

// formatters are the extensions behind command operators that Envoy does not know without.
func formatters(used func(operator string) bool) []*corev3.TypedExtensionConfig {
	var out []*corev3.TypedExtensionConfig
	for _, f := range []struct {
		operator, name string
		config         proto.Message
	}{
		{"%REQ_WITHOUT_QUERY(", "envoy.formatter.req_without_query", &withoutqueryv3.ReqWithoutQuery{}},
		{"%METADATA(", "envoy.formatter.metadata", &metadatav3.Metadata{}},
		{"%CEL(", "envoy.formatter.cel", &celv3.Cel{}},
	} {
		if used(f.operator) {
			out = append(out, &corev3.TypedExtensionConfig{Name: f.name, TypedConfig: typed(f.config)})
		}
	}
	return out
}

// uses reports whether a format within a JSON value has the operator.
func uses(value any, operator string) bool {
	switch v := value.(type) {
	case string:
		return strings.Contains(v, operator)
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { return uses(e, operator) })
	case map[string]any:
		for _, e := range v {
			if uses(e, operator) {
				return true
			}
		}
	}
	return false
}

func jsonFormat(fields map[string]any) *structpb.Struct {
	out, err := structpb.NewStruct(fields)
	if err != nil { // only for Go types that JSON does not have
		out = &structpb.Struct{}
	}
	return out
}
