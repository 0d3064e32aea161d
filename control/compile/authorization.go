package compile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"istio.io/api/annotation"
	security "istio.io/api/security/v1beta1"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// Names under which proxies list what authorization needs.
const (
	extRBAC        = "envoy.filters.http.rbac"
	extNetworkRBAC = "envoy.filters.network.rbac"
	extAsk         = "envoy.filters.http.ext_authz"
	extNetworkAsk  = "envoy.filters.network.ext_authz"
	extJWT         = "envoy.filters.http.jwt_authn"
)

// Prefixes of what RBAC filters tell of rules that are not enforced, and the names of policies
// of action CUSTOM.
const (
	dryAllowPrefix   = "istio_dry_run_allow_"
	dryDenyPrefix    = "istio_dry_run_deny_"
	askPrefix        = "istio_ext_authz_"
	askedPolicy      = "istio-ext-authz-"
	ofTokens         = "RequestAuthentication-" // rules that stand for one
	brokenAskPostfix = "-deny-due-to-bad-CUSTOM-action"
)

// An authorization is what the AuthorizationPolicies and RequestAuthentications of a proxy
// come to. It is made once and shared by all chains.
type authorization struct {
	jwt *ir.JWTRules // nil: no token is looked at

	// Filters for requests: before tokens are checked, and after.
	ask, decide []ir.AccessFilter
	// For connections whose bytes are passed on.
	connections []ir.AccessFilter
	// What the proxy has no filters for and may let nothing pass by.
	refuseRequests, refuseConnections bool
}

// newAuthorization translates the policies of a proxy.
//
// Kinds read: AuthorizationPolicy, RequestAuthentication.
func newAuthorization(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) *authorization {
	a := &authorization{jwt: jwtRules(s, scope, p)}
	policies := s.AuthorizationPolicies(p)
	for _, tcp := range []bool{false, true} {
		t := &policyTranslator{snapshot: s, scope: scope, proxy: p, tcp: tcp, trust: trustDomains(s.MeshConfig)}
		ask, decide := t.custom(policies), t.local(policies)
		if tcp {
			a.connections = slices.Concat(ask, decide)
		} else {
			a.ask, a.decide = ask, decide
		}
	}
	a.refuseRequests = refuses(a.ask, a.decide) && !p.Has(extRBAC) || a.jwt != nil && !p.Has(extJWT)
	a.refuseConnections = refuses(a.connections) && !p.Has(extNetworkRBAC)
	if !p.Has(extRBAC) { // what is left only tells
		a.ask, a.decide = nil, nil
	}
	if !p.Has(extNetworkRBAC) {
		a.connections = nil
	}
	return a
}

// refuses reports whether filters can refuse anything.
func refuses(lists ...[]ir.AccessFilter) bool {
	return slices.ContainsFunc(slices.Concat(lists...), func(f ir.AccessFilter) bool {
		return f.Ask != nil || f.RBAC.Rules != nil && f.RBAC.Rules.Action != ir.Audit
	})
}

// guard gives a connection manager the filters that decide on requests, incoming ones and
// those of a gateway, and users' filters among them by their phase.
func (b *listenerBuilder) guard(h *ir.HTTPConnectionManager, outbound bool, port uint32) {
	h.Extensions = b.extensions(!outbound, port)
	add := func(f ir.HTTPFilter, there bool) {
		if there {
			h.Filters = append(h.Filters, f)
		}
	}
	if !outbound || b.proxy.Type == mesh.Router {
		a := b.access()
		h.Ask, h.JWT, h.Decide = a.ask, a.jwt, a.decide
		if a.refuseRequests {
			h.Ask, h.JWT, h.Decide = nil, nil, nil
		}
		add(ir.Refuse, a.refuseRequests)
	}
	phase := func(p ir.ExtensionPhase) bool {
		return slices.ContainsFunc(h.Extensions, func(x ir.Extension) bool { return x.Phase == p })
	}
	add(ir.Ask, len(h.Ask) > 0)
	add(ir.ExtendedAuthN, phase(ir.AuthNPhase))
	add(ir.CheckTokens, h.JWT != nil)
	add(ir.ExtendedAuthZ, phase(ir.AuthZPhase))
	add(ir.Decide, len(h.Decide) > 0)
	add(ir.Extended, phase(ir.LastPhase))
}

