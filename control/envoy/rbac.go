package envoy

import (
	"net/http"
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbachttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	rbacnetworkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

const (
	rbacFilter        = "envoy.filters.http.rbac"
	networkRBACFilter = "envoy.filters.network.rbac"
	askFilter         = "envoy.filters.http.ext_authz"
	networkAskFilter  = "envoy.filters.network.ext_authz"
	// refusalFilter is of no name that settings of routes could be for.
	refusalFilter = "lateen.refusal"
	// networkStats begins the names of statistics of connections.
	networkStats = "tcp."
)

// guardFilters are the filters that decide on requests, and users' among them; not ok for a
// filter that is none of these.
func guardFilters(f ir.HTTPFilter, h ir.HTTPConnectionManager) (filters []*hcmv3.HttpFilter, ok bool) {
	switch f {
	case ir.Refuse:
		return []*hcmv3.HttpFilter{typedFilter(refusalFilter, refusal(http.StatusForbidden))}, true
	case ir.Ask:
		return accessFilters(h.Ask), true
	case ir.ExtendedAuthN:
		return extended(h.Extensions, ir.AuthNPhase), true
	case ir.CheckTokens:
		return []*hcmv3.HttpFilter{typedFilter(jwtFilter, tokens(h.JWT))}, true
	case ir.ExtendedAuthZ:
		return extended(h.Extensions, ir.AuthZPhase), true
	case ir.Decide:
		return accessFilters(h.Decide), true
	case ir.Extended:
		return extended(h.Extensions, ir.LastPhase), true
	}
	return nil, false
}

func typedFilter(name string, config proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: typed(config)}}
}

// accessFilters are the filters that decide on requests.
func accessFilters(steps []ir.AccessFilter) []*hcmv3.HttpFilter {
	var out []*hcmv3.HttpFilter
	for _, s := range steps {
		if s.Ask != nil {
			out = append(out, typedFilter(askFilter, askHTTP(s.Ask)))
			continue
		}
		out = append(out, typedFilter(rbacFilter, &rbachttpv3.RBAC{
			Rules: accessRules(s.RBAC.Rules), ShadowRules: accessRules(s.RBAC.Shadow), ShadowRulesStatPrefix: s.RBAC.ShadowPrefix}))
	}
	return out
}

// networkAccess are the filters that decide on connections.
func networkAccess(steps []ir.AccessFilter) []*listenerv3.Filter {
	var out []*listenerv3.Filter
	for _, s := range steps {
		if s.Ask != nil {
			out = append(out, networkFilter(networkAskFilter, askNetwork(s.Ask)))
			continue
		}
		out = append(out, networkFilter(networkRBACFilter, &rbacnetworkv3.RBAC{StatPrefix: networkStats,
			Rules: accessRules(s.RBAC.Rules), ShadowRules: accessRules(s.RBAC.Shadow), ShadowRulesStatPrefix: s.RBAC.ShadowPrefix}))
	}
	return out
}

func accessRules(r *ir.AccessRules) *rbacv3.RBAC {
	if r == nil {
		return nil
	}
	out := &rbacv3.RBAC{Policies: map[string]*rbacv3.Policy{}}
	switch r.Action {
	case ir.Deny:
		out.Action = rbacv3.RBAC_DENY
	case ir.Audit:
		out.Action = rbacv3.RBAC_LOG
	}
	for _, p := range r.Policies {
		out.Policies[p.Name] = &rbacv3.Policy{Permissions: permissions(p.Permissions), Principals: principals(p.Principals)}
	}
	return out
}

func permissions(all []ir.Condition) []*rbacv3.Permission {
	out := make([]*rbacv3.Permission, len(all))
	for i, c := range all {
		out[i] = permission(c)
	}
	return out
}

