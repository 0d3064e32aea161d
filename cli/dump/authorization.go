package dump

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacpb "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httprbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	tcprbacpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// A grant is one AuthorizationPolicy with what it does.
type grant struct{ action, policy string }

// Authorization is the AuthorizationPolicies that a proxy enforces, with how many rules
// each has, as the filters of its listeners name them.
func (d *Dump) Authorization() (*List, error) {
	if d.listeners == nil {
		return nil, errLacks("listeners")
	}
	var bodies []*anypb.Any
	for _, l := range d.listeners.GetDynamicListeners() {
		bodies = append(bodies, l.GetActiveState().GetListener())
	}
	all, err := unpack[*listenerpb.Listener]("listeners", bodies)
	if err != nil {
		return nil, err
	}
	rules := map[grant]map[string]bool{}
	for _, l := range all {
		for _, chain := range chains(l) {
			for _, body := range filtersOf(chain) {
				addRules(rules, body)
			}
		}
	}
	l := &List{kind: "authorization", padding: 3, header: []string{"ACTION", "AuthorizationPolicy", "RULES"}}
	for g, names := range rules {
		l.rows = append(l.rows, []string{g.action, g.policy, strconv.Itoa(len(names))})
	}
	slices.SortFunc(l.rows, func(a, b []string) int { return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1])) })
	return l, nil
}

// filtersOf are the configurations of all filters of a chain, of HTTP's too.
func filtersOf(chain *listenerpb.FilterChain) []*anypb.Any {
	var all []*anypb.Any
	for _, f := range chain.GetFilters() {
		all = append(all, f.GetTypedConfig())
	}
	manager, _ := lastFilter(chain)
	for _, f := range manager.GetHttpFilters() {
		all = append(all, f.GetTypedConfig())
	}
	return all
}

// addRules adds those of an RBAC filter; others have none.
func addRules(rules map[grant]map[string]bool, body *anypb.Any) {
	for _, filter := range []interface {
		proto.Message
		GetRules() *rbacpb.RBAC
		GetShadowRules() *rbacpb.RBAC
	}{&httprbacpb.RBAC{}, &tcprbacpb.RBAC{}} {
		if !body.MessageIs(filter) || body.UnmarshalTo(filter) != nil {
			continue
		}
		if r := filter.GetRules(); r != nil {
			addPolicies(rules, r, r.GetAction().String())
		}
		if r := filter.GetShadowRules(); r != nil {
			addPolicies(rules, r, r.GetAction().String()+" (dry-run)")
		}
	}
}

// externally begins the names of rules that an external authorizer is asked for.
const externally = "istio-ext-authz-"

// ruleName is what the control plane calls a rule.
var ruleName = regexp.MustCompile(`^ns\[(.+)\]-policy\[(.+)\]-rule\[.+\]$`)

func addPolicies(rules map[grant]map[string]bool, r *rbacpb.RBAC, action string) {
	add := func(g grant, name string) {
		if rules[g] == nil {
			rules[g] = map[string]bool{}
		}
		rules[g][name] = true
	}
	for name := range r.GetPolicies() {
		g := grant{action, name}
		name, custom := strings.CutPrefix(name, externally)
		if custom {
			g.action = "CUSTOM"
		}
		if m := ruleName.FindStringSubmatch(name); m != nil {
			g.policy = m[2] + "." + m[1]
		}
		add(g, name)
	}
	if len(r.GetPolicies()) == 0 {
		add(grant{action, "_anonymous_match_nothing_"}, "")
	}
}
