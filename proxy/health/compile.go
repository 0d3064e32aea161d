package health

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/health_check/event_sinks/file/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Envoy's defaults.
const (
	defaultNoTraffic = 60 * time.Second
	defaultBuffer    = 1024    // response_buffer_size
	maxBuffer        = 1 << 20 // bytes of an answer that are kept to be matched, whatever is asked
)

// Compile compiles the health_checks of a cluster, nil for none. Errors name the field
// below health_checks[n].
func Compile(list []*corev3.HealthCheck) (*Plan, error) {
	if len(list) == 0 {
		return nil, nil
	}
	p := &Plan{}
	names := map[string]bool{}
	for i, pb := range list {
		c, err := compile(pb)
		switch {
		case err != nil:
			return nil, fmt.Errorf("health_checks[%d].%w", i, err)
		case len(list) > 1 && c.name == "":
			return nil, fmt.Errorf("health check at index %d is missing a name; all health checks must have a name when multiple health checks are configured", i)
		case names[c.name]:
			return nil, fmt.Errorf("health_checks[%d].name: %q is there already", i, c.name)
		}
		names[c.name] = true
		p.checks = append(p.checks, c)
	}
	return p, nil
}

func compile(pb *corev3.HealthCheck) (*check, error) {
	err := xds.Only(pb, "name", "timeout", "interval", "initial_jitter", "interval_jitter", "interval_jitter_percent", "unhealthy_threshold",
		"healthy_threshold", "alt_port", "reuse_connection", "http_health_check", "tcp_health_check", "grpc_health_check",
		"no_traffic_interval", "no_traffic_healthy_interval", "unhealthy_interval", "unhealthy_edge_interval", "healthy_edge_interval",
		"event_log_path", "event_logger", "always_log_health_check_failures", "always_log_health_check_success", "tls_options",
		"transport_socket_match_criteria")
	if err != nil {
		return nil, err
	}
	if err := pb.Validate(); err != nil { // the constraints that the schema itself states
		return nil, err
	}
	c := &check{
		name: pb.GetName(), times: compileTimes(pb), unhealthy: max(1, pb.GetUnhealthyThreshold().GetValue()), healthy: max(1, pb.GetHealthyThreshold().GetValue()),
		reuse: yes(pb.GetReuseConnection()), logFailures: pb.GetAlwaysLogHealthCheckFailures(), logSuccesses: pb.GetAlwaysLogHealthCheckSuccess(),
		way: Way{ALPN: pb.GetTlsOptions().GetAlpnProtocols()},
	}
	if m := pb.GetTransportSocketMatchCriteria(); m != nil {
		c.way.Criteria = m.AsMap()
	}
	if n := pb.GetAltPort().GetValue(); n > 65535 {
		return nil, fmt.Errorf("alt_port: must be at most 65535, got %d", n)
	}
	c.port = uint16(pb.GetAltPort().GetValue())
	if err := c.compileLogs(pb); err != nil {
		return nil, err
	}
	return c, c.compileKind(pb)
}

func yes(v *wrapperspb.BoolValue) bool { return v == nil || v.GetValue() }

func compileTimes(pb *corev3.HealthCheck) times {
	or := func(d *durationpb.Duration, otherwise time.Duration) time.Duration {
		if d == nil {
			return otherwise
		}
		return d.AsDuration()
	}
	t := times{
		timeout: pb.GetTimeout().AsDuration(), interval: pb.GetInterval().AsDuration(), noTraffic: or(pb.GetNoTrafficInterval(), defaultNoTraffic),
		initialJitter: pb.GetInitialJitter().AsDuration(), jitter: pb.GetIntervalJitter().AsDuration(), jitterPercent: pb.GetIntervalJitterPercent(),
	}
	t.noTrafficHealthy = or(pb.GetNoTrafficHealthyInterval(), t.noTraffic)
	t.unhealthy = or(pb.GetUnhealthyInterval(), t.interval)
	t.unhealthyEdge = or(pb.GetUnhealthyEdgeInterval(), t.unhealthy)
	t.healthyEdge = or(pb.GetHealthyEdgeInterval(), t.interval)
	return t
}

