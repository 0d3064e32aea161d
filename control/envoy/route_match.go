package envoy

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

func routeMatch(m ir.RouteMatch) *routev3.RouteMatch {
	out := &routev3.RouteMatch{}
	switch m.Path.Kind {
	case ir.PathExact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Path.Value}
	case ir.PathRegex:
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(m.Path.Value)}
	case ir.PathSeparated:
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: m.Path.Value}
	default:
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: m.Path.Value}
	}
	if m.Path.StateCase || m.Path.IgnoreCase {
		out.CaseSensitive = wrapperspb.Bool(!m.Path.IgnoreCase)
	}
	for _, h := range m.Headers {
		out.Headers = append(out.Headers, headerMatch(h))
	}
	for i := range m.Claims {
		out.DynamicMetadata = append(out.DynamicMetadata, metadataMatch(&m.Claims[i]))
	}
	for _, q := range m.Query {
		out.QueryParameters = append(out.QueryParameters, queryMatch(q))
	}
	return out
}

func headerMatch(h ir.HeaderMatch) *routev3.HeaderMatcher {
	out := &routev3.HeaderMatcher{Name: h.Name, InvertMatch: h.Invert}
	if h.Kind == ir.Present {
		out.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
		return out
	}
	// "not equal" holds for a request that lacks the header.
	out.TreatMissingHeaderAsEmpty = h.Invert
	out.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatch(h.StringMatch)}
	return out
}

func queryMatch(q ir.QueryMatch) *routev3.QueryParameterMatcher {
	out := &routev3.QueryParameterMatcher{Name: q.Name}
	if q.Kind == ir.Present {
		out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_PresentMatch{PresentMatch: true}
		return out
	}
	out.QueryParameterMatchSpecifier = &routev3.QueryParameterMatcher_StringMatch{StringMatch: stringMatch(q.StringMatch)}
	return out
}

func stringMatch(m ir.StringMatch) *matcherv3.StringMatcher {
	out := &matcherv3.StringMatcher{IgnoreCase: m.IgnoreCase}
	switch m.Kind {
	case ir.Prefix:
		out.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: m.Value}
	case ir.Suffix:
		out.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: m.Value}
	case ir.Regex:
		out.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(m.Value)}
	default:
		out.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: m.Value}
	}
	return out
}

func regex(s string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: s} }
