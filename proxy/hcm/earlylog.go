package hcm

import (
	"errors"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// The types of lines of the access log that come before the end.
const (
	logStart  = "DownstreamStart"
	logTunnel = "DownstreamTunnelSuccessfullyEstablished"
)

// compileLogOptions reads which lines come before the end, also in its older form.
func (m *manager) compileLogOptions(c *hcmv3.HttpConnectionManager) error {
	o := c.GetAccessLogOptions()
	if o != nil && c.GetFlushAccessLogOnNewRequest() {
		return errors.New("Only one of flush_access_log_on_new_request or access_log_options can be specified.") //nolint:revive,staticcheck // Envoy's words
	}
	if o.GetAccessLogFlushInterval() != nil || c.GetAccessLogFlushInterval() != nil {
		return errors.New("access_log_flush_interval: not supported")
	}
	m.early = earlyLines{
		start:  o.GetFlushAccessLogOnNewRequest() || c.GetFlushAccessLogOnNewRequest(),
		tunnel: o.GetFlushLogOnTunnelSuccessfullyEstablished(),
	}
	return nil
}

// earlyLines are those that are wanted.
type earlyLines struct{ start, tunnel bool }

// logEarly writes a line of the given type for a stream that goes on.
func (st *stream) logEarly(kind string) {
	codec := st.codec
	st.Info.BytesReceived, st.Info.BytesSent = codec.Received(), codec.Sent()
	st.Info.LogType = kind
	for _, l := range st.c.m.loggers {
		l.LogHTTP(&st.Stream)
	}
	st.Info.LogType = ""
}
