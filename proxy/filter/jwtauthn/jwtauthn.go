// Package jwtauthn is the HTTP filter envoy.filters.http.jwt_authn: it lets requests pass that
// carry the JSON Web Tokens which its rules require, and answers all others with 401 or 403.
//
// A provider says who issues tokens, where they stand in a request, with which keys they are
// verified and what becomes of them. A rule says what a request must have of which providers:
// the first rule that matches decides, and a route may name a requirement instead. Keys are
// written in the configuration, read from a file, or fetched over a cluster; package jwt reads
// and verifies the tokens. No token and no key is ever logged.
package jwtauthn

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/jwt"
	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's canonical name, and the namespace of the metadata that it writes.
const Name = "envoy.filters.http.jwt_authn"

const (
	typeURL  = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication"
	routeURL = "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig"
)

// Deps are what the filter uses of the proxy around it.
type Deps struct {
	Calls *callout.Client // by which keys are fetched
	Log   *slog.Logger
}

// Factory builds the filter.
func Factory(d Deps) http.Factory {
	return http.Factory{
		Name: Name, TypeURLs: []string{typeURL, routeURL},
		New:      func(cfg *anypb.Any, env http.Env) (http.Filter, error) { return newFilter(cfg, env, d) },
		Override: newOverride,
	}
}

type filter struct {
	providers map[string]*provider
	byIssuer  map[string]*provider // the first of each issuer, in the order of their names
	rules     []rule
	named     map[string]*requirement // requirement_map
	byState   map[string]*requirement // filter_state_rules, by the state stateKey
	stateKey  string
	cors      bool     // preflights pass
	strip     bool     // denials have no body
	sanitized []string // headers that only this filter may set
	stats     *counters
}

// A rule says what the requests of a condition must have; nil: nothing.
type rule struct {
	condition *route.Condition
	requires  *requirement
}

func newFilter(cfg *anypb.Any, env http.Env, d Deps) (http.Filter, error) {
	var c jwtv3.JwtAuthentication
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := c.ValidateAll(); err != nil {
		return nil, err
	}
	err := xds.Only(&c, "providers", "rules", "filter_state_rules", "bypass_cors_preflight", "requirement_map", "strip_failure_response", "stat_prefix")
	if err != nil {
		return nil, err
	}
	f := &filter{providers: map[string]*provider{}, byIssuer: map[string]*provider{}, cors: c.GetBypassCorsPreflight(),
		strip: c.GetStripFailureResponse(), stats: newCounters(env.Stats, c.GetStatPrefix())}
	for _, name := range slices.Sorted(maps.Keys(c.GetProviders())) {
		p, err := newProvider(c.GetProviders()[name], f.stats, d)
		if err != nil {
			return nil, fmt.Errorf("providers[%q].%w", name, err)
		}
		f.providers[name] = p
		if f.byIssuer[p.issuer] == nil {
			f.byIssuer[p.issuer] = p
		}
		f.sanitized = append(f.sanitized, p.own...)
	}
	return f, f.compileRules(&c)
}

func (f *filter) compileRules(c *jwtv3.JwtAuthentication) (err error) {
	if f.named, err = f.requirements("requirement_map", c.GetRequirementMap()); err != nil {
		return err
	}
	if s := c.GetFilterStateRules(); s != nil {
		f.stateKey = s.GetName()
		if f.byState, err = f.requirements("filter_state_rules.requires", s.GetRequires()); err != nil {
			return err
		}
	}
	for i, r := range c.GetRules() {
		one, err := f.rule(r)
		if err != nil {
			return fmt.Errorf("rules[%d].%w", i, err)
		}
		f.rules = append(f.rules, one)
	}
	return nil
}

func (f *filter) requirements(field string, all map[string]*jwtv3.JwtRequirement) (map[string]*requirement, error) {
	out := make(map[string]*requirement, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		q, err := f.requirement(all[name])
		if err != nil {
			return nil, fmt.Errorf("%s[%q].%w", field, name, err)
		}
		out[name] = q
	}
	return out, nil
}

func (f *filter) rule(r *jwtv3.RequirementRule) (out rule, err error) {
	if out.condition, err = route.NewCondition(r.GetMatch()); err != nil {
		return out, fmt.Errorf("match: %w", err)
	}
	switch by := r.GetRequirementType().(type) {
	case *jwtv3.RequirementRule_Requires:
		if out.requires, err = f.requirement(by.Requires); err != nil {
			return out, fmt.Errorf("requires.%w", err)
		}
	case *jwtv3.RequirementRule_RequirementName:
		if out.requires = f.named[by.RequirementName]; out.requires == nil {
			return out, fmt.Errorf("requirement_name: %s", f.wrongName(by.RequirementName))
		}
	}
	return out, nil
}

