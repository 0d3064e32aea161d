package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A StateMatcher is a compiled FilterStateMatcher: a condition on one object of filter state.
type StateMatcher struct {
	key    string
	text   match.String
	ranges match.CIDR // nil: text decides
}

// NewStateMatcher compiles a FilterStateMatcher.
func NewStateMatcher(m *matcherv3.FilterStateMatcher) (out StateMatcher, err error) {
	out.key = m.GetKey()
	switch by := m.GetMatcher().(type) {
	case *matcherv3.FilterStateMatcher_StringMatch:
		out.text, err = match.NewString(by.StringMatch)
		return out, err
	case *matcherv3.FilterStateMatcher_AddressMatch:
		for i, r := range by.AddressMatch.GetRanges() {
			one, err := match.NewCIDR(&corev3.CidrRange{AddressPrefix: r.GetAddressPrefix(), PrefixLen: r.GetPrefixLen()})
			if err != nil {
				return out, fmt.Errorf("address_match.ranges[%d]: %w", i, err)
			}
			out.ranges = append(out.ranges, one...)
		}
		return out, nil
	}
	return out, errors.New("matcher: not set")
}

// Match decides by the text of the object; one that is not there never matches.
func (m *StateMatcher) Match(i *streaminfo.Info) bool {
	v, ok := filterState(i, m.key)
	if !ok {
		return false
	}
	if m.ranges == nil {
		return m.text.MatchText(v)
	}
	addr, err := netip.ParseAddr(v)
	return err == nil && m.ranges.Match(addr)
}

// tree compiles a virtual host's matcher, whose actions are routes or lists of them.
func (c *compiler) tree(v *routev3.VirtualHost) (*match.Tree[Facts, []*Route], error) {
	if len(v.GetRoutes()) > 0 {
		return nil, errors.New("there are routes as well: only one may be set")
	}
	return match.NewTree(v.GetMatcher(), match.TreeEnv[Facts, []*Route]{Input: newInput, Share: c.share, Action: func(a *anypb.Any) ([]*Route, error) {
		m, err := a.UnmarshalNew()
		if err != nil {
			return nil, err
		}
		var list []*routev3.Route
		switch action := m.(type) {
		case *routev3.Route:
			list = append(list, action)
		case *routev3.RouteList:
			list = action.GetRoutes()
		default:
			return nil, fmt.Errorf("%s: want a Route or a RouteList", a.GetTypeUrl())
		}
		return compileAll("routes", list, func(r *routev3.Route) (*Route, error) { return c.route(v, r) })
	}})
}

// share decides by a fraction of which the runtime may have another value.
func (c *compiler) share(p *corev3.RuntimeFractionalPercent) func(uint64) bool {
	return c.env.HTTP.Runtime.Share(p).Of
}

// newInput compiles what a matcher reads of a request: headers alone, as in Envoy.
func newInput(config *anypb.Any) (match.Input[Facts], error) {
	var i matcherv3.HttpRequestHeaderMatchInput
	if err := config.UnmarshalTo(&i); err != nil {
		return nil, fmt.Errorf("%s: routes are matched by headers of requests only", config.GetTypeUrl())
	}
	return headerInput(strings.ToLower(i.GetHeaderName())), nil
}

// headerInput reads all values of a header, joined by commas.
func headerInput(name string) match.Input[Facts] {
	return func(f *Facts) ([]byte, bool) {
		first, ok := f.Request.Value(name, 0)
		if _, more := f.Request.Value(name, 1); !more {
			return first, ok
		}
		all := slices.Clone(first)
		for i := 1; ; i++ {
			v, more := f.Request.Value(name, i)
			if !more {
				return all, true
			}
			all = append(append(all, ','), v...)
		}
	}
}

// A Condition is a RouteMatch that stands by itself, for filters whose rules hold for some
// requests.
type Condition struct{ matcher matcher }

// NewCondition compiles a RouteMatch that decides by path, headers and query alone; all else
// is refused by name.
func NewCondition(m *routev3.RouteMatch) (*Condition, error) {
	err := xds.Only(m, "prefix", "path", "safe_regex", "connect_matcher", "path_separated_prefix", "path_match_policy", "case_sensitive",
		"headers", "query_parameters")
	if err != nil {
		return nil, err
	}
	compiled, err := newMatcher(m, nil)
	return &Condition{compiled}, err
}

// Match reports whether a request is one of those.
func (c *Condition) Match(r *http.Request) bool {
	path, query := match.SplitPath(r.Path)
	return c.matcher.miss(&Facts{Request: r}, path, query) == miss{}
}