func (c *check) compileLogs(pb *corev3.HealthCheck) error {
	if path := pb.GetEventLogPath(); path != "" {
		c.logs = append(c.logs, path)
	}
	for i, l := range pb.GetEventLogger() {
		var sink filev3.HealthCheckEventFileSink
		if err := l.GetTypedConfig().UnmarshalTo(&sink); err != nil {
			return fmt.Errorf("event_logger[%d]: %s: not supported", i, l.GetTypedConfig().GetTypeUrl())
		}
		if sink.GetEventLogPath() == "" {
			return fmt.Errorf("event_logger[%d].event_log_path: value length must be at least 1 characters", i)
		}
		c.logs = append(c.logs, sink.GetEventLogPath())
	}
	return nil
}

func (c *check) compileKind(pb *corev3.HealthCheck) (err error) {
	switch k := pb.GetHealthChecker().(type) {
	case *corev3.HealthCheck_HttpHealthCheck_:
		c.kind, err = compileHTTP(k.HttpHealthCheck)
		return at("http_health_check", err)
	case *corev3.HealthCheck_TcpHealthCheck_:
		c.kind, err = compileTCP(k.TcpHealthCheck)
		return at("tcp_health_check", err)
	case *corev3.HealthCheck_GrpcHealthCheck_:
		c.kind, err = compileGRPC(k.GrpcHealthCheck)
		return at("grpc_health_check", err)
	}
	return errors.New("health_checker: value is required")
}

// at puts a field name in front of an error.
func at(field string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s.%w", field, err)
}

// payloads compiles what an answer must hold, each part after the one before.
func payloads(field string, list []*corev3.HealthCheck_Payload) (parts [][]byte, err error) {
	for i, p := range list {
		b, err := payload(p)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		parts = append(parts, b)
	}
	return parts, nil
}

// payload is bytes, as they are or in hexadecimal digits.
func payload(p *corev3.HealthCheck_Payload) ([]byte, error) {
	if t, ok := p.GetPayload().(*corev3.HealthCheck_Payload_Text); ok {
		b, err := hex.DecodeString(t.Text)
		if err != nil {
			return nil, fmt.Errorf("text: invalid hex string '%s'", t.Text)
		}
		return b, nil
	}
	return p.GetBinary(), nil
}

// statuses compiles ranges of HTTP statuses, ends excluded.
func statuses(field string, list []*typev3.Int64Range) ([][2]int64, error) {
	var out [][2]int64
	for i, r := range list {
		if r.GetStart() < 100 || r.GetEnd() > 600 || r.GetStart() >= r.GetEnd() {
			return nil, fmt.Errorf("%s[%d]: invalid http status range: expecting start >= 100, end <= 600, start < end, but found start=%d and end=%d",
				field, i, r.GetStart(), r.GetEnd())
		}
		out = append(out, [2]int64{r.GetStart(), r.GetEnd()})
	}
	return out, nil
}

func within(ranges [][2]int64, status int) bool {
	for _, r := range ranges {
		if int64(status) >= r[0] && int64(status) < r[1] {
			return true
		}
	}
	return false
}

// headers compiles fields of requests.
func headers(field string, list []*corev3.HeaderValueOption) ([]header, error) {
	var out []header
	for i, o := range list {
		h := header{name: []byte(strings.ToLower(o.GetHeader().GetKey()))}
		if err := xds.Only(o, "header", "append", "append_action", "keep_empty_value"); err != nil {
			return nil, fmt.Errorf("%s[%d].%w", field, i, err)
		}
		if len(h.name) == 0 || h.name[0] == ':' || string(h.name) == "host" {
			return nil, fmt.Errorf("%s[%d].header.key: :-prefixed or host headers may not be modified", field, i)
		}
		text := o.GetHeader().GetValue()
		if text == "" {
			text = string(o.GetHeader().GetRawValue())
		}
		f, err := format.ParseHeader(text)
		if err != nil {
			return nil, fmt.Errorf("%s[%d].header.value: %w", field, i, err)
		}
		h.value = f
		h.overwrite = o.GetAppend() != nil && !o.GetAppend().GetValue() || o.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		h.empty = o.GetKeepEmptyValue()
		out = append(out, h)
	}
	return out, nil
}

// compileMatcher is for service_name_matcher, nil for none.
func compileMatcher(pb *corev3.HealthCheck_HttpHealthCheck) (*match.String, error) {
	if pb.GetServiceNameMatcher() == nil {
		return nil, nil
	}
	m, err := match.NewString(pb.GetServiceNameMatcher())
	if err != nil {
		return nil, at("service_name_matcher", err)
	}
	return &m, nil
}
