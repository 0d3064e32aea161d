package compile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	security "istio.io/api/security/v1beta1"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// grpcAccess are the rules by which a gRPC program decides on calls to it (gRFC A41). It can ask
// no service and check no token: what would be asked about is denied, and calls that bear tokens
// where RequestAuthentications look for them are. What only tells is left out.
//
// Kinds read: AuthorizationPolicy, RequestAuthentication.
func grpcAccess(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) []ir.AccessFilter {
	t := &policyTranslator{snapshot: s, scope: scope, proxy: p, trust: trustDomains(s.MeshConfig)}
	policies := s.AuthorizationPolicies(p)
	var denied *ir.AccessRules
	for _, a := range policies {
		if a.Spec.GetAction() == security.AuthorizationPolicy_CUSTOM {
			denied = t.add(denied, ir.Deny, a, askedPolicyOf(a.Spec.GetProvider().GetName()))
		}
	}
	for _, a := range s.RequestAuthentications(p) {
		if bearers := tokenBearers(a.Spec); bearers != nil {
			if denied == nil {
				denied = &ir.AccessRules{Action: ir.Deny}
			}
			denied.Policies = append(denied.Policies, ir.AccessPolicy{Name: fmt.Sprintf("%sns[%s]-policy[%s]-rule[0]", ofTokens, a.Namespace, a.Name),
				Permissions: []ir.Condition{{Kind: ir.AnyCondition}}, Principals: bearers})
		}
	}
	all := t.local(policies)
	if denied != nil {
		all = slices.Insert(all, 0, ir.AccessFilter{RBAC: &ir.RBAC{Rules: denied}})
	}
	var out []ir.AccessFilter
	for _, f := range all {
		if r := f.RBAC.Rules; r != nil && r.Action != ir.Audit {
			out = append(out, ir.AccessFilter{RBAC: &ir.RBAC{Rules: grpcRules(r)}})
		}
	}
	return out
}

// tokenBearers are conditions that calls with tokens meet; nil where none are looked for.
func tokenBearers(a *security.RequestAuthentication) (any []ir.Condition) {
	header := func(name, prefix string) {
		any = append(any, ir.Condition{Kind: ir.HeaderCondition, Name: strings.ToLower(name), Text: ir.StringMatch{Kind: ir.Prefix, Value: prefix}})
	}
	for _, r := range a.GetJwtRules() {
		if len(r.GetFromHeaders())+len(r.GetFromParams())+len(r.GetFromCookies()) == 0 {
			header("authorization", "Bearer ")
		}
		for _, h := range r.GetFromHeaders() {
			header(h.GetName(), h.GetPrefix())
		}
		for _, name := range r.GetFromCookies() {
			any = append(any, ir.Condition{Kind: ir.HeaderCondition, Name: "cookie", Text: ir.StringMatch{Kind: ir.Regex, Value: ".*" + regexp.QuoteMeta(name) + "=.*"}})
		}
	}
	return any
}

// grpcRules are rules in the form that gRPC takes.
func grpcRules(r *ir.AccessRules) *ir.AccessRules {
	out := &ir.AccessRules{Action: r.Action}
	for _, p := range r.Policies {
		p.Permissions, p.Principals = grpcConditions(p.Permissions, r.Action), grpcConditions(p.Principals, r.Action)
		out.Policies = append(out.Policies, p)
	}
	return out
}

func grpcConditions(all []ir.Condition, action ir.AccessAction) []ir.Condition {
	out := make([]ir.Condition, len(all))
	for i, c := range all {
		out[i] = grpcCondition(c, action)
	}
	return out
}

// grpcCondition has in place of what gRPC knows nothing of one that holds for what denies, and
// does not for what allows.
func grpcCondition(c ir.Condition, action ir.AccessAction) ir.Condition {
	switch {
	case c.Kind == ir.AllOf || c.Kind == ir.OneOf:
		c.Of = grpcConditions(c.Of, action)
	case knownToGRPC(c):
	case action == ir.Allow:
		return ir.Condition{Kind: ir.NotCondition, Of: []ir.Condition{{Kind: ir.AnyCondition}}}
	default:
		return ir.Condition{Kind: ir.AnyCondition}
	}
	return c
}

// knownToGRPC reports whether gRPC decides by a condition as proxies do.
func knownToGRPC(c ir.Condition) bool {
	switch c.Kind {
	case ir.MetadataCondition, ir.TemplateCondition:
		return false
	case ir.HeaderCondition: // others are refused with all that they come with
		return !strings.HasPrefix(strings.ToLower(c.Name), "grpc-") && !strings.EqualFold(c.Name, ":scheme")
	}
	return !slices.ContainsFunc(c.Of, func(of ir.Condition) bool { return !knownToGRPC(of) })
}

// grpcPoliciesLeftOut are the policies for a gRPC program that it cannot carry out, and what comes
// of it.
func grpcPoliciesLeftOut(s *mesh.Snapshot, p *mesh.Proxy) (out []LeftOut) {
	for _, a := range s.AuthorizationPolicies(p) {
		switch {
		case a.Spec.GetAction() == security.AuthorizationPolicy_CUSTOM:
			out = append(out, LeftOut{a.Config, "action", "the gRPC program " + p.Name + " asks no service: what the policy matches is denied"})
		case a.Spec.GetAction() == security.AuthorizationPolicy_AUDIT || dryRun(a):
			out = append(out, LeftOut{a.Config, "action", "the gRPC program " + p.Name + " tells nothing of what the policy would match"})
		}
	}
	for _, a := range s.RequestAuthentications(p) {
		if len(a.Spec.GetJwtRules()) > 0 {
			out = append(out, LeftOut{a.Config, "jwtRules", "the gRPC program " + p.Name + " cannot check tokens: calls that bear one are denied"})
		}
	}
	return out
}
