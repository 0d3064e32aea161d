package compile

import (
	"cmp"
	"encoding/json"
	"strings"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// textLogFormat is the access log line of a mesh that does not set one.
const textLogFormat = `[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" ` +
	`%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ` +
	`"%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ` +
	`%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" ` +
	`"%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% ` +
	`%DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%` + "\n"

// jsonLogFields are the fields of a JSON line in a mesh that does not set them.
func jsonLogFields() map[string]any {
	return map[string]any{
		"authority":                         "%REQ(:AUTHORITY)%",
		"bytes_received":                    "%BYTES_RECEIVED%",
		"bytes_sent":                        "%BYTES_SENT%",
		"connection_termination_details":    "%CONNECTION_TERMINATION_DETAILS%",
		"downstream_local_address":          "%DOWNSTREAM_LOCAL_ADDRESS%",
		"downstream_remote_address":         "%DOWNSTREAM_REMOTE_ADDRESS%",
		"duration":                          "%DURATION%",
		"method":                            "%REQ(:METHOD)%",
		"path":                              "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
		"protocol":                          "%PROTOCOL%",
		"request_id":                        "%REQ(X-REQUEST-ID)%",
		"requested_server_name":             "%REQUESTED_SERVER_NAME%",
		"response_code":                     "%RESPONSE_CODE%",
		"response_code_details":             "%RESPONSE_CODE_DETAILS%",
		"response_flags":                    "%RESPONSE_FLAGS%",
		"route_name":                        "%ROUTE_NAME%",
		"start_time":                        "%START_TIME%",
		"upstream_cluster":                  "%UPSTREAM_CLUSTER_RAW%",
		"upstream_host":                     "%UPSTREAM_HOST%",
		"upstream_local_address":            "%UPSTREAM_LOCAL_ADDRESS%",
		"upstream_service_time":             "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
		"upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
		"user_agent":                        "%REQ(USER-AGENT)%",
		"x_forwarded_for":                   "%REQ(X-FORWARDED-FOR)%",
	}
}

// builtinLog is the provider of access logs that every mesh has; its lines are those of
// accessLogFormat and accessLogEncoding.
const builtinLog = "envoy"

// otelLogName is the log_name of a provider that does not give one.
const otelLogName = "otel_envoy_accesslog"

// accessLogs are the logs that the mesh configuration asks for: those of
// defaultProviders.accessLogging, without any the one of accessLogFile. A provider is left
// out where the proxy does not have its logger or does not see its service.
func accessLogs(m *meshconfig.MeshConfig, scope *mesh.Scope, proxy *mesh.Proxy) []ir.AccessLog {
	names := m.GetDefaultProviders().GetAccessLogging()
	if len(names) == 0 && m.GetAccessLogFile() != "" {
		return []ir.AccessLog{meshLog(m, m.GetAccessLogFile())}
	}
	var out []ir.AccessLog
	for p := range namedProviders(m, names) {
		switch file, otel := p.GetEnvoyFileAccessLog(), p.GetEnvoyOtelAls(); {
		case file != nil:
			out = append(out, fileLog(m, p.GetName(), file))
		case otel != nil && proxy.Has(extOpenTelemetryLog):
			if cluster, host, ok := providerCluster(scope, otel.GetService(), otel.GetPort()); ok {
				out = append(out, otelLog(otel, cluster, host))
			}
		}
	}
	return out
}

// meshLog has the lines that the mesh configuration describes.
func meshLog(m *meshconfig.MeshConfig, path string) ir.AccessLog {
	if m.GetAccessLogEncoding() == meshconfig.MeshConfig_JSON {
		return ir.AccessLog{Path: path, JSON: jsonFormat(m.GetAccessLogFormat())}
	}
	return ir.AccessLog{Path: path, Text: cmp.Or(m.GetAccessLogFormat(), textLogFormat)}
}

// fileLog has the lines that a provider describes.
func fileLog(m *meshconfig.MeshConfig, name string, p *meshconfig.MeshConfig_ExtensionProvider_EnvoyFileAccessLogProvider) ir.AccessLog {
	path := cmp.Or(p.GetPath(), "/dev/stdout")
	if name == builtinLog {
		return meshLog(m, path)
	}
	log := ir.AccessLog{Path: path, OmitEmpty: p.GetOmitEmptyValues()}
	switch f := p.GetLogFormat(); {
	case f.GetLabels() != nil:
		log.JSON = f.GetLabels().AsMap()
		if len(log.JSON) == 0 {
			log.JSON = jsonLogFields()
		}
	case f.GetText() != "":
		log.Text = strings.TrimSuffix(f.GetText(), "\n") + "\n"
	default:
		log.Text = textLogFormat
	}
	return log
}

// otelLog sends the text of a line as the body and the labels as attributes.
func otelLog(p *meshconfig.MeshConfig_ExtensionProvider_EnvoyOpenTelemetryLogProvider, cluster, host string) ir.AccessLog {
	return ir.AccessLog{
		Collector: &ir.LogCollector{Cluster: cluster, Host: host, LogName: cmp.Or(p.GetLogName(), otelLogName)},
		Text:      cmp.Or(p.GetLogFormat().GetText(), textLogFormat),
		JSON:      p.GetLogFormat().GetLabels().AsMap(),
	}
}

// noRouteLogs are the same logs for connections that end before a chain is chosen.
func noRouteLogs(logs []ir.AccessLog) []ir.AccessLog {
	var out []ir.AccessLog
	for _, l := range logs {
		l.OnlyNoRoute = true
		out = append(out, l)
	}
	return out
}

// jsonFormat reads a JSON object of formats; anything else is the default.
func jsonFormat(text string) map[string]any {
	var given map[string]any
	if text == "" || json.Unmarshal([]byte(text), &given) != nil || len(given) == 0 {
		return jsonLogFields()
	}
	return given
}
