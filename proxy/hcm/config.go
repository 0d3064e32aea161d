package hcm

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lateen-mesh/lateen/proxy/accesslog"
	"github.com/lateen-mesh/lateen/proxy/http1"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/tracing"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

type pointer[T any] = atomic.Pointer[T]

// config are the settings of a manager.
type config struct {
	codec      http1.ServerOptions
	http2      http2.ServerOptions
	version    version       // codec_type
	drainTime  time.Duration // between the two steps of a drain
	drainExtra float64       // drain_timeout_jitter, a share
	ageExtra   float64       // max_connection_duration_jitter, a share
	authority  authorityRules
	scheme     schemeRules
	replies    *localReplies // nil: as they are

	underscores corev3.HttpProtocolOptions_HeadersWithUnderscoresAction
	server      []byte
	transform   hcmv3.HttpConnectionManager_ServerHeaderTransformation
	via         []byte
	ingress     bool // the listener's direction is not OUTBOUND
	edge        edge
	earlyEdits  []route.Mutations
	path        pathRules
	requestID   requestID
	sampling    *sampling       // nil: nothing is traced
	tracer      *tracing.Tracer // nil: no ids are passed on
	xfcc        xfcc
	upgrades    map[string]*upgrade // by lower-case type
	proxy100    bool
	userAgent   []byte
	node        []byte
	maxUses     uint32        // max_requests_per_connection, 0: no limit
	streamIdle  time.Duration // 0: none, as all of these
	request     time.Duration
	headers     time.Duration
	idle        time.Duration
	maxAge      time.Duration
	maxStream   time.Duration
	delayed     time.Duration
}

// Envoy's defaults.
const (
	defaultStreamIdle   = 5 * time.Minute
	defaultIdle         = time.Hour
	defaultDelayedClose = time.Second
	defaultServer       = "envoy"
	defaultDrain        = 5 * time.Second // drain_timeout
)

// A version is what a connection manager speaks.
type version uint8

const (
	versionAny version = iota // as ALPN or the first bytes say
	version1
	version2
)

// supported are the fields that compile reads, and those that have no effect here:
// codec options of HTTP/3, log flushing by time.
var supported = []protoreflect.Name{
	"codec_type", "stat_prefix", "rds", "route_config", "scoped_routes", "http_filters", "add_user_agent", "tracing", "common_http_protocol_options",
	"http_protocol_options", "http2_protocol_options", "http3_protocol_options", "server_name", "server_header_transformation",
	"max_request_headers_kb", "stream_idle_timeout", "request_timeout", "request_headers_timeout", "drain_timeout",
	"delayed_close_timeout", "access_log", "use_remote_address", "xff_num_trusted_hops", "internal_address_config", "skip_xff_append",
	"via", "generate_request_id", "preserve_external_request_id", "always_set_request_id_in_response", "forward_client_cert_details",
	"set_current_client_cert_details", "proxy_100_continue", "upgrade_configs", "normalize_path", "merge_slashes",
	"path_with_escaped_slashes_action", "request_id_extension", "append_x_forwarded_port", "stream_error_on_invalid_http_message",
	"append_local_overload", "add_proxy_protocol_connection_state", "strip_matching_host_port", "strip_any_host_port",
	"strip_trailing_host_dot", "scheme_header_transformation", "http1_safe_max_connection_duration", "drain_timeout_jitter",
	"local_reply_config", "access_log_options", "flush_access_log_on_new_request", "access_log_flush_interval", "original_ip_detection_extensions",
	"early_header_mutation_extensions",
}

// compile turns the resource into a manager.
func compile(c *hcmv3.HttpConnectionManager, env network.Env, d Deps, codec *http2.Stats) (*manager, error) {
	if err := xds.Only(c, supported...); err != nil {
		return nil, err
	}
	m := &manager{config: newConfig(c, env), closed: make(chan struct{}), hasCluster: d.HasCluster}
	m.policy.tell, m.routes.changed = env.Changed, m.policy.changed
	prefix := c.GetStatPrefix()
	if prefix == "" {
		return nil, errors.New("stat_prefix: must not be empty")
	}
	m.stats = newCounters(d.Stats.Scope("http."+prefix+"."), d.Stats.Scope("http1."))
	if env.StatPrefix != "" {
		m.stats.tellListener(d.Stats.Scope(env.StatPrefix + "http." + prefix + "."))
	}
	steps := []func() error{
		func() error { return m.compileCodec(c, codec) },
		func() error { return m.compileEdge(c, d) },
		func() error { return m.compileDetections(c) },
		func() error { return m.compileEarlyEdits(c) },
		func() error { return m.compileRequestID(c) },
		func() error { return m.compileTracing(c.GetTracing(), d) },
		func() error { return m.compileXFCC(c) },
		func() error { return m.compileUpgrades(c) },
		func() (err error) { m.replies, err = newLocalReplies(c.GetLocalReplyConfig(), d.Runtime); return err },
		func() error { return m.compileChains(c, env, d) },
		func() error { return m.compileRoutes(c, env, d) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			m.release()
			return nil, err
		}
	}
	var err error
	if err = m.compileLogOptions(c); err != nil {
		m.release()
		return nil, err
	}
	if m.loggers, err = accesslog.Build(c.GetAccessLog(), d.AccessLog); err != nil {
		m.release()
		return nil, err // names access_log[n]
	}
	return m, nil
}

