package extauthz

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// defaultTimeout bounds a check where configuration does not.
const defaultTimeout = 200 * time.Millisecond

// settings are a compiled ExtAuthz.
type settings struct {
	service       service
	failOpen      bool
	failOpenTold  bool // failure_mode_allow_header_add
	body          *bodySettings
	clearRoute    bool
	clearFor      []string // clear_route_cache_headers, in lower case; empty: any
	statusOnError int
	validate      bool
	rules         *rules
	takesMetadata bool
	charges       bool // charge_cluster_response_stats
	maxDenied     int  // max_denied_response_body_bytes, 0: all

	enabled       *runtime.Share  // nil: always
	enabledBy     *match.Metadata // nil: always
	denyAtDisable runtime.Switch

	telling
}

// telling says what the service is told.
type telling struct {
	certificate, tls, raw bool
	bytes                 bool // the body is told as bytes, not as text
	labels                map[string]string
	allowed, disallowed   *names
	namespaces            []string
	routeNamespaces       []string
}

// bodySettings are with_request_body.
type bodySettings struct {
	most    int
	partial bool
}

func newFilter(cfg *anypb.Any, env http.Env, d Deps) (http.Filter, error) {
	var c extauthzv3.ExtAuthz
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	f := &filter{name: env.Name, deps: d}
	if err := f.compile(&c, env, d); err != nil {
		return nil, err
	}
	f.stats = newCounters(env.Stats, c.GetStatPrefix())
	return f, nil
}

func (t *settings) compile(c *extauthzv3.ExtAuthz, env http.Env, d Deps) error {
	// Metadata of a type of its own does not exist here, and there are no spans of calls.
	err := xds.Only(c, "grpc_service", "http_service", "transport_api_version", "failure_mode_allow", "failure_mode_allow_header_add",
		"with_request_body", "clear_route_cache", "clear_route_cache_headers", "status_on_error", "validate_mutations",
		"metadata_context_namespaces", "typed_metadata_context_namespaces", "route_metadata_context_namespaces",
		"route_typed_metadata_context_namespaces", "filter_enabled", "filter_enabled_metadata", "deny_at_disable",
		"include_peer_certificate", "stat_prefix", "bootstrap_metadata_labels_key", "allowed_headers", "disallowed_headers",
		"include_tls_session", "charge_cluster_response_stats", "encode_raw_headers", "decoder_header_mutation_rules",
		"enable_dynamic_metadata_ingestion", "max_denied_response_body_bytes", "emit_client_span")
	if err != nil {
		return err
	}
	if v := c.GetTransportApiVersion(); v != corev3.ApiVersion_V3 && v != corev3.ApiVersion_AUTO {
		return fmt.Errorf("transport_api_version: %s: not supported", v)
	}
	t.failOpen, t.failOpenTold, t.validate = c.GetFailureModeAllow(), c.GetFailureModeAllowHeaderAdd(), c.GetValidateMutations()
	t.clearRoute, t.maxDenied = c.GetClearRouteCache(), int(c.GetMaxDeniedResponseBodyBytes())
	for _, name := range c.GetClearRouteCacheHeaders() {
		t.clearFor = append(t.clearFor, strings.ToLower(name))
	}
	t.statusOnError = 403
	if s := int(c.GetStatusOnError().GetCode()); s != 0 {
		t.statusOnError = s
	}
	t.takesMetadata = c.GetEnableDynamicMetadataIngestion() == nil || c.GetEnableDynamicMetadataIngestion().GetValue()
	t.charges = c.GetChargeClusterResponseStats() == nil || c.GetChargeClusterResponseStats().GetValue()
	if t.body, err = newBody(c.GetWithRequestBody()); err != nil {
		return fmt.Errorf("with_request_body: %w", err)
	}
	if t.rules, err = newRules(c.GetDecoderHeaderMutationRules()); err != nil {
		return fmt.Errorf("decoder_header_mutation_rules: %w", err)
	}
	if err := t.compileEnabled(c, env); err != nil {
		return err
	}
	if err := t.compileTelling(c, d); err != nil {
		return err
	}
	return t.compileService(c)
}

func (t *settings) compileEnabled(c *extauthzv3.ExtAuthz, env http.Env) error {
	if p := c.GetFilterEnabled(); p != nil {
		share := env.Runtime.Share(p)
		t.enabled = &share
	}
	if m := c.GetFilterEnabledMetadata(); m != nil {
		by, err := match.NewMetadata(m)
		if err != nil {
			return fmt.Errorf("filter_enabled_metadata: %w", err)
		}
		t.enabledBy = &by
	}
	t.denyAtDisable = env.Runtime.Switch(c.GetDenyAtDisable())
	return nil
}

func (t *settings) compileTelling(c *extauthzv3.ExtAuthz, d Deps) (err error) {
	t.bytes = c.GetHttpService() != nil || c.GetWithRequestBody().GetPackAsBytes()
	t.certificate, t.tls, t.raw = c.GetIncludePeerCertificate(), c.GetIncludeTlsSession(), c.GetEncodeRawHeaders()
	t.namespaces, t.routeNamespaces = c.GetMetadataContextNamespaces(), c.GetRouteMetadataContextNamespaces()
	t.labels = d.labels(c.GetBootstrapMetadataLabelsKey())
	if l := c.GetAllowedHeaders(); l != nil {
		if t.allowed, err = newNames(l); err != nil {
			return fmt.Errorf("allowed_headers: %w", err)
		}
	}
	if l := c.GetDisallowedHeaders(); l != nil {
		if t.disallowed, err = newNames(l); err != nil {
			return fmt.Errorf("disallowed_headers: %w", err)
		}
	}
	return nil
}

