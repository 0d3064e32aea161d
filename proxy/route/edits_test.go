package route_test

import (
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
)

// lines is the form "name: value|name: value" of headers.
func lines(h *http.Headers) string {
	var out []string
	for _, f := range h.Fields {
		out = append(out, string(f.Name)+": "+string(f.Value))
	}
	return strings.Join(out, "|")
}

func fill(h *http.Headers, text string) {
	for line := range strings.SplitSeq(text, "|") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			h.Add([]byte(name), []byte(value))
		}
	}
}

func equal(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// Compared with what Envoy 1.40 sends for the same configuration.
func TestEdits(t *testing.T) {
	decide := func(t *testing.T, fields string) route.Decision {
		t.Helper()
		table := compile(t, `{"virtualHosts":[{"name":"v","domains":["*"],"routes":[`+action(fields)+`]}]}`)
		return table.Select(&route.Facts{Request: request("GET a/")}, nil)
	}
	add := func(key, value, more string) string {
		return `{"header":{"key":"` + key + `","value":"` + value + `"}` + more + `}`
	}
	const set, absent, replace = `,"appendAction":"OVERWRITE_IF_EXISTS_OR_ADD"`, `,"appendAction":"ADD_IF_ABSENT"`, `,"appendAction":"OVERWRITE_IF_EXISTS"`
	for _, c := range []struct{ id, fields, in, want string }{
		{"VS-031 add to request headers", add("X-Custom", "z", ""), "x-custom: q|b: c", "x-custom: q|b: c|x-custom: z"},
		{"VS-031 add to a header that is one field", add("user-agent", "more", ""), "User-Agent: curl|b: c", "User-Agent: curl,more|b: c"},
		{"VS-031 set moves to the end", add("a", "new", set), "A: 1|b: c|a: 2", "b: c|a: new"},
		{"VS-031 set adds", add("a", "new", set), "b: c", "b: c|a: new"},
		{"add where absent", add("a", "1", absent) + "," + add("b", "2", absent), "a: 0", "a: 0|b: 2"},
		{"both are absent before the first is added", add("a", "1", absent) + "," + add("a", "2", absent), "", "a: 1|a: 2"},
		{"replace only what is there", add("a", "1", replace) + "," + add("b", "2", replace), "a: 0", "a: 1"},
		{"older form of set", add("a", "1", `,"append":false`), "a: 0", "a: 1"},
		{"older form of add", add("a", "1", `,"append":true`), "a: 0", "a: 0|a: 1"},
		{"all values before all edits, sets before adds", add("x-first", "%REQ(x-over)%", "") + "," + add("x-over", "new", replace), "x-over: old", "x-over: new|x-first: old"},
		{"VS-031 operators and percent signs", add("a", "<%REQ(NOPE)%%REQ(:PATH)% 100%%>", ""), "", "a: </p 100%>"},
		{"VS-031 operator on the upstream", add("a", "%UPSTREAM_HOST%", ""), "", "a: 10.0.0.1:80"},
		{"an empty value is left out", add("a", "%REQ(NOPE)%", "") + "," + add("b", "", ""), "", ""},
		{"unless it is kept", add("a", "%REQ(NOPE)%", `,"keepEmptyValue":true`), "", "a: "},
		{"raw value, which is of other places", `{"header":{"key":"a","rawValue":"aGk="}}`, "", ""},
	} {
		t.Run(c.id, func(t *testing.T) {
			d := decide(t, `"requestHeadersToAdd":[`+c.fields+`],"responseHeadersToAdd":[`+c.fields+`],"route":{"cluster":"c"}`)
			s := &http.Stream{}
			s.Request.Path, s.Info.Upstream = []byte("/p"), &endpoint.Endpoint{Address: "10.0.0.1:80"}
			fill(&s.Request.Headers, c.in)
			d.EditRequest(s, nil)
			equal(t, lines(&s.Request.Headers), c.want)
			if strings.Contains(c.fields, "x-over") { // reads a request header that is edited by now
				return
			}
			fill(&s.Response.Headers, c.in)
			d.EditResponse(s, nil)
			equal(t, lines(&s.Response.Headers), c.want)
		})
	}
	t.Run("VS-032 remove, then set, then add response headers", func(t *testing.T) {
		d := decide(t, `"responseHeadersToRemove":["X-Gone","a"],"responseHeadersToAdd":[`+add("b", "1", "")+`,`+add("a", "2", set)+`],"directResponse":{"status":200}`)
		s := &http.Stream{}
		fill(&s.Response.Headers, "x-gone: 1|A: 0|X-GONE: 2|b: 0")
		d.EditResponse(s, nil)
		equal(t, lines(&s.Response.Headers), "b: 0|a: 2|b: 1")
	})
}

func TestEditLevels(t *testing.T) {
	level := func(name string) string {
		return `"requestHeadersToAdd":[{"header":{"key":"x","value":"` + name + `"}}],"responseHeadersToAdd":[{"header":{"key":"y","value":"` + name + `"}}]`
	}
	config := func(specific string) string {
		return `{` + specific + level("table") + `,"virtualHosts":[{"name":"v","domains":["*"],` + level("host") + `,"routes":[{"match":{"prefix":"/"},` + level("route") + `,
			"route":{"weightedClusters":{"clusters":[{"name":"a","weight":1,` + level("cluster") + `}]}}}]}]}`
	}
	for _, c := range []struct{ id, specific, want string }{
		{"VS-030 destination before route before the rest", ``, "cluster|route|host|table"},
		{"the route last", `"mostSpecificHeaderMutationsWins":true,`, "cluster|table|host|route"},
	} {
		t.Run(c.id, func(t *testing.T) {
			d := compile(t, config(c.specific)).Select(&route.Facts{Request: request("GET a/")}, nil)
			s := &http.Stream{}
			d.EditRequest(s, d.Route.Forward.Pick(0))
			equal(t, strings.ReplaceAll(lines(&s.Request.Headers), "x: ", ""), c.want)
			d.EditResponse(s, d.Route.Forward.Pick(0))
			equal(t, strings.ReplaceAll(lines(&s.Response.Headers), "y: ", ""), c.want)
		})
	}
	t.Run("no route", func(t *testing.T) {
		s := &http.Stream{}
		route.Decision{}.EditRequest(s, nil)
		route.Decision{}.EditResponse(s, nil)
		equal(t, lines(&s.Request.Headers)+lines(&s.Response.Headers), "")
	})
}

func TestLiteralEditsAllocateNothing(t *testing.T) {
	table := routes(t, action(`"requestHeadersToRemove":["gone"],"requestHeadersToAdd":[{"header":{"key":"x-a","value":"1"}},{"header":{"key":"x-b","value":"2"},"appendAction":"OVERWRITE_IF_EXISTS_OR_ADD"}],"route":{"cluster":"c"}`))
	d := table.Select(&route.Facts{Request: request("GET a/")}, nil)
	s := &http.Stream{}
	name, value := []byte("x-b"), []byte("0")
	if n := testing.AllocsPerRun(100, func() {
		s.Request.Headers.Reset()
		s.Request.Headers.Add(name, value)
		d.EditRequest(s, nil)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestUnsendableValues: what an operator makes of a request cannot break the head that
// it is put into.
func TestUnsendableValues(t *testing.T) {
	edits := `{"header":{"key":"x-a","value":"%QUERY_PARAM(q)%"}},{"header":{"key":"x-b","value":"%QUERY_PARAM(n)%"}}`
	d := routes(t, action(`"requestHeadersToAdd":[`+edits+`],"responseHeadersToAdd":[`+edits+`],"route":{"cluster":"c"}`)).
		Select(&route.Facts{Request: request("GET a/")}, nil)
	for _, c := range []struct{ path, invalid, want string }{
		{"/?q=%09%ff&n=1", "", "x-a: \t\xff|x-b: 1"},
		{"/?q=%0d%0aEvil:1&n=1", "x-a", "x-b: 1"},
		{"/?q=1&n=%00", "x-b", "x-a: 1"},
		{"/?q=%7f", "x-a", ""},
	} {
		t.Run(c.path, func(t *testing.T) {
			s := &http.Stream{}
			s.Request.Path = []byte(c.path)
			if name := string(d.EditRequest(s, nil)); name != c.invalid {
				t.Errorf("refuses for %q, want %q", name, c.invalid)
			}
			equal(t, lines(&s.Request.Headers), c.want)
			d.EditResponse(s, nil)
			equal(t, lines(&s.Response.Headers), c.want)
		})
	}
}