// guardTCP has the chains that pass on bytes decide on connections: incoming ones, and all of
// a gateway.
func (b *listenerBuilder) guardTCP(listeners []ir.Listener) []ir.Listener {
	a := b.access()
	for i := range listeners {
		l := &listeners[i]
		if l.Direction != ir.Inbound && b.proxy.Type != mesh.Router {
			continue
		}
		for j := range l.Chains {
			c := &l.Chains[j]
			switch {
			case c.TCP == nil || c.Name == captureIn+"-blackhole" || passesMeshTLS(c):
			case a.refuseConnections:
				c.TCP, c.Lookup = tcpTo(wellknown.BlackHoleCluster, c.TCP.AccessLogs), nil
			default:
				c.Access = a.connections
			}
		}
	}
	return listeners
}

// passesMeshTLS reports whether a chain of a gateway between networks leads mutual TLS to the
// workload that it is for: the proxy there knows who calls, and decides.
func passesMeshTLS(c *ir.FilterChain) bool {
	return c.TLS == nil && c.Match.TransportProtocol == "" && slices.Equal(c.Match.ApplicationProtocols, meshALPN)
}

func (b *listenerBuilder) access() *authorization {
	if b.authorization == nil {
		b.authorization = newAuthorization(b.snapshot, b.scope, b.proxy)
	}
	return b.authorization
}

// A policyTranslator turns AuthorizationPolicies into filters for requests or connections.
type policyTranslator struct {
	snapshot *mesh.Snapshot
	scope    *mesh.Scope
	proxy    *mesh.Proxy
	tcp      bool
	trust    trustBundle
}

// local are the filters that decide by rules alone: first those that only tell, then those
// that deny, then those that allow.
func (t *policyTranslator) local(policies []*mesh.AuthorizationPolicy) []ir.AccessFilter {
	var out []ir.AccessFilter
	for _, stage := range []struct {
		action security.AuthorizationPolicy_Action
		as     ir.AccessAction
	}{
		{security.AuthorizationPolicy_AUDIT, ir.Audit}, {security.AuthorizationPolicy_DENY, ir.Deny}, {security.AuthorizationPolicy_ALLOW, ir.Allow},
	} {
		f := &ir.RBAC{ShadowPrefix: dryAllowPrefix}
		for _, a := range policies {
			if a.Spec.GetAction() != stage.action {
				continue
			}
			if dryRun(a) {
				f.Shadow = t.add(f.Shadow, stage.as, a, "")
			} else {
				f.Rules = t.add(f.Rules, stage.as, a, "")
			}
		}
		if stage.as == ir.Deny && !t.tcp {
			f.Rules = t.unread(f.Rules)
		}
		if f.Rules == nil && f.Shadow == nil {
			continue
		}
		if f.Shadow != nil && stage.as == ir.Deny {
			f.ShadowPrefix = dryDenyPrefix
		}
		out = append(out, ir.AccessFilter{RBAC: f})
	}
	return out
}

// unread adds rules that deny every request where it is not known which tokens are to be
// looked at: they stand for RequestAuthentications that cannot be read.
func (t *policyTranslator) unread(to *ir.AccessRules) *ir.AccessRules {
	for _, a := range t.snapshot.RequestAuthentications(t.proxy) {
		if a.Guard && len(a.Spec.GetJwtRules()) == 0 {
			all := &security.AuthorizationPolicy{Rules: []*security.Rule{{}}}
			to = t.add(to, ir.Deny, &mesh.AuthorizationPolicy{Config: a.Config, Spec: all}, ofTokens)
		}
	}
	return to
}

// dryRun reports that a policy is tried out: it is told what it would do. What is not written
// as it should be, and actions that cannot be tried, are enforced.
func dryRun(a *mesh.AuthorizationPolicy) bool {
	switch a.Spec.GetAction() {
	case security.AuthorizationPolicy_ALLOW, security.AuthorizationPolicy_DENY:
		dry, err := strconv.ParseBool(a.Annotations[annotation.IoIstioDryRun.Name])
		return err == nil && dry
	}
	return false
}

