package route

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	templatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A HeaderMatcher is a condition on one header of a request or response.
type HeaderMatcher struct{ header match.Header }

// MatchRequest decides by a request head, pseudo headers included.
func (m *HeaderMatcher) MatchRequest(r *http.Request) bool {
	return m.header.Match(r)
}

// MatchResponse decides by a response head, ":status" included.
func (m *HeaderMatcher) MatchResponse(r *http.Response) bool {
	return m.header.Match(r)
}

// String says what m wants.
func (m *HeaderMatcher) String() string { return m.header.String() }

// NewHeaderMatchers compiles a list of HeaderMatchers; field names it in errors.
func NewHeaderMatchers(field string, list []*routev3.HeaderMatcher) ([]HeaderMatcher, error) {
	var out []HeaderMatcher
	for i, m := range list {
		h, err := match.NewHeader(m)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		out = append(out, HeaderMatcher{h})
	}
	return out, nil
}

// MatchesAll reports that a request has all that a list of matchers wants.
func MatchesAll(list []HeaderMatcher, r *http.Request) bool {
	for i := range list {
		if !list[i].MatchRequest(r) {
			return false
		}
	}
	return true
}

type pathKind uint8

const (
	pathExact pathKind = iota
	pathPrefix
	pathSeparated
	pathRegex
	pathTemplate
	pathConnect
)

// A matcher is a compiled RouteMatch.
type matcher struct {
	kind     pathKind
	path     match.String
	template *match.Template
	length   int // of the prefix, for rewrites
	headers  []HeaderMatcher
	query    []match.Query
	cookies  []match.Cookie
	metadata []match.Metadata
	states   []StateMatcher
	grpc     bool
	// presented and validated: 0 does not matter, 1 must be, -1 must not be.
	presented, validated int8
	share                runtime.Share
	sampled              bool // share decides
}

// A miss is the condition that a request did not meet.
type miss struct {
	what  condition
	index int
}

type condition uint8

const (
	nothing condition = iota // it matches
	onPath
	onFraction
	onGRPC
	onHeader
	onQuery
	onTLS
	onMetadata
	onCookie
	onState
)

// miss returns the first condition that the request does not meet.
func (m *matcher) miss(f *Facts, path, query []byte) miss {
	if !m.matchPath(f, path) {
		return miss{what: onPath}
	}
	if m.sampled && !m.share.Of(f.Random) {
		return miss{what: onFraction}
	}
	if m.grpc && !f.Request.IsGRPC() {
		return miss{what: onGRPC}
	}
	for i := range m.headers {
		if !m.headers[i].MatchRequest(f.Request) {
			return miss{onHeader, i}
		}
	}
	for i := range m.query {
		if !m.query[i].Match(query) {
			return miss{onQuery, i}
		}
	}
	for i := range m.cookies {
		if !m.cookies[i].Match(f.Request) {
			return miss{onCookie, i}
		}
	}
	if !agrees(m.presented, f.PeerPresented) || !agrees(m.validated, f.PeerValidated) {
		return miss{what: onTLS}
	}
	for i := range m.metadata {
		if !m.metadata[i].Match(f.Metadata) {
			return miss{onMetadata, i}
		}
	}
	for i := range m.states {
		if !m.states[i].Match(f.Info) {
			return miss{onState, i}
		}
	}
	return miss{}
}

func (m *matcher) matchPath(f *Facts, path []byte) bool {
	if m.kind == pathConnect {
		return string(f.Request.Method) == "CONNECT"
	}
	if len(path) == 0 { // a CONNECT without a path
		return false
	}
	if m.kind == pathTemplate {
		return m.template.Match(path)
	}
	return m.path.Match(path) && (m.kind != pathSeparated || len(path) == m.length || path[m.length] == '/')
}

func agrees(want int8, is bool) bool { return want == 0 || (want > 0) == is }

// explain says why a request missed, or by what path it matched.
func (m *matcher) explain(why miss, f *Facts) string {
	switch why.what {
	case onFraction:
		now := m.share.Fraction()
		return fmt.Sprintf("not among the %d in %d of runtime_fraction", now.Numerator, now.Denominator)
	case onGRPC:
		return "not a gRPC request"
	case onHeader:
		h := &m.headers[why.index]
		v, ok := f.Request.First(h.header.Name)
		return h.String() + but(v, ok)
	case onQuery:
		return m.query[why.index].String() + but(f.Request.Path, true)
	case onTLS:
		return "tls_context: client certificate presented " + strconv.FormatBool(f.PeerPresented) + ", validated " + strconv.FormatBool(f.PeerValidated)
	case onMetadata:
		return m.metadata[why.index].String()
	case onCookie:
		return m.cookies[why.index].String()
	case onState:
		return "filter state " + m.states[why.index].key
	case onPath:
		return m.pathText() + but(f.Request.Path, true)
	}
	return m.met()
}

