package hcm

import (
	"errors"
	"fmt"
	"strings"
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
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/tracing"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

type pointer[T any] = atomic.Pointer[T]

// config are the settings of a manager.
type config struct {
	codec      http1.ServerOptions
	server     []byte
	transform  hcmv3.HttpConnectionManager_ServerHeaderTransformation
	via        []byte
	ingress    bool // the listener's direction is not OUTBOUND
	edge       edge
	path       pathRules
	requestID  requestID
	sampling   *sampling       // nil: nothing is traced
	tracer     *tracing.Tracer // nil: no ids are passed on
	xfcc       xfcc
	upgrades   map[string]bool // by lower-case type
	proxy100   bool
	userAgent  []byte
	node       []byte
	maxUses    uint32        // max_requests_per_connection, 0: no limit
	streamIdle time.Duration // 0: none, as all of these
	request    time.Duration
	headers    time.Duration
	idle       time.Duration
	maxAge     time.Duration
	maxStream  time.Duration
	delayed    time.Duration
}

// Envoy's defaults.
const (
	defaultStreamIdle   = 5 * time.Minute
	defaultIdle         = time.Hour
	defaultDelayedClose = time.Second
	defaultServer       = "envoy"
	defaultFetch        = 15 * time.Second // initial_fetch_timeout
)

// supported are the fields that compile reads, and those that have no effect here:
// codec options of other protocols, log flushing by time, drain_timeout (GOAWAY only).
var supported = []protoreflect.Name{
	"codec_type", "stat_prefix", "rds", "route_config", "http_filters", "add_user_agent", "tracing", "common_http_protocol_options",
	"http_protocol_options", "http2_protocol_options", "http3_protocol_options", "server_name", "server_header_transformation",
	"max_request_headers_kb", "stream_idle_timeout", "request_timeout", "request_headers_timeout", "drain_timeout",
	"delayed_close_timeout", "access_log", "use_remote_address", "xff_num_trusted_hops", "internal_address_config", "skip_xff_append",
	"via", "generate_request_id", "preserve_external_request_id", "always_set_request_id_in_response", "forward_client_cert_details",
	"set_current_client_cert_details", "proxy_100_continue", "upgrade_configs", "normalize_path", "merge_slashes",
	"path_with_escaped_slashes_action", "request_id_extension", "append_x_forwarded_port", "stream_error_on_invalid_http_message",
	"append_local_overload", "add_proxy_protocol_connection_state",
}

// compile turns the resource into a manager.
func compile(c *hcmv3.HttpConnectionManager, env network.Env, d Deps) (*manager, error) {
	if err := xds.Only(c, supported...); err != nil {
		return nil, err
	}
	m := &manager{config: newConfig(c, env), hasCluster: d.HasCluster}
	prefix := c.GetStatPrefix()
	if prefix == "" {
		return nil, errors.New("stat_prefix: must not be empty")
	}
	m.stats = newCounters(d.Stats.Scope("http." + prefix + "."))
	steps := []func() error{
		func() error { return m.compileCodec(c) },
		func() error { return m.compileEdge(c, d) },
		func() error { return m.compileRequestID(c) },
		func() error { return m.compileTracing(c.GetTracing(), d) },
		func() error { return m.compileXFCC(c) },
		func() error { return m.compileUpgrades(c) },
		func() error { return m.compileChain(c, env, d) },
		func() error { return m.compileRoutes(c, env, d) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	var err error
	if m.loggers, err = accesslog.Build(c.GetAccessLog(), d.AccessLog); err != nil {
		m.routes.close()
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
		maxStream: duration(o.GetMaxStreamDuration(), 0), maxUses: o.GetMaxRequestsPerConnection().GetValue(),
	}
	if len(cfg.server) == 0 {
		cfg.server = []byte(defaultServer)
	}
	return cfg
}

// duration is d, or the default when it is not set; 0 switches off.
func duration(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}

// compileCodec reads what concerns the bytes of HTTP/1.1.
func (m *manager) compileCodec(c *hcmv3.HttpConnectionManager) error {
	switch c.GetCodecType() {
	case hcmv3.HttpConnectionManager_AUTO, hcmv3.HttpConnectionManager_HTTP1:
	default:
		return fmt.Errorf("codec_type: %v: not supported", c.GetCodecType())
	}
	common := c.GetCommonHttpProtocolOptions()
	err := onlyIn("common_http_protocol_options", common, "idle_timeout", "max_connection_duration", "max_headers_count",
		"max_stream_duration", "max_requests_per_connection")
	if err != nil {
		return err
	}
	o := c.GetHttpProtocolOptions()
	err = onlyIn("http_protocol_options", o, "accept_http_10", "header_key_format", "enable_trailers", "allow_absolute_url", "use_balsa_parser",
		"override_stream_error_on_invalid_http_message")
	if err != nil {
		return err
	}
	if a := o.GetAllowAbsoluteUrl(); a != nil && !a.GetValue() {
		return errors.New("http_protocol_options.allow_absolute_url: false: not supported")
	}
	if c.GetStreamErrorOnInvalidHttpMessage().GetValue() || o.GetOverrideStreamErrorOnInvalidHttpMessage().GetValue() {
		return errors.New("stream_error_on_invalid_http_message: true: not supported")
	}
	m.codec = http1.ServerOptions{AcceptHTTP10: o.GetAcceptHttp_10(), Trailers: o.GetEnableTrailers(),
		MaxHeadBytes: int(c.GetMaxRequestHeadersKb().GetValue()) << 10, MaxHeaders: int(common.GetMaxHeadersCount().GetValue())}
	if m.codec.MaxHeadBytes > http1.MaxHeadBytes {
		return fmt.Errorf("max_request_headers_kb: at most %d, got %d", http1.MaxHeadBytes>>10, c.GetMaxRequestHeadersKb().GetValue())
	}
	if f := o.GetHeaderKeyFormat(); f != nil {
		if !isPreserveCase(f) {
			return errors.New("http_protocol_options.header_key_format: only preserve_case is supported")
		}
		m.codec.PreserveCase = true
	}
	return nil
}

func isPreserveCase(f *corev3.Http1ProtocolOptions_HeaderKeyFormat) bool {
	return strings.HasSuffix(f.GetStatefulFormatter().GetTypedConfig().GetTypeUrl(), "preserve_case.v3.PreserveCaseFormatterConfig")
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
	m.sampling = &sampling{client: share(t.GetClientSampling()), random: share(t.GetRandomSampling()), overall: share(t.GetOverallSampling())}
	m.tracer = d.Tracing
	if t.GetProvider() != nil {
		if m.tracer, err = tracing.New(t.GetProvider()); err != nil {
			return fmt.Errorf("tracing.%w", err)
		}
	}
	return nil
}

// share is a percentage in hundredths, 100 % where it is not set.
func share(p *typev3.Percent) uint64 {
	if p == nil {
		return wholeShare
	}
	return uint64(p.GetValue() * 100)
}

func (m *manager) compileUpgrades(c *hcmv3.HttpConnectionManager) error {
	m.upgrades = map[string]bool{}
	for i, u := range c.GetUpgradeConfigs() {
		if len(u.GetFilters()) > 0 {
			return fmt.Errorf("upgrade_configs[%d].filters: not supported", i)
		}
		m.upgrades[strings.ToLower(u.GetUpgradeType())] = u.GetEnabled() == nil || u.GetEnabled().GetValue()
	}
	return nil
}