// add translates the rules of one policy into a list that is made with the first. Each gets a
// name by which proxies tell what has matched.
func (t *policyTranslator) add(to *ir.AccessRules, action ir.AccessAction, a *mesh.AuthorizationPolicy, prefix string) *ir.AccessRules {
	if to == nil {
		to = &ir.AccessRules{Action: action}
	}
	name := func(i int) string { return fmt.Sprintf("%sns[%s]-policy[%s]-rule[%d]", prefix, a.Namespace, a.Name, i) }
	rules := &ruleTranslator{action: action, tcp: t.tcp, namespace: a.Namespace, trust: t.trust}
	for i, r := range a.Spec.GetRules() {
		if permissions, principals, ok := rules.policy(r); ok {
			to.Policies = append(to.Policies, ir.AccessPolicy{Name: name(i), Permissions: permissions, Principals: principals})
		}
	}
	if len(a.Spec.GetRules()) == 0 {
		never := []ir.Condition{{Kind: ir.NotCondition, Of: []ir.Condition{{Kind: ir.AnyCondition}}}}
		to.Policies = append(to.Policies, ir.AccessPolicy{Name: name(0), Permissions: never, Principals: never})
	}
	return to
}

// custom are the filters that ask services about what policies of action CUSTOM match, a pair
// for each provider. What cannot be asked about is denied.
func (t *policyTranslator) custom(policies []*mesh.AuthorizationPolicy) []ir.AccessFilter {
	rules := map[string]*ir.AccessRules{}
	for _, a := range policies {
		if a.Spec.GetAction() == security.AuthorizationPolicy_CUSTOM {
			provider := a.Spec.GetProvider().GetName()
			rules[provider] = t.add(rules[provider], ir.Deny, a, askedPolicyOf(provider))
		}
	}
	var out []ir.AccessFilter
	for _, provider := range slices.Sorted(maps.Keys(rules)) {
		ask, err := t.provider(provider)
		switch {
		case err != nil || len(rules) > 1 && !t.snapshot.SeveralAuthorizers:
			out = append(out, ir.AccessFilter{RBAC: &ir.RBAC{Rules: renamed(rules[provider], brokenAskPostfix)}})
		case ask == nil: // HTTP services know nothing of connections
		default:
			out = append(out, ir.AccessFilter{RBAC: &ir.RBAC{Shadow: rules[provider], ShadowPrefix: askPrefix}}, ir.AccessFilter{Ask: ask})
		}
	}
	return out
}

// askedPolicyOf begins the names of the policies that a provider is asked about.
func askedPolicyOf(provider string) string { return askedPolicy + provider + "-" }

func renamed(rules *ir.AccessRules, postfix string) *ir.AccessRules {
	out := &ir.AccessRules{Action: rules.Action, Policies: slices.Clone(rules.Policies)}
	for i := range out.Policies {
		out.Policies[i].Name += postfix
	}
	return out
}

// PoliciesLeftOut are those for the proxy that it cannot carry out, and what comes of it.
func PoliciesLeftOut(s *mesh.Snapshot, p *mesh.Proxy) []LeftOut {
	if p.IsGRPC() {
		return grpcPoliciesLeftOut(s, p)
	}
	var out []LeftOut
	for _, a := range s.AuthorizationPolicies(p) {
		switch tells := a.Spec.GetAction() == security.AuthorizationPolicy_AUDIT || dryRun(a); {
		case p.Has(extRBAC) && p.Has(extNetworkRBAC):
		case tells:
			out = append(out, LeftOut{a.Config, "action", "the proxy " + p.Name + " has no filters for rules of access: nothing is told of what the policy would match"})
		case p.Has(extRBAC):
			out = append(out, LeftOut{a.Config, "action", "the proxy " + p.Name + " has no filter for rules of access to connections: all that are not HTTP are refused"})
		default:
			out = append(out, LeftOut{a.Config, "action", "the proxy " + p.Name + " has no filter for rules of access: every request is refused"})
		}
	}
	if p.Has(extJWT) {
		return out
	}
	for _, a := range s.RequestAuthentications(p) {
		if len(a.Spec.GetJwtRules()) > 0 {
			out = append(out, LeftOut{a.Config, "jwtRules", "the proxy " + p.Name + " cannot check tokens: every request is refused"})
		}
	}
	return out
}
