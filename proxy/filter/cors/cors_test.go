package cors_test

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/cors"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

func read(t *testing.T, kind, text string) *anypb.Any {
	t.Helper()
	var a anypb.Any
	if err := protojson.Unmarshal([]byte(`{"@type":"type.googleapis.com/envoy.extensions.filters.http.cors.v3.`+kind+`"`+text+`}`), &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

// exchange sends a request ("METHOD|header: value|…") through the filter and answers
// it as a backend that has CORS headers of its own. It returns the answer of the
// filter, or the response's headers, and the stats.
func exchange(t *testing.T, policy, request string, forward bool) (got, counted string) {
	t.Helper()
	scope := stats.NewStore().Scope("http.x.")
	f, err := cors.Factory().New(read(t, "Cors", ""), http.Env{Stats: scope})
	if err != nil {
		t.Fatal(err)
	}
	var override any
	if policy != "" {
		if override, err = cors.Factory().Override(read(t, "CorsPolicy", ","+policy), http.Env{}); err != nil {
			t.Fatal(err)
		}
	}
	s := &http.Stream{}
	s.Begin(nil, 1, nil)
	s.SetOverrides(1, func(http.Slot) any { return override })
	rt := &route.Route{Direct: &route.Direct{Status: 200}}
	if forward {
		rt = &route.Route{Forward: &route.Forward{}}
	}
	s.Route = &route.Target{Decision: route.Decision{Route: rt}}
	parts := strings.Split(request, "|")
	s.Request.Method = []byte(parts[0])
	fill(&s.Request.Headers, parts[1:])
	replied := f.OnRequest(s, 0) == http.Replied
	reply, ok := s.TakeReply()
	if replied != ok {
		t.Fatal("verdict and reply differ")
	}
	if replied {
		if reply.Status != 200 || reply.Details != "cors_response" || len(reply.Body) != 0 {
			t.Errorf("reply %+v", reply)
		}
		s.Response.Headers.Fields = reply.Prepend
	} else {
		fill(&s.Response.Headers, []string{"access-control-allow-origin: be", "access-control-allow-methods: be", "access-control-expose-headers: be", "vary: a"})
	}
	f.OnResponse(s, 0)
	var lines []string
	for _, h := range s.Response.Headers.Fields {
		lines = append(lines, strings.TrimPrefix(string(h.Name), "access-control-")+": "+string(h.Value))
	}
	for _, name := range []string{"origin_valid", "origin_invalid"} {
		if scope.Scope("cors").Counter(name).Value() == 1 {
			counted = name
		}
	}
	return strings.Join(lines, "|"), counted
}

func fill(h *http.Headers, lines []string) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		h.Add([]byte(name), []byte(value))
	}
}

const (
	full = `"allowOriginStringMatch":[{"exact":"http://a.test"},{"suffix":".b.test"}],"allowMethods":"GET, POST","allowHeaders":"x-a, x-b",
		"exposeHeaders":"x-c","maxAge":"86400","allowCredentials":true,"allowPrivateNetworkAccess":true`
	refusing  = `"allowOriginStringMatch":[{"exact":"http://a.test"}],"forwardNotMatchingPreflights":false,"allowMethods":"*","allowHeaders":"*","maxAge":"5"`
	untouched = "allow-origin: be|allow-methods: be|expose-headers: be|vary: a"
	preflight = "OPTIONS|Origin: http://a.test|Access-Control-Request-Method: PUT"
)

