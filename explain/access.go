package explain

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	networkrbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/proxy"
	"github.com/lateen-mesh/lateen/spiffe"
)

// What filters tell of a request or connection: the metadata of rules, and the details of what
// they have ended.
const (
	rulesOfRequests = "envoy.filters.http.rbac"
	enforcedPolicy  = "enforced_effective_policy_id"
	triedPolicy     = "shadow_effective_policy_id"
	deniedBy        = "rbac_access_denied_matched_policy["
	noPolicy        = "none"
)

// policyName is what a rule of a policy is called in proxies (package compile gives the name).
var policyName = regexp.MustCompile(`(RequestAuthentication-)?ns\[([^\]]*)\]-policy\[(.*)\]-rule\[(\d+)\]`)

// access describes what policies have to say, by what the proxy's own filters told.
func (m *Mesh) access(s *side, hop *Hop, d *proxy.Decision) {
	told := d.Request.Metadata[rulesOfRequests]
	for _, key := range slices.Sorted(maps.Keys(told)) {
		if prefix, ok := strings.CutSuffix(key, triedPolicy); ok {
			name, _ := told[key].(string)
			reason := "matches and is not enforced: it is tried out"
			if strings.Contains(prefix, "ext_authz") {
				reason = "matches, so the service is asked"
			}
			hop.Access = append(hop.Access, m.policy(name, true, reason))
		}
	}
	details := cmp.Or(d.Request.Details, d.Ended)
	matched, denied := strings.CutPrefix(details, deniedBy)
	matched = strings.TrimSuffix(matched, "]")
	allowed, _ := told[enforcedPolicy].(string)
	for _, rules := range s.rules(d) {
		for _, name := range slices.Sorted(maps.Keys(rules.GetPolicies())) {
			switch {
			case denied && name == matched:
				hop.Access = append(hop.Access, m.policy(name, true, "denies it"))
			case !denied && name == allowed && rules.GetAction() == rbacpb.RBAC_ALLOW:
				hop.Access = append(hop.Access, m.policy(name, true, "allows it"))
			case denied && matched == noPolicy && rules.GetAction() == rbacpb.RBAC_ALLOW:
				hop.Access = append(hop.Access, m.policy(name, false, "does not allow it"))
			}
		}
	}
	if denied && matched == noPolicy {
		hop.Notes = append(hop.Notes, "there are policies that allow, none of which allows this: it is denied")
	}
	if strings.HasPrefix(details, "jwt_authn_access_denied") {
		for _, a := range m.snapshot.RequestAuthentications(s.proxy) {
			o := &Origin{Kind: string(config.RequestAuthentication), Namespace: a.Namespace, Name: a.Name, Field: "jwtRules"}
			o.Place = m.place(o)
			hop.Access = append(hop.Access, Step{Name: a.Key.String(), Matched: true, Reason: "asks for valid tokens", Origin: o})
		}
	}
}

// policy is a step of access, by the name that the proxy has for a rule.
func (m *Mesh) policy(name string, matched bool, reason string) Step {
	step := Step{Name: name, Matched: matched, Reason: reason}
	if x := policyName.FindStringSubmatch(name); x != nil {
		o := &Origin{Kind: string(config.AuthorizationPolicy), Namespace: x[2], Name: x[3]}
		if x[1] != "" {
			o.Kind = string(config.RequestAuthentication)
		} else if n, err := strconv.Atoi(x[4]); err == nil {
			o.Field = "rules[" + strconv.Itoa(n) + "]"
		}
		o.Place = m.place(o)
		step.Origin = o
	}
	return step
}

// rules are those that the chosen chain enforces, in the order in which they are asked.
func (s *side) rules(d *proxy.Decision) (list []*rbacpb.RBAC) {
	add := func(a *anypb.Any) {
		request, connection := &httprbacpb.RBAC{}, &networkrbacpb.RBAC{}
		if a.MessageIs(request) && a.UnmarshalTo(request) == nil {
			list = append(list, request.GetRules())
		} else if a.MessageIs(connection) && a.UnmarshalTo(connection) == nil {
			list = append(list, connection.GetRules())
		}
	}
	for _, l := range s.resources.Listeners {
		for _, c := range append(slices.Clip(l.GetFilterChains()), l.GetDefaultFilterChain()) {
			if l.GetName() != d.Listener || c.GetName() != d.Chain || isHTTP(c) != (d.Request.Target != nil || d.Request.Status != 0) || len(list) > 0 {
				continue // of chains with one name the first of its sort: policies are the same in all
			}
			for _, f := range c.GetFilters() {
				add(f.GetTypedConfig())
			}
			for _, f := range manager(c).GetHttpFilters() {
				add(f.GetTypedConfig())
			}
		}
	}
	return list
}

func isHTTP(c *listenerpb.FilterChain) bool { return manager(c) != nil }

// identity is that of a workload's certificate.
func (m *Mesh) identity(w *Workload) string {
	return spiffe.ID{TrustDomain: cmp.Or(m.snapshot.MeshConfig.GetTrustDomain(), domain), Namespace: w.Namespace, ServiceAccount: cmp.Or(w.account, "default")}.String()
}