// met is what a request that matches has met.
func (m *matcher) met() string {
	all := []string{m.pathText()}
	for i := range m.headers {
		all = append(all, m.headers[i].String())
	}
	for i := range m.query {
		all = append(all, m.query[i].String())
	}
	return strings.Join(all, ", ")
}

func but(v []byte, ok bool) string {
	if !ok {
		return ", but it is missing"
	}
	return ", but it is " + strconv.Quote(string(v))
}

func (m *matcher) pathText() string {
	switch m.kind {
	case pathConnect:
		return "method CONNECT"
	case pathSeparated:
		return "path segment " + m.path.String()
	case pathTemplate:
		return "path template " + strconv.Quote(m.template.String())
	}
	return "path " + m.path.String()
}

// newMatcher compiles a RouteMatch.
func newMatcher(m *routev3.RouteMatch, values *runtime.Values) (matcher, error) {
	if m == nil {
		return matcher{}, errors.New("must be set")
	}
	err := xds.Only(m, "prefix", "path", "safe_regex", "connect_matcher", "path_separated_prefix", "path_match_policy", "case_sensitive",
		"runtime_fraction", "headers", "query_parameters", "cookies", "grpc", "tls_context", "dynamic_metadata", "filter_state")
	if err != nil {
		return matcher{}, err
	}
	out, err := newPath(m)
	if err != nil {
		return matcher{}, err
	}
	out.grpc = m.GetGrpc() != nil
	if p := m.GetRuntimeFraction(); p != nil {
		out.sampled, out.share = true, values.Share(p)
	}
	out.setTLS(m.GetTlsContext())
	if out.headers, err = NewHeaderMatchers("headers", m.GetHeaders()); err != nil {
		return matcher{}, err
	}
	return out, out.setConditions(m)
}

// setConditions takes what a request must have beside path and headers.
func (m *matcher) setConditions(from *routev3.RouteMatch) (err error) {
	if m.query, err = compileAll("query_parameters", from.GetQueryParameters(), match.NewQuery); err != nil {
		return err
	}
	if m.cookies, err = compileAll("cookies", from.GetCookies(), match.NewCookie); err != nil {
		return err
	}
	if m.metadata, err = compileAll("dynamic_metadata", from.GetDynamicMetadata(), match.NewMetadata); err != nil {
		return err
	}
	m.states, err = compileAll("filter_state", from.GetFilterState(), NewStateMatcher)
	return err
}

// compileAll compiles a list, whose name stands in errors.
func compileAll[P, C any](field string, list []P, compile func(P) (C, error)) ([]C, error) {
	var out []C
	for i, p := range list {
		c, err := compile(p)
		if err != nil {
			return nil, fmt.Errorf("%s[%d]: %w", field, i, err)
		}
		out = append(out, c)
	}
	return out, nil
}

func newPath(m *routev3.RouteMatch) (matcher, error) {
	text := &matcherv3.StringMatcher{IgnoreCase: m.GetCaseSensitive() != nil && !m.GetCaseSensitive().GetValue()}
	out := matcher{}
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		if p.Prefix == "" { // matches every path
			return matcher{kind: pathPrefix, path: match.Prefix("")}, nil
		}
		out.kind, out.length = pathPrefix, len(p.Prefix)
		text.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: p.Prefix}
	case *routev3.RouteMatch_Path:
		text.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: p.Path}
	case *routev3.RouteMatch_PathSeparatedPrefix:
		out.kind, out.length = pathSeparated, len(p.PathSeparatedPrefix)
		text.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: p.PathSeparatedPrefix}
	case *routev3.RouteMatch_SafeRegex:
		out.kind = pathRegex
		text.MatchPattern = &matcherv3.StringMatcher_SafeRegex{SafeRegex: p.SafeRegex}
	case *routev3.RouteMatch_ConnectMatcher_:
		return matcher{kind: pathConnect}, nil
	case *routev3.RouteMatch_PathMatchPolicy:
		var c templatev3.UriTemplateMatchConfig
		if err := p.PathMatchPolicy.GetTypedConfig().UnmarshalTo(&c); err != nil {
			return matcher{}, fmt.Errorf("path_match_policy %q: not supported", p.PathMatchPolicy.GetName())
		}
		t, err := match.NewTemplate(c.GetPathTemplate())
		if err != nil {
			return matcher{}, fmt.Errorf("path_match_policy: %w", err)
		}
		return matcher{kind: pathTemplate, template: t}, nil
	default:
		return matcher{}, errors.New("path_specifier: not set")
	}
	s, err := match.NewString(text)
	if err != nil {
		return matcher{}, fmt.Errorf("path: %w", err)
	}
	out.path = s
	return out, nil
}

func (m *matcher) setTLS(o *routev3.RouteMatch_TlsContextMatchOptions) {
	want := func(set, value bool) int8 {
		switch {
		case !set:
			return 0
		case value:
			return 1
		}
		return -1
	}
	m.presented = want(o.GetPresented() != nil, o.GetPresented().GetValue())
	m.validated = want(o.GetValidated() != nil, o.GetValidated().GetValue())
}
