package envoy

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control/ir"
)

func forward(host string) *ir.Forward {
	return &ir.Forward{Clusters: []ir.WeightedCluster{{Name: "outbound|80||" + host}}}
}

func prefix(p string) ir.RouteMatch { return ir.RouteMatch{Path: ir.PathMatch{Value: p}} }

// A rule that a proxy would refuse must answer 500 to what it was meant for, and
// must leave its neighbours and the table valid.
func TestBrokenRules(t *testing.T) {
	cases := []struct {
		name   string
		rule   ir.Route
		prefix string // of the path that answers 500
	}{
		{"path expression", ir.Route{Match: ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathRegex, Value: "/v1/(items"}},
			Forward: forward("a")}, "/v1/"},
		{"path expression, optional end", ir.Route{Match: ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathRegex, Value: "/items?("}},
			Forward: forward("a")}, "/item"},
		{"path expression of alternatives", ir.Route{Match: ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathRegex, Value: "/a|/b["}},
			Forward: forward("a")}, "/"},
		{"path expression too large", ir.Route{Match: ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathRegex, Value: "/big/((" + strings.Repeat("abcdefghij", 8) + "){30}){33}"}},
			Forward: forward("a")}, "/big/"},
		{"header expression", ir.Route{Match: ir.RouteMatch{Path: ir.PathMatch{Value: "/h"}, Headers: []ir.HeaderMatch{
			{Name: "x", StringMatch: ir.StringMatch{Kind: ir.Regex, Value: "*"}}}}, Forward: forward("a")}, "/h"},
		{"query expression", ir.Route{Match: ir.RouteMatch{Path: ir.PathMatch{Value: "/q"}, Query: []ir.QueryMatch{
			{Name: "x", StringMatch: ir.StringMatch{Kind: ir.Regex, Value: "("}}}}, Forward: forward("a")}, "/q"},
		{"header name", ir.Route{Match: ir.RouteMatch{Path: ir.PathMatch{Value: "/n"}, Headers: []ir.HeaderMatch{
			{Name: "x\n", StringMatch: ir.StringMatch{Kind: ir.Present}}}}, Forward: forward("a")}, "/n"},
		{"origin expression", ir.Route{Match: prefix("/cors"), Forward: forward("a"),
			CORS: &ir.CORSPolicy{Origins: []ir.StringMatch{{Kind: ir.Regex, Value: "["}}}}, "/cors"},
		{"rewrite expression", ir.Route{Match: prefix("/rewrite"), Forward: &ir.Forward{
			Clusters: forward("a").Clusters, RegexRewrite: &ir.RegexRewrite{Pattern: "(", Substitution: "/"}}}, "/rewrite"},
		{"rewrite names a group too many", ir.Route{Match: prefix("/group"), Forward: &ir.Forward{
			Clusters: forward("a").Clusters, RegexRewrite: &ir.RegexRewrite{Pattern: "/(a)", Substitution: `/\2`}}}, "/group"},
		{"header format", ir.Route{Match: prefix("/format"), Forward: forward("a"),
			Headers: ir.HeaderEdits{RequestAdd: []ir.HeaderValue{{Name: "x", Value: "%NOT_A_COMMAND%"}}}}, "/format"},
		{"header format of a destination", ir.Route{Match: prefix("/part"), Forward: &ir.Forward{Split: true,
			Clusters: []ir.WeightedCluster{{Name: "a", Weight: 1, Headers: ir.HeaderEdits{
				ResponseAdd: []ir.HeaderValue{{Name: "x", Value: "100%"}}}}}}}, "/part"},
		{"removing Host", ir.Route{Match: prefix("/host"), Forward: forward("a"),
			Headers: ir.HeaderEdits{RequestRemove: []string{"Host"}}}, "/host"},
		{"setting a pseudo header", ir.Route{Match: prefix("/pseudo"), Forward: forward("a"),
			Headers: ir.HeaderEdits{RequestAdd: []ir.HeaderValue{{Name: ":path", Value: "/"}}}}, "/pseudo"},
		{"command without its arguments", ir.Route{Match: prefix("/args"), Forward: forward("a"),
			Headers: ir.HeaderEdits{RequestAdd: []ir.HeaderValue{{Name: "x", Value: "%REQ%"}}}}, "/args"},
		{"weights that overflow", ir.Route{Match: prefix("/heavy"), Forward: &ir.Forward{Split: true,
			Clusters: []ir.WeightedCluster{{Name: "a", Weight: 3e9}, {Name: "b", Weight: 3e9}}}}, "/heavy"},
		{"fault without status", ir.Route{Match: prefix("/fault"), Forward: forward("a"),
			Fault: &ir.FaultInjection{Abort: &ir.FaultAbort{}}}, "/fault"},
		{"body beyond the bound", ir.Route{Match: prefix("/body"),
			Direct: &ir.DirectResponse{Status: 200, HasBody: true, Body: make([]byte, 5000)}}, "/body"},
		{"two rewrites", ir.Route{Match: prefix("/two"), Forward: &ir.Forward{Clusters: forward("a").Clusters,
			PrefixRewrite: "/", RegexRewrite: &ir.RegexRewrite{Pattern: "a"}}}, "/two"},
		{"status", ir.Route{Match: prefix("/status"), Direct: &ir.DirectResponse{Status: 99}}, "/status"},
		{"no destination left", ir.Route{Match: prefix("/nothing"), Forward: &ir.Forward{Split: true}}, "/nothing"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			c.rule.Name = "broken"
			c.rule.Origin = &ir.Origin{Name: "broken", Field: "http[0]"}
			value := ir.RouteConfiguration{Name: "t", VirtualHosts: []ir.VirtualHost{{
				Name: "h", Domains: []string{"*"}, Routes: []ir.Route{c.rule, {Match: prefix("/good"), Forward: forward("b")}}}}}
			if got := Broken(value); len(got) != 1 || got[0].Origin != c.rule.Origin || got[0].Err == nil {
				t.Errorf("broken rules %v, want the first", got)
			}
			table := RouteConfiguration(value)
			if err := table.ValidateAll(); err != nil {
				t.Fatal(err)
			}
			routes := table.VirtualHosts[0].Routes
			if got := routes[0].GetDirectResponse(); got.GetStatus() != 500 || got.GetBody() != nil {
				t.Errorf("the broken rule answers %v", got)
			}
			if got := routes[0].Match.GetPrefix(); got != c.prefix {
				t.Errorf("the broken rule takes %q, want %q", got, c.prefix)
			}
			if routes[0].Name != "broken" || len(routes[0].Match.Headers)+len(routes[0].Match.QueryParameters) > 0 {
				t.Errorf("got %v", routes[0])
			}
			if got := routes[1].GetRoute().GetCluster(); got != "outbound|80||b" {
				t.Errorf("the rule beside it goes to %q", got)
			}
		})
	}
}

