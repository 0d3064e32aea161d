package route_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/proxy/route"
)

// The compiled table decides as the plainest reading of the documents does.
func TestSelectAgreesWithTheNaiveForm(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rc := tableGen.Draw(rt, "table")
		table, err := route.Compile(rc, route.CompileEnv{})
		if err != nil {
			rt.Fatalf("%v", err)
		}
		for range 8 {
			text := requestGen.Draw(rt, "request")
			d := table.Select(&route.Facts{Request: request(text)}, nil)
			var r route.Recorder
			recorded := table.Select(&route.Facts{Request: request(text)}, &r)
			host, index := naive(rc, text)
			if got := place(d); got != fmt.Sprint(host, index) {
				rt.Fatalf("%q goes to %s, naively to %s %d, in %v", text, got, host, index, rc)
			}
			if recorded != d || d.Route != nil && (len(r.Steps) != index+1 || !r.Steps[index].Matched) {
				rt.Fatalf("with a recorder %+v after %v, without %+v", recorded, r.Steps, d)
			}
		}
	})
}

// place is "host index" of a decision; routes bear their index as name.
func place(d route.Decision) string {
	switch {
	case d.VirtualHost == nil:
		return fmt.Sprint("", -1)
	case d.Route == nil:
		return fmt.Sprint(d.VirtualHost.Name, -1)
	}
	return d.VirtualHost.Name + d.Route.Name
}

var (
	hostWord  = rapid.SampledFrom([]string{"a", "B", "a.b", "A.c", "x.a.b", "y.x.a.b", "c.a.b:80", "d:80"})
	pathGen   = rapid.SampledFrom([]string{"/", "/a", "/A", "/a/", "/a/b", "/ab", "/a/b/c", "/b"})
	valueGen  = rapid.SampledFrom([]string{"", "1", "x", "X", "xy"})
	domainGen = rapid.Custom(func(t *rapid.T) string {
		word := hostWord.Draw(t, "word")
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			return "*." + word
		case 1:
			return word + ".*"
		case 2:
			return "*" + word
		}
		return word
	})
	tableGen = rapid.Custom(func(t *rapid.T) *routev3.RouteConfiguration {
		rc := &routev3.RouteConfiguration{IgnorePortInHostMatching: rapid.Bool().Draw(t, "ignore port")}
		domains := rapid.SliceOfNDistinct(domainGen, 1, 6, strings.ToLower).Draw(t, "domains")
		if rapid.Bool().Draw(t, "any") {
			domains = append(domains, "*")
		}
		for i, domain := range domains {
			vh := &routev3.VirtualHost{Name: fmt.Sprint("v", i, " "), Domains: []string{domain}}
			for j := range rapid.IntRange(0, 4).Draw(t, "routes") {
				vh.Routes = append(vh.Routes, &routev3.Route{
					Name: fmt.Sprint(j), Match: matchGen.Draw(t, "match"),
					Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "c"}}},
				})
			}
			rc.VirtualHosts = append(rc.VirtualHosts, vh)
		}
		return rc
	})
	matchGen = rapid.Custom(func(t *rapid.T) *routev3.RouteMatch {
		m := &routev3.RouteMatch{}
		path := pathGen.Draw(t, "path")
		switch rapid.IntRange(0, 3).Draw(t, "path kind") {
		case 0:
			m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: path}
		case 1:
			m.PathSpecifier = &routev3.RouteMatch_Path{Path: path}
		case 2:
			m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: path + "|/[ab]"}}
		case 3:
			m.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: "/a"}
		}
		if rapid.Bool().Draw(t, "any case") {
			m.CaseSensitive = wrapperspb.Bool(false)
		}
		if rapid.Bool().Draw(t, "with header") {
			m.Headers = append(m.Headers, headerGen.Draw(t, "header"))
		}
		if rapid.Bool().Draw(t, "with query") {
			m.QueryParameters = append(m.QueryParameters, &routev3.QueryParameterMatcher{Name: "q", QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{
				StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: valueGen.Draw(t, "query")}},
			}})
		}
		return m
	})
	headerGen = rapid.Custom(func(t *rapid.T) *routev3.HeaderMatcher {
		h := &routev3.HeaderMatcher{Name: "h", InvertMatch: rapid.Bool().Draw(t, "invert"), TreatMissingHeaderAsEmpty: rapid.Bool().Draw(t, "missing")}
		if rapid.Bool().Draw(t, "presence") {
			h.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: rapid.Bool().Draw(t, "present")}
		} else {
			h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
				IgnoreCase: rapid.Bool().Draw(t, "ignore case"), MatchPattern: &matcherv3.StringMatcher_Exact{Exact: valueGen.Draw(t, "value")},
			}}
		}
		return h
	})
	requestGen = rapid.Custom(func(t *rapid.T) string {
		target := pathGen.Draw(t, "path")
		if rapid.Bool().Draw(t, "with query") {
			target += "?z=1&q=" + valueGen.Draw(t, "query")
		}
		text := "GET " + hostWord.Draw(t, "host") + target
		for range rapid.IntRange(0, 2).Draw(t, "headers") {
			text += "\nH: " + valueGen.Draw(t, "value")
		}
		return text
	})
)

