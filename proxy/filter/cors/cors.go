// Package cors is the HTTP filter envoy.filters.http.cors: it answers preflight
// requests of browsers and tells them by response headers what a page of another
// origin may do. The policy is that of the route; the filter itself has none.
package cors

import (
	"fmt"
	"math/rand/v2"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's canonical name.
const Name = "envoy.filters.http.cors"

const (
	typeURL   = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.Cors"
	policyURL = "type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy"
)

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{Name: Name, TypeURLs: []string{typeURL, policyURL}, New: newFilter, Override: newPolicy}
}

func newFilter(cfg *anypb.Any, env http.Env) (http.Filter, error) {
	var c corsv3.Cors
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := xds.Only(&c); err != nil {
		return nil, err
	}
	scope := env.Stats.Scope("cors")
	return &filter{valid: scope.Counter("origin_valid"), invalid: scope.Counter("origin_invalid")}, nil
}

// A policy is a compiled CorsPolicy.
type policy struct {
	origins                       []match.String
	methods, headers, expose, age []byte
	credentials, privateNetwork   bool
	forward                       bool // preflights of other origins go on
	enabled, shadow               share
}

// A share of the requests; without a fraction it is all or none.
type share struct {
	fraction runtime.Share
	of       bool
	all      bool
}

func newShare(p *corev3.RuntimeFractionalPercent, values *runtime.Values, otherwise bool) share {
	if p == nil {
		return share{all: otherwise}
	}
	return share{fraction: values.Share(p), of: true}
}

func (s share) holds() bool {
	if s.of {
		return s.fraction.Of(rand.Uint64())
	}
	return s.all
}

func newPolicy(cfg *anypb.Any, env http.Env) (any, error) {
	var c corsv3.CorsPolicy
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := c.Validate(); err != nil {
		return nil, err
	}
	err := xds.Only(&c, "allow_origin_string_match", "allow_methods", "allow_headers", "expose_headers", "max_age", "allow_credentials",
		"filter_enabled", "shadow_enabled", "allow_private_network_access", "forward_not_matching_preflights")
	if err != nil {
		return nil, err
	}
	p := &policy{
		methods: []byte(c.GetAllowMethods()), headers: []byte(c.GetAllowHeaders()), expose: []byte(c.GetExposeHeaders()), age: []byte(c.GetMaxAge()),
		credentials: c.GetAllowCredentials().GetValue(), privateNetwork: c.GetAllowPrivateNetworkAccess().GetValue(),
		forward: c.GetForwardNotMatchingPreflights() == nil || c.GetForwardNotMatchingPreflights().GetValue(),
		enabled: newShare(c.GetFilterEnabled(), env.Runtime, true), shadow: newShare(c.GetShadowEnabled(), env.Runtime, false),
	}
	for i, m := range c.GetAllowOriginStringMatch() {
		s, err := match.NewString(m)
		if err != nil {
			return nil, fmt.Errorf("allow_origin_string_match[%d]: %w", i, err)
		}
		p.origins = append(p.origins, s)
	}
	return p, nil
}

// allows reports whether an origin may; "*" as an exact match allows every one.
func (p *policy) allows(origin []byte) bool {
	for i := range p.origins {
		if p.origins[i].Match(origin) || p.origins[i].Match([]byte("*")) {
			return true
		}
	}
	return false
}

type filter struct{ valid, invalid *stats.Counter }

// An exchange is a request of an allowed origin, remembered for its response.
type exchange struct {
	policy *policy
	origin []byte
}

// OnRequest judges the origin and answers preflight requests.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	origin, _ := s.Request.Headers.First("origin")
	if len(origin) == 0 {
		return http.Continue
	}
	p, ok := s.Override(slot).(*policy)
	if !ok || !forwards(s) {
		return http.Continue
	}
	enabled := p.enabled.holds()
	if !enabled && !p.shadow.holds() {
		return http.Continue
	}
	allowed := p.allows(origin)
	if allowed {
		f.valid.Inc()
	} else {
		f.invalid.Inc()
	}
	if !enabled {
		return http.Continue
	}
	if allowed {
		s.SetState(slot, &exchange{p, origin})
	}
	return p.preflight(s, origin, allowed)
}

// forwards reports whether the route goes upstream: direct responses and redirects
// know no CORS in Envoy.
func forwards(s *http.Stream) bool {
	t, ok := s.Route.(*route.Target)
	return ok && t.Route != nil && t.Route.Forward != nil
}

// preflight answers the question a browser asks before the request itself.
func (p *policy) preflight(s *http.Stream, origin []byte, allowed bool) http.Verdict {
	wanted, _ := s.Request.Headers.First("access-control-request-method")
	if string(s.Request.Method) != "OPTIONS" || len(wanted) == 0 || !allowed && p.forward {
		return http.Continue
	}
	var fields []http.Field
	add := func(name string, value []byte) {
		fields = append(fields, http.Field{Name: []byte(name), Value: value})
	}
	if allowed {
		add("access-control-allow-origin", origin)
	}
	if p.credentials {
		add("access-control-allow-credentials", yes)
	}
	if len(p.methods) > 0 {
		add("access-control-allow-methods", orWhatIsAsked(p.methods, wanted))
	}
	if len(p.headers) > 0 {
		asked, _ := s.Request.Headers.First("access-control-request-headers")
		add("access-control-allow-headers", orWhatIsAsked(p.headers, asked))
	}
	if len(p.age) > 0 {
		add("access-control-max-age", p.age)
	}
	if asked, _ := s.Request.Headers.First("access-control-request-private-network"); p.privateNetwork && string(asked) == "true" {
		add("access-control-allow-private-network", yes)
	}
	s.Reply(http.Reply{Status: 200, Details: "cors_response", GRPCStatus: -1, Prepend: fields})
	return http.Replied
}

var yes = []byte("true")

// orWhatIsAsked is the configured list, or what the browser asked for when it is "*".
func orWhatIsAsked(list, asked []byte) []byte {
	if string(list) == "*" {
		return asked
	}
	return list
}

// OnResponse tells the browser that the origin may read the response.
func (f *filter) OnResponse(s *http.Stream, slot http.Slot) http.Verdict {
	x, ok := s.State(slot).(*exchange)
	if !ok {
		return http.Continue
	}
	h := &s.Response.Headers
	h.Set("access-control-allow-origin", x.origin)
	if x.policy.credentials {
		h.Set("access-control-allow-credentials", yes)
	}
	if len(x.policy.expose) > 0 {
		h.Set("access-control-expose-headers", x.policy.expose)
	}
	return http.Continue
}