// labels are the texts of a struct of the node's metadata.
func (d Deps) labels(key string) map[string]string {
	from, ok := d.NodeMetadata[key].(map[string]any)
	if !ok {
		return nil
	}
	labels := make(map[string]string, len(from))
	for k, v := range from {
		labels[k], _ = v.(string)
	}
	return labels
}

func (t *settings) compileService(c *extauthzv3.ExtAuthz) (err error) {
	switch {
	case c.GetGrpcService() != nil:
		to, err := callout.NewService(c.GetGrpcService(), defaultTimeout)
		if err != nil {
			return fmt.Errorf("grpc_service: %w", err)
		}
		t.service = &grpcService{to}
	case c.GetHttpService() != nil:
		own := c.GetHttpService().GetAuthorizationRequest().GetAllowedHeaders()
		if own != nil && c.GetAllowedHeaders() != nil {
			return errors.New("allowed_headers: stands at http_service.authorization_request, too")
		}
		if own != nil {
			if t.allowed, err = newNames(own); err != nil {
				return fmt.Errorf("http_service.authorization_request.allowed_headers: %w", err)
			}
		}
		t.allowed = t.allowed.and("authorization", ":method", ":path", ":authority")
		if t.service, err = newHTTPService(c.GetHttpService()); err != nil {
			return fmt.Errorf("http_service: %w", err)
		}
	default:
		return errors.New("grpc_service or http_service: one must be set")
	}
	return nil
}

func newBody(b *extauthzv3.BufferSettings) (*bodySettings, error) {
	if b == nil {
		return nil, nil
	}
	if b.GetMaxRequestBytes() == 0 {
		return nil, errors.New("max_request_bytes: must be greater than 0")
	}
	return &bodySettings{most: int(b.GetMaxRequestBytes()), partial: b.GetAllowPartialMessage()}, nil
}

// override is a compiled ExtAuthzPerRoute.
type override struct {
	disabled   bool
	extensions map[string]string
	noBody     bool          // disable_request_body_buffering
	body       *bodySettings // nil: the filter's
	service    service       // nil: the filter's
}

func newOverride(cfg *anypb.Any, _ http.Env) (any, error) {
	var c extauthzv3.ExtAuthzPerRoute
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	switch o := c.GetOverride().(type) {
	case *extauthzv3.ExtAuthzPerRoute_Disabled:
		if !o.Disabled {
			return nil, errors.New("disabled: must be true")
		}
		return &override{disabled: true}, nil
	case *extauthzv3.ExtAuthzPerRoute_CheckSettings:
		out, err := newCheckSettings(o.CheckSettings)
		if err != nil {
			return nil, fmt.Errorf("check_settings: %w", err)
		}
		return out, nil
	}
	return nil, errors.New("override: not set")
}

func newCheckSettings(c *extauthzv3.CheckSettings) (o *override, err error) {
	o = &override{extensions: maps.Clone(c.GetContextExtensions()), noBody: c.GetDisableRequestBodyBuffering()}
	if o.body, err = newBody(c.GetWithRequestBody()); err != nil {
		return nil, fmt.Errorf("with_request_body: %w", err)
	}
	if o.noBody && o.body != nil {
		return nil, errors.New("disable_request_body_buffering and with_request_body: only one may be set")
	}
	switch {
	case c.GetGrpcService() != nil:
		to, err := callout.NewService(c.GetGrpcService(), defaultTimeout)
		if err != nil {
			return nil, fmt.Errorf("grpc_service: %w", err)
		}
		o.service = &grpcService{to}
	case c.GetHttpService() != nil:
		if o.service, err = newHTTPService(c.GetHttpService()); err != nil {
			return nil, fmt.Errorf("http_service: %w", err)
		}
	}
	return o, nil
}

// serviceOf is who decides for a route.
func (t *settings) serviceOf(o *override) service {
	if o != nil && o.service != nil {
		return o.service
	}
	return t.service
}

// bodyOf says what of the body of a route's request is told, nil for nothing.
func (t *settings) bodyOf(o *override) *bodySettings {
	switch {
	case o == nil:
		return t.body
	case o.noBody:
		return nil
	case o.body != nil:
		return o.body
	}
	return t.body
}

// names is a list of matchers of header names; a nil one is none.
type names struct{ patterns []match.String }

func newNames(l *matcherv3.ListStringMatcher) (*names, error) {
	n := &names{}
	for i, p := range l.GetPatterns() {
		m, err := match.NewString(p)
		if err != nil {
			return nil, fmt.Errorf("patterns[%d]: %w", i, err)
		}
		n.patterns = append(n.patterns, m)
	}
	return n, nil
}

// and is n with further names.
func (n *names) and(more ...string) *names {
	out := &names{}
	if n != nil {
		out.patterns = append(out.patterns, n.patterns...)
	}
	for _, name := range more {
		out.patterns = append(out.patterns, match.Exact(name))
	}
	return out
}

// match reports whether a name, in lower case, is in the list.
func (n *names) match(name string) bool {
	if n == nil {
		return false
	}
	for i := range n.patterns {
		if n.patterns[i].MatchText(name) {
			return true
		}
	}
	return false
}
