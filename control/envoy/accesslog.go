package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control/ir"
)

func accessLogs(logs []ir.AccessLog) []*accesslogv3.AccessLog {
	var out []*accesslogv3.AccessLog
	for _, l := range logs {
		log := &accesslogv3.AccessLog{
			Name: "envoy.access_loggers.file",
			ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: typed(&filelogv3.FileAccessLog{
				Path:            l.Path,
				AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: logFormat(l)},
			})},
		}
		if l.OnlyNoRoute {
			log.Filter = &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
				ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{"NR"}}}}
		}
		out = append(out, log)
	}
	return out
}

func logFormat(l ir.AccessLog) *corev3.SubstitutionFormatString {
	if l.JSON != nil {
		return &corev3.SubstitutionFormatString{
			Format:            &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: jsonFormat(l.JSON)},
			JsonFormatOptions: &corev3.JsonFormatOptions{},
		}
	}
	return &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
		TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: l.Text}}}}
}

func jsonFormat(fields map[string]ir.JSONField) *structpb.Struct {
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for name, f := range fields {
		if f.Fields != nil {
			out.Fields[name] = structpb.NewStructValue(jsonFormat(f.Fields))
			continue
		}
		out.Fields[name] = structpb.NewStringValue(f.Format)
	}
	return out
}
