// Package rbac is the HTTP filter envoy.filters.http.rbac: it answers 403 to requests that
// its rules, or those of the route in their place, do not allow. Shadow rules are tried
// without effect on the request.
package rbac

import (
	"fmt"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/rbac"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's canonical name, also the namespace of its dynamic metadata.
const Name = "envoy.filters.http.rbac"

const (
	typeURL      = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"
	routeTypeURL = "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute"
)

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{Name: Name, TypeURLs: []string{typeURL, routeTypeURL}, New: newFilter, Override: newOverride}
}

func newFilter(cfg *anypb.Any, env http.Env) (http.Filter, error) {
	var c rbacv3.RBAC
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	s, err := compile(&c)
	if err != nil {
		return nil, err
	}
	base := env.Stats.Scope("rbac")
	f := &filter{settings: s}
	f.enforced = newTally(base, c.GetRulesStatPrefix(), "allowed", "denied")
	f.shadow = newTally(base, c.GetShadowRulesStatPrefix(), "shadow_allowed", "shadow_denied")
	return f, nil
}

func newOverride(cfg *anypb.Any, _ http.Env) (any, error) {
	var c rbacv3.RBACPerRoute
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := xds.Only(&c, "rbac"); err != nil {
		return nil, err
	}
	s, err := compile(c.GetRbac())
	if err != nil {
		return nil, fmt.Errorf("rbac.%w", err)
	}
	return s, nil
}

// settings are a compiled RBAC, of the filter or of a route. Without rules of either kind
// all is allowed.
type settings struct {
	rules, shadow rules
	perRule       bool // track_per_rule_stats
}

func compile(c *rbacv3.RBAC) (*settings, error) {
	s := &settings{perRule: c.GetTrackPerRuleStats()}
	if c == nil {
		return s, nil
	}
	err := xds.Only(c, "rules", "rules_stat_prefix", "shadow_rules", "shadow_rules_stat_prefix", "track_per_rule_stats")
	if err != nil {
		return nil, err
	}
	r, err := rbac.New(c.GetRules(), true)
	if err != nil {
		return nil, fmt.Errorf("rules.%w", err)
	}
	s.rules = newRules(r, "enforced_", c.GetRulesStatPrefix())
	if r, err = rbac.New(c.GetShadowRules(), true); err != nil {
		return nil, fmt.Errorf("shadow_rules.%w", err)
	}
	s.shadow = newRules(r, "shadow_", c.GetShadowRulesStatPrefix())
	return s, nil
}

// filter is the filter of one chain.
type filter struct {
	settings         *settings
	enforced, shadow *tally
}

var denied = []byte("RBAC: access denied")

// OnRequest tries the shadow rules, then lets the rules decide.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	c := f.by(s.Override(slot))
	if c == nil {
		return http.Continue
	}
	facts := rbac.Facts{Info: &s.Info, Request: &s.Request, Route: s.Route}
	if c.shadow.Rules != nil {
		v := c.shadow.Decide(facts)
		f.shadow.count(v, c.perRule)
		s.Info.SetMetadata(Name, c.shadow.told(v, &f.settings.shadow))
	}
	if c.rules.Rules == nil {
		return http.Continue
	}
	v := c.rules.Decide(facts)
	if c.rules.Logs() {
		s.Info.SetMetadata(commonNamespace, hint(v.Policy != ""))
	}
	f.enforced.count(v, c.perRule)
	s.Info.SetMetadata(Name, c.rules.told(v, &f.settings.rules))
	if v.Allowed {
		return http.Continue
	}
	s.Reply(denial(v))
	return http.Replied
}

// Review asks the rules of a stream that is under way.
func (f *filter) Review(facts http.Facts, override any) (http.Reply, bool) {
	c := f.by(override)
	if c == nil || c.rules.Rules == nil {
		return http.Reply{}, true
	}
	v := c.rules.Decide(facts)
	if v.Allowed {
		return http.Reply{}, true
	}
	f.enforced.count(v, c.perRule)
	return denial(v), false
}

// by are the settings that hold for a stream, nil when the route has disabled the filter.
func (f *filter) by(override any) *settings {
	if override == nil {
		return f.settings
	}
	c, _ := override.(*settings)
	return c
}

func denial(v rbac.Verdict) http.Reply {
	return http.Reply{Status: 403, Body: denied, Details: v.Details, GRPCStatus: -1}
}

// OnResponse does nothing.
func (f *filter) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }
