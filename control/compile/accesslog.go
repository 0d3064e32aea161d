package compile

import (
	"cmp"
	"encoding/json"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ir"
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

// accessLogs are the logs that the mesh configuration asks for.
func accessLogs(m *meshconfig.MeshConfig) []ir.AccessLog {
	if m.GetAccessLogFile() == "" {
		return nil
	}
	log := ir.AccessLog{Path: m.GetAccessLogFile()}
	if m.GetAccessLogEncoding() == meshconfig.MeshConfig_JSON {
		log.JSON = jsonFormat(m.GetAccessLogFormat())
		return []ir.AccessLog{log}
	}
	log.Text = cmp.Or(m.GetAccessLogFormat(), textLogFormat)
	return []ir.AccessLog{log}
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