// The wanted lines are those of Envoy 1.40 for the same policies.
func TestCORS(t *testing.T) {
	for _, c := range []struct{ id, policy, request, want, counted string }{
		{"VS-068 VS-069 preflight", full, preflight, "allow-origin: http://a.test|allow-credentials: true|allow-methods: GET, POST|allow-headers: x-a, x-b|max-age: 86400|expose-headers: x-c", "origin_valid"},
		{"private network", full, preflight + "|access-control-request-private-network: true", "allow-origin: http://a.test|allow-credentials: true|allow-methods: GET, POST|allow-headers: x-a, x-b|max-age: 86400|allow-private-network: true|expose-headers: x-c", "origin_valid"},
		{"VS-066 VS-070 actual request", full, "GET|origin: http://x.b.test", "allow-origin: http://x.b.test|allow-methods: be|expose-headers: x-c|vary: a|allow-credentials: true", "origin_valid"},
		{"VS-066 another origin goes on without CORS headers", full, "GET|origin: http://z", untouched, "origin_invalid"},
		{"VS-071 preflight of another origin goes on", full, "OPTIONS|origin: http://z|access-control-request-method: PUT", untouched, "origin_invalid"},
		{"VS-071 preflight of another origin is answered", refusing, "OPTIONS|origin: http://z|access-control-request-method: PUT", "allow-methods: PUT|allow-headers: |max-age: 5", "origin_invalid"},
		{"what is asked for is allowed", refusing, preflight + "|access-control-request-headers: y, z", "allow-origin: http://a.test|allow-methods: PUT|allow-headers: y, z|max-age: 5", "origin_valid"},
		{"OPTIONS without a method asked for", full, "OPTIONS|origin: http://a.test", "allow-origin: http://a.test|allow-methods: be|expose-headers: x-c|vary: a|allow-credentials: true", "origin_valid"},
		{"VS-067 any origin", `"allowOriginStringMatch":[{"exact":"*"}]`, preflight, "allow-origin: http://a.test", "origin_valid"},
		{"no origin", full, "GET", untouched, ""},
		{"empty origin", full, "GET|origin: ", untouched, ""},
		{"no policy", "", preflight, untouched, ""},
		{"disabled", full + `,"filterEnabled":{"defaultValue":{"numerator":0}}`, preflight, untouched, ""},
		{"only counted", full + `,"filterEnabled":{"defaultValue":{"numerator":0}},"shadowEnabled":{"defaultValue":{"numerator":100}}`, preflight, untouched, "origin_valid"},
	} {
		t.Run(c.id, func(t *testing.T) {
			got, counted := exchange(t, c.policy, c.request, true)
			if got != c.want || counted != c.counted {
				t.Errorf("got  %s, %q\nwant %s, %q", got, counted, c.want, c.counted)
			}
		})
	}
	t.Run("routes that do not forward know no CORS", func(t *testing.T) {
		if got, counted := exchange(t, full, preflight, false); got != untouched || counted != "" {
			t.Errorf("got %s, %q", got, counted)
		}
	})
}

func TestRefused(t *testing.T) {
	if _, err := cors.Factory().Override(read(t, "CorsPolicy", `,"allowOriginStringMatch":[{"safeRegex":{"regex":"("}}]`), http.Env{}); err == nil || !strings.Contains(err.Error(), "allow_origin_string_match[0]") {
		t.Errorf("error %v", err)
	}
	if _, err := cors.Factory().New(&anypb.Any{TypeUrl: "type.googleapis.com/other"}, http.Env{Stats: stats.NewStore().Scope("")}); err == nil {
		t.Error("another message is accepted")
	}
}

// A route's older field of the same content comes out as the same policy.
func TestOlderField(t *testing.T) {
	var a anypb.Any
	if err := protojson.Unmarshal([]byte(`{"@type":"type.googleapis.com/envoy.config.route.v3.RouteConfiguration","virtualHosts":[{"name":"v","domains":["*"],"routes":[
		{"match":{"prefix":"/"},"route":{"cluster":"c","cors":{`+full+`}}}]}]}`), &a); err != nil {
		t.Fatal(err)
	}
	table, err := route.Type(route.CompileEnv{Filters: []http.Factory{cors.Factory()}}).Decode("", &a)
	if err != nil {
		t.Fatal(err)
	}
	d := table.Select(&route.Facts{Request: &http.Request{Path: []byte("/")}}, nil)
	s := &http.Stream{}
	s.Begin(nil, 1, nil)
	s.SetOverrides(1, func(http.Slot) any { return d.Route.PerFilter[cors.Name] })
	s.Route = &route.Target{Decision: d}
	s.Request.Method = []byte("GET")
	fill(&s.Request.Headers, []string{"origin: http://a.test"})
	f, err := cors.Factory().New(read(t, "Cors", ""), http.Env{Stats: stats.NewStore().Scope("")})
	if err != nil {
		t.Fatal(err)
	}
	f.OnRequest(s, 0)
	f.OnResponse(s, 0)
	if got := string(s.Response.Headers.Get("access-control-allow-origin")); got != "http://a.test" {
		t.Errorf("allow-origin %q", got)
	}
}