// wrongName is worded as Envoy's: clients of a route that names it read it.
func (f *filter) wrongName(name string) string {
	return "Wrong requirement_name: " + name + ". It should be one of [" + strings.Join(slices.Sorted(maps.Keys(f.named)), ",") + "]"
}

// An override is a PerRouteConfig.
type override struct {
	disabled bool
	name     string // in requirement_map
}

func newOverride(cfg *anypb.Any, _ http.Env) (any, error) {
	var c jwtv3.PerRouteConfig
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := c.ValidateAll(); err != nil {
		return nil, err
	}
	return &override{c.GetDisabled(), c.GetRequirementName()}, xds.Only(&c, "disabled", "requirement_name")
}

// Run begins to fetch and to watch keys.
func (f *filter) Run(stop <-chan struct{}) <-chan struct{} {
	var waits []<-chan struct{}
	for _, name := range slices.Sorted(maps.Keys(f.providers)) {
		if w := f.providers[name].keys.run(stop); w != nil {
			waits = append(waits, w)
		}
	}
	if len(waits) < 2 {
		return append(waits, nil)[0]
	}
	all := make(chan struct{})
	go func() {
		for _, w := range waits {
			select {
			case <-w:
			case <-stop:
				return
			}
		}
		close(all)
	}()
	return all
}

// OnRequest lets the request pass or answers it.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	for _, name := range f.sanitized {
		s.Request.Headers.Remove(name)
	}
	if f.cors && preflight(&s.Request) {
		f.stats.bypassed.Inc()
		f.stats.allowed.Inc()
		return http.Continue
	}
	q := f.find(s)
	if o, ok := s.Override(slot).(*override); ok {
		q = nil
		if !o.disabled {
			if q = f.named[o.name]; q == nil {
				return f.misnamed(s, o.name)
			}
		}
	}
	if q == nil {
		f.stats.allowed.Inc()
		return http.Continue
	}
	x := &exchange{f: f, s: s, now: uint64(max(0, time.Now().Unix()))}
	uri := originalURI(&s.Request)
	status := q.satisfied(x)
	x.tell()
	if status != jwt.OK {
		return f.deny(s, status, uri)
	}
	if x.reroute {
		s.ClearRoute()
	}
	f.stats.allowed.Inc()
	return http.Continue
}

// OnResponse does nothing.
func (f *filter) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }

// preflight knows requests by which a browser asks whether it may make another one.
func preflight(r *http.Request) bool {
	return string(r.Method) == "OPTIONS" && len(r.Headers.Get("origin")) > 0 && len(r.Headers.Get("access-control-request-method")) > 0
}

// find is what the rules require of a request, nil for nothing.
func (f *filter) find(s *http.Stream) *requirement {
	for i := range f.rules {
		if f.rules[i].condition.Match(&s.Request) {
			return f.rules[i].requires
		}
	}
	if f.stateKey == "" {
		return nil
	}
	switch v := s.Info.FilterState[f.stateKey].(type) {
	case string:
		return f.byState[v]
	case fmt.Stringer:
		return f.byState[v.String()]
	}
	return nil
}

// maxURI bounds the path in www-authenticate.
const maxURI = 256

// originalURI is what the client asked for, before what is in front of us changed it.
func originalURI(r *http.Request) string {
	path := r.Path
	if before, ok := r.Headers.First("x-envoy-original-path"); ok {
		path = before
	}
	if r.Path == nil {
		return ""
	}
	return string(r.Scheme) + "://" + string(r.Authority) + string(path[:min(len(path), maxURI)])
}

// deny answers as Envoy does: RFC 6750, section 3.
func (f *filter) deny(s *http.Stream, status jwt.Status, uri string) http.Verdict {
	f.stats.denied.Inc()
	reply := http.Reply{Status: 401, Details: details(status.String()), GRPCStatus: -1}
	if status == jwt.AudienceNotAllowed {
		reply.Status = 403
	}
	if !f.strip {
		challenge := `Bearer realm="` + uri + `"`
		if status != jwt.Missing {
			challenge += `, error="invalid_token"`
		}
		reply.Body = []byte(status.String())
		reply.Prepend = []http.Field{{Name: []byte("www-authenticate"), Value: []byte(challenge)}}
	}
	s.Reply(reply)
	return http.Replied
}

// misnamed answers where a route names a requirement that there is not.
func (f *filter) misnamed(s *http.Stream, name string) http.Verdict {
	f.stats.denied.Inc()
	why := f.wrongName(name)
	reply := http.Reply{Status: 403, Details: details(why), GRPCStatus: -1}
	if !f.strip {
		reply.Body = []byte("Failed JWT authentication: " + why)
	}
	s.Reply(reply)
	return http.Replied
}

// details are without blanks, as logs want them.
func details(why string) string {
	return "jwt_authn_access_denied{" + strings.Join(strings.Fields(why), "_") + "}"
}