// newConfig takes the fields that cannot be wrong.
func newConfig(c *hcmv3.HttpConnectionManager, env network.Env) config {
	o := c.GetCommonHttpProtocolOptions()
	cfg := config{
		server: []byte(c.GetServerName()), transform: c.GetServerHeaderTransformation(), via: []byte(c.GetVia()),
		ingress: env.Direction != "OUTBOUND", proxy100: c.GetProxy_100Continue(),
		path:       pathRules{normalize: c.GetNormalizePath().GetValue(), merge: c.GetMergeSlashes(), escaped: c.GetPathWithEscapedSlashesAction()},
		streamIdle: duration(c.GetStreamIdleTimeout(), defaultStreamIdle), request: duration(c.GetRequestTimeout(), 0),
		headers: duration(c.GetRequestHeadersTimeout(), 0), delayed: duration(c.GetDelayedCloseTimeout(), defaultDelayedClose),
		idle: duration(o.GetIdleTimeout(), defaultIdle), maxAge: duration(o.GetMaxConnectionDuration(), 0),
		drainTime: duration(c.GetDrainTimeout(), defaultDrain), maxStream: duration(o.GetMaxStreamDuration(), 0), maxUses: o.GetMaxRequestsPerConnection().GetValue(),
	}
	if len(cfg.server) == 0 {
		cfg.server = []byte(defaultServer)
	}
	cfg.authority, cfg.scheme = newAuthorityRules(c), newSchemeRules(c.GetSchemeHeaderTransformation())
	cfg.underscores = o.GetHeadersWithUnderscoresAction()
	cfg.drainExtra, cfg.ageExtra = c.GetDrainTimeoutJitter().GetValue()/100, o.GetMaxConnectionDurationJitter().GetValue()/100
	return cfg
}

// duration is d, or the default when it is not set; 0 switches off.
func duration(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}

// compileCodec reads what concerns the bytes on the wire.
func (m *manager) compileCodec(c *hcmv3.HttpConnectionManager, stats *http2.Stats) error {
	switch c.GetCodecType() {
	case hcmv3.HttpConnectionManager_AUTO:
	case hcmv3.HttpConnectionManager_HTTP1:
		m.version = version1
	case hcmv3.HttpConnectionManager_HTTP2:
		m.version = version2
	default:
		return fmt.Errorf("codec_type: %v: not supported", c.GetCodecType())
	}
	if err := m.compileHTTP1(c); err != nil {
		return err
	}
	return m.compileHTTP2(c, stats)
}

func (m *manager) compileHTTP1(c *hcmv3.HttpConnectionManager) error {
	common := c.GetCommonHttpProtocolOptions()
	err := onlyIn("common_http_protocol_options", common, "idle_timeout", "max_connection_duration", "max_headers_count",
		"max_stream_duration", "max_requests_per_connection", "max_connection_duration_jitter", "headers_with_underscores_action")
	if err != nil {
		return err
	}
	o, err := http1.Decode(c.GetHttpProtocolOptions())
	if err != nil {
		return fmt.Errorf("http_protocol_options.%w", err)
	}
	if c.GetHttpProtocolOptions().GetOverrideStreamErrorOnInvalidHttpMessage() == nil {
		o.StreamErrors = c.GetStreamErrorOnInvalidHttpMessage().GetValue()
	}
	m.codec = http1.ServerOptions{Options: o, HTTP2: m.version == versionAny,
		MaxHeadBytes: int(c.GetMaxRequestHeadersKb().GetValue()) << 10, MaxHeaders: int(common.GetMaxHeadersCount().GetValue())}
	return nil
}

// onlyIn is xds.Only below a field.
func onlyIn(field string, msg interface {
	ProtoReflect() protoreflect.Message
}, names ...protoreflect.Name) error {
	if !msg.ProtoReflect().IsValid() {
		return nil
	}
	if err := xds.Only(msg, names...); err != nil {
		return fmt.Errorf("%s.%w", field, err)
	}
	return nil
}

// compileHTTP2 reads http2_protocol_options.
func (m *manager) compileHTTP2(c *hcmv3.HttpConnectionManager, stats *http2.Stats) error {
	o, err := http2.Decode(c.GetHttp2ProtocolOptions())
	if err != nil {
		return fmt.Errorf("http2_protocol_options.%w", err)
	}
	o.Stats = stats
	o.MaxHeadBytes, o.MaxHeaders = m.codec.MaxHeadBytes, m.codec.MaxHeaders
	m.http2 = http2.ServerOptions{Options: o}
	return nil
}

// compileEdge reads how far clients are trusted.
func (m *manager) compileEdge(c *hcmv3.HttpConnectionManager, d Deps) error {
	m.edge = edge{remote: c.GetUseRemoteAddress().GetValue(), hops: int(c.GetXffNumTrustedHops()), skip: c.GetSkipXffAppend(),
		port: c.GetAppendXForwardedPort(), unix: c.GetInternalAddressConfig().GetUnixSockets(), local: d.LocalAddress}
	if !m.edge.local.IsValid() {
		m.edge.local = LocalAddress()
	}
	var err error
	if m.edge.internal, err = match.NewCIDR(c.GetInternalAddressConfig().GetCidrRanges()...); err != nil {
		return fmt.Errorf("internal_address_config.cidr_ranges%w", err) // which names [n]
	}
	if c.GetAddUserAgent().GetValue() {
		m.userAgent, m.node = []byte(d.Service), []byte(d.Node)
	}
	return nil
}

func (m *manager) compileRequestID(c *hcmv3.HttpConnectionManager) error {
	m.requestID = requestID{generate: c.GetGenerateRequestId() == nil || c.GetGenerateRequestId().GetValue(),
		keepExternal: c.GetPreserveExternalRequestId(), answer: c.GetAlwaysSetRequestIdInResponse(), traces: true}
	if x := c.GetRequestIdExtension().GetTypedConfig(); x != nil {
		var u uuidv3.UuidRequestIdConfig
		if err := x.UnmarshalTo(&u); err != nil {
			return fmt.Errorf("request_id_extension: %s: not supported", x.GetTypeUrl())
		}
		m.requestID.traces = u.GetUseRequestIdForTraceSampling() == nil || u.GetUseRequestIdForTraceSampling().GetValue()
		m.requestID.fixed = u.GetPackTraceReason() != nil && !u.GetPackTraceReason().GetValue()
	}
	return nil
}

// compileTracing reads how often traces are sampled and how their ids are passed on.
// Tags and the length of paths are for spans that are reported.
func (m *manager) compileTracing(t *hcmv3.HttpConnectionManager_Tracing, d Deps) error {
	if t == nil {
		return nil
	}
	err := onlyIn("tracing", t, "client_sampling", "random_sampling", "overall_sampling", "verbose", "max_path_tag_length",
		"custom_tags", "provider", "spawn_upstream_span", "operation", "upstream_operation")
	if err != nil {
		return err
	}
	if t.GetSpawnUpstreamSpan().GetValue() {
		return errors.New("tracing.spawn_upstream_span: not supported")
	}
	m.sampling = &sampling{
		client:  d.Runtime.ShareOf("tracing.client_enabled", share(t.GetClientSampling())),
		random:  d.Runtime.ShareOf("tracing.random_sampling", share(t.GetRandomSampling())),
		overall: d.Runtime.ShareOf("tracing.global_enabled", share(t.GetOverallSampling())),
	}
	m.tracer = d.Tracing
	if t.GetProvider() != nil {
		if m.tracer, err = tracing.New(t.GetProvider()); err != nil {
			return fmt.Errorf("tracing.%w", err)
		}
	}
	return nil
}

// share is a percentage in hundredths, 100 % where it is not set.
func share(p *typev3.Percent) match.Fraction {
	const whole = 10000
	if p == nil {
		return match.Fraction{Numerator: whole, Denominator: whole}
	}
	return match.Fraction{Numerator: uint32(p.GetValue() * 100), Denominator: whole}
}