func permission(c ir.Condition) *rbacv3.Permission {
	out := &rbacv3.Permission{}
	switch c.Kind {
	case ir.AllOf:
		out.Rule = &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: permissions(c.Of)}}
	case ir.OneOf:
		out.Rule = &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: permissions(c.Of)}}
	case ir.NotCondition:
		out.Rule = &rbacv3.Permission_NotRule{NotRule: permission(c.Of[0])}
	case ir.HeaderCondition:
		out.Rule = &rbacv3.Permission_Header{Header: headerCondition(c)}
	case ir.MetadataCondition:
		out.Rule = &rbacv3.Permission_Metadata{Metadata: metadataMatch(c.Metadata)}
	case ir.PathCondition:
		out.Rule = &rbacv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: stringMatch(c.Text)}}}
	case ir.TemplateCondition:
		out.Rule = &rbacv3.Permission_UriTemplate{UriTemplate: &corev3.TypedExtensionConfig{Name: "uri-template",
			TypedConfig: typed(&templatev3.UriTemplateMatchConfig{PathTemplate: c.Text.Value})}}
	case ir.PortCondition:
		out.Rule = &rbacv3.Permission_DestinationPort{DestinationPort: c.Port}
	case ir.AddressCondition:
		out.Rule = &rbacv3.Permission_DestinationIp{DestinationIp: block(c.Block)}
	case ir.SNICondition:
		out.Rule = &rbacv3.Permission_RequestedServerName{RequestedServerName: stringMatch(c.Text)}
	default:
		out.Rule = &rbacv3.Permission_Any{Any: true}
	}
	return out
}

func principals(all []ir.Condition) []*rbacv3.Principal {
	out := make([]*rbacv3.Principal, len(all))
	for i, c := range all {
		out[i] = principal(c)
	}
	return out
}

func principal(c ir.Condition) *rbacv3.Principal {
	out := &rbacv3.Principal{}
	switch c.Kind {
	case ir.AllOf:
		out.Identifier = &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: principals(c.Of)}}
	case ir.OneOf:
		out.Identifier = &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: principals(c.Of)}}
	case ir.NotCondition:
		out.Identifier = &rbacv3.Principal_NotId{NotId: principal(c.Of[0])}
	case ir.HeaderCondition:
		out.Identifier = &rbacv3.Principal_Header{Header: headerCondition(c)}
	case ir.MetadataCondition:
		out.Identifier = &rbacv3.Principal_Metadata{Metadata: metadataMatch(c.Metadata)}
	case ir.PeerCondition:
		out.Identifier = &rbacv3.Principal_Authenticated_{Authenticated: &rbacv3.Principal_Authenticated{PrincipalName: stringMatch(c.Text)}}
	case ir.PeerBlockCondition:
		out.Identifier = &rbacv3.Principal_DirectRemoteIp{DirectRemoteIp: block(c.Block)}
	case ir.ClientBlockCondition:
		out.Identifier = &rbacv3.Principal_RemoteIp{RemoteIp: block(c.Block)}
	default:
		out.Identifier = &rbacv3.Principal_Any{Any: true}
	}
	return out
}

// headerCondition does not hold for a request without the header.
func headerCondition(c ir.Condition) *routev3.HeaderMatcher {
	return headerMatch(ir.HeaderMatch{Name: c.Name, StringMatch: c.Text})
}

func block(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(p.Bits()))}
}

func metadataMatch(m *ir.MetadataMatch) *matcherv3.MetadataMatcher {
	out := &matcherv3.MetadataMatcher{Filter: m.Filter, Invert: m.Invert}
	for _, key := range m.Path {
		out.Path = append(out.Path, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key}})
	}
	var values []*matcherv3.ValueMatcher
	for _, v := range m.Values {
		one := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: stringMatch(v.StringMatch)}}
		if v.Kind == ir.Present {
			one = &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}}
		}
		if v.InList {
			one = inList(one)
		}
		values = append(values, one)
	}
	if out.Value = oneValue(values); m.InListsToo {
		out.Value = orValues(inList(out.Value), oneValue(values))
	}
	return out
}

func oneValue(values []*matcherv3.ValueMatcher) *matcherv3.ValueMatcher {
	if len(values) == 1 {
		return values[0]
	}
	return orValues(values...)
}

func orValues(values ...*matcherv3.ValueMatcher) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_OrMatch{OrMatch: &matcherv3.OrMatcher{ValueMatchers: values}}}
}

func inList(v *matcherv3.ValueMatcher) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{
		MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: v}}}}
}