func TestUsableRules(t *testing.T) {
	for name, rule := range map[string]ir.Route{
		"a large expression": {Match: ir.RouteMatch{Path: ir.PathMatch{Kind: ir.PathRegex, Value: `(?i)\pL{1000}`}}, Forward: forward("a")},
		"percent signs": {Match: prefix("/"), Forward: forward("a"), Headers: ir.HeaderEdits{RequestAdd: []ir.HeaderValue{
			{Name: "x", Value: `100%% %REQ(X-A?:PATH):10% %START_TIME(%s)%`}}}},
		"groups": {Match: prefix("/"), Forward: &ir.Forward{Clusters: forward("a").Clusters,
			RegexRewrite: &ir.RegexRewrite{Pattern: "/(a)(b)", Substitution: `/\2\1\\`}}},
		"timeouts": {Match: prefix("/"), Forward: &ir.Forward{Clusters: forward("a").Clusters, Timeout: time.Second,
			Retry: &ir.Retry{Attempts: 1, PerTryTimeout: time.Second, BaseInterval: time.Millisecond}}},
	} {
		if got := route(rule, 1<<20); got.GetRoute() == nil {
			t.Errorf("%s: became %v", name, got)
		}
		if got := Broken(ir.RouteConfiguration{VirtualHosts: []ir.VirtualHost{{Routes: []ir.Route{rule}}}}); len(got) > 0 {
			t.Errorf("%s: broken: %v", name, got)
		}
	}
}

// The resource depends on nothing but the value: what is equal stays equal bytes.
func TestRouteConfigurationIsStable(t *testing.T) {
	value := ir.RouteConfiguration{Name: "t", VirtualHosts: []ir.VirtualHost{{Name: "h", Domains: []string{"*"},
		Routes: []ir.Route{{Match: prefix("/"), Forward: forward("a"), Fault: &ir.FaultInjection{}, CORS: &ir.CORSPolicy{},
			Origin: &ir.Origin{Kind: "VirtualService", Namespace: "n", Name: "v", Field: "http[0]", Path: "/p"}}}}}}
	spell := func() string {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(RouteConfiguration(value))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	first := spell()
	for range 20 {
		if spell() != first {
			t.Fatal("two spellings of one value differ")
		}
	}
}