// naive decides by trying everything, with the standard library and strings only.
func naive(rc *routev3.RouteConfiguration, text string) (host string, index int) {
	head, rest, _ := strings.Cut(text, "\n")
	target := strings.TrimPrefix(head, "GET ")
	slash := strings.IndexByte(target, '/')
	authority := strings.ToLower(target[:slash])
	if rc.GetIgnorePortInHostMatching() {
		authority = strings.TrimSuffix(authority, ":80")
	}
	vh := naiveHost(rc, authority)
	if vh == nil {
		return "", -1
	}
	path, query, _ := strings.Cut(target[slash:], "?")
	var values []string
	for line := range strings.SplitSeq(rest, "\n") {
		if v, ok := strings.CutPrefix(line, "H: "); ok {
			values = append(values, v)
		}
	}
	for i, r := range vh.GetRoutes() {
		if naivePath(r.GetMatch(), path) && naiveHeaders(r.GetMatch(), values) && naiveQuery(r.GetMatch(), query) {
			return vh.GetName(), i
		}
	}
	return vh.GetName(), -1
}

func naiveHost(rc *routev3.RouteConfiguration, authority string) *routev3.VirtualHost {
	var best *routev3.VirtualHost
	score := -1
	for _, vh := range rc.GetVirtualHosts() {
		domain := strings.ToLower(vh.GetDomains()[0])
		n := -1
		switch {
		case domain == authority:
			n = 1 << 20
		case domain == "*":
			n = 0
		case strings.HasPrefix(domain, "*") && strings.HasSuffix(authority, domain[1:]) && len(authority) > len(domain)-1:
			n = 1<<10 + len(domain)
		case !strings.HasPrefix(domain, "*") && strings.HasSuffix(domain, "*") && strings.HasPrefix(authority, domain[:len(domain)-1]) && len(authority) > len(domain)-1:
			n = len(domain)
		}
		if n > score {
			best, score = vh, n
		}
	}
	return best
}

func naivePath(m *routev3.RouteMatch, path string) bool {
	fold := func(s string) string {
		if m.GetCaseSensitive() != nil {
			return strings.ToLower(s)
		}
		return s
	}
	switch p := m.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		return strings.HasPrefix(fold(path), fold(p.Prefix))
	case *routev3.RouteMatch_Path:
		return fold(path) == fold(p.Path)
	case *routev3.RouteMatch_PathSeparatedPrefix:
		return fold(path) == p.PathSeparatedPrefix || strings.HasPrefix(fold(path), p.PathSeparatedPrefix+"/")
	}
	return regexp.MustCompile("^(" + m.GetSafeRegex().GetRegex() + ")$").MatchString(path)
}

func naiveHeaders(m *routev3.RouteMatch, values []string) bool {
	for _, h := range m.GetHeaders() {
		if p, ok := h.GetHeaderMatchSpecifier().(*routev3.HeaderMatcher_PresentMatch); ok {
			present := len(values) > 0 || h.GetTreatMissingHeaderAsEmpty()
			if (present == p.PresentMatch) == h.GetInvertMatch() {
				return false
			}
			continue
		}
		if len(values) == 0 && !h.GetTreatMissingHeaderAsEmpty() {
			return false
		}
		if len(values) == 0 {
			values = []string{""}
		}
		if strings.Contains("|"+naiveFold(h, strings.Join(values, "|"))+"|", "|"+naiveFold(h, h.GetStringMatch().GetExact())+"|") == h.GetInvertMatch() {
			return false
		}
	}
	return true
}

func naiveFold(h *routev3.HeaderMatcher, s string) string {
	if h.GetStringMatch().GetIgnoreCase() {
		return strings.ToLower(s)
	}
	return s
}

func naiveQuery(m *routev3.RouteMatch, query string) bool {
	for _, q := range m.GetQueryParameters() {
		if query != "z=1&q="+q.GetStringMatch().GetExact() {
			return false
		}
	}
	return true
}
