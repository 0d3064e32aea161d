package headermutation_test

import (
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/headermutation"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
)

func read(t *testing.T, kind, mutations string) *anypb.Any {
	t.Helper()
	var a anypb.Any
	if err := protojson.Unmarshal([]byte(`{"@type":"type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.`+kind+`",`+mutations+`}`), &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

func lines(h *http.Headers) string {
	var all []string
	for _, f := range h.Fields {
		all = append(all, string(f.Name)+"="+string(f.Value))
	}
	return strings.Join(all, " ")
}

func add(name, value string) string {
	return `{"append":{"header":{"key":"` + name + `","value":"` + value + `"}}}`
}

func filter(t *testing.T, fields string) http.Filter {
	t.Helper()
	f, err := headermutation.Factory().New(read(t, "HeaderMutation", fields), http.Env{Name: "renamed"})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// Each mutation sees what those before it have left.
func TestInOrder(t *testing.T) {
	f := filter(t, `"mutations":{"requestMutations":[`+add("a", "1")+`,`+add("b", "%REQ(a)%")+`,{"remove":"a"},{"removeOnMatch":{"keyMatcher":{"prefix":"x-"}}}],
		"responseMutations":[`+add("c", "%REQ(b)%")+`]}`)
	s := &http.Stream{}
	s.Request.Body, s.Response.Body = http.NoBody, http.NoBody
	s.Request.Headers.Add([]byte("X-Gone"), []byte("1"))
	f.OnRequest(s, 0)
	f.OnResponse(s, 0)
	if got := lines(&s.Request.Headers) + "|" + lines(&s.Response.Headers); got != "b=1|c=1" {
		t.Error(got)
	}
}

// All levels of a route count, by the name that the filter has in its chain.
func TestLevels(t *testing.T) {
	level := func(name string) map[string]any {
		o, err := headermutation.Factory().Override(read(t, "HeaderMutationPerRoute", `"mutations":{"requestMutations":[`+add("x", name)+`]}`), http.Env{})
		if err != nil {
			t.Fatal(err)
		}
		return map[string]any{"renamed": o}
	}
	for fields, want := range map[string]string{"": "x=own x=route x=host x=table", `"mostSpecificHeaderMutationsWins":true,`: "x=own x=table x=host x=route"} {
		f := filter(t, fields+`"mutations":{"requestMutations":[`+add("x", "own")+`]}`)
		s := &http.Stream{}
		s.Request.Body = http.NoBody
		s.Route = &route.Target{Decision: route.Decision{Route: &route.Route{PerFilter: level("route")},
			VirtualHost: &route.VirtualHost{PerFilter: level("host")}, Table: &route.Table{PerFilter: level("table")}}}
		f.OnRequest(s, 0)
		if got := lines(&s.Request.Headers); got != want {
			t.Errorf("%s: %s, want %s", fields, got, want)
		}
	}
}

func TestQuery(t *testing.T) {
	append1 := func(action string) string {
		return `{"append":{"record":{"key":"q","value":"new"},"action":"` + action + `"}}`
	}
	for _, c := range []struct{ mutation, path, want string }{
		{append1("APPEND_IF_EXISTS_OR_ADD"), "/p?q=1", "/p?q=1&q=new"},
		{append1("ADD_IF_ABSENT"), "/p?q=1", "/p?q=1"},
		{append1("ADD_IF_ABSENT"), "/p", "/p?q=new"},
		{append1("OVERWRITE_IF_EXISTS"), "/p", "/p"},
		{append1("OVERWRITE_IF_EXISTS"), "/p?q=1&q=2", "/p?q=new"},
		{append1("OVERWRITE_IF_EXISTS_OR_ADD"), "/p?z=1&a=2", "/p?a=2&q=new&z=1"},
		{`{"remove":"q"}`, "/p?q=1&r", "/p?r="},
		{`{"remove":"z"}`, "/p?a=%20%26+%25", "/p?a=%20%26+%25"}, // what has a meaning is encoded again
	} {
		f := filter(t, `"mutations":{"queryParameterMutations":[`+c.mutation+`]}`)
		s := &http.Stream{}
		s.Request.Body, s.Request.Path = http.NoBody, []byte(c.path)
		f.OnRequest(s, 0)
		if got := string(s.Request.Path); got != c.want {
			t.Errorf("%s on %s: %s, want %s", c.mutation, c.path, got, c.want)
		}
	}
}

// late is a body whose trailers come at its end.
type late struct{ trailers *http.Headers }

func (b *late) Next() ([]byte, error)   { return nil, io.EOF }
func (b *late) Ready() bool             { return true }
func (b *late) Done() bool              { return false }
func (b *late) Trailers() *http.Headers { return b.trailers }

func TestTrailers(t *testing.T) {
	f := filter(t, `"mutations":{"requestTrailersMutations":[`+add("a", "1")+`],"responseTrailersMutations":[`+add("b", "1")+`]}`)
	for _, trailers := range []*http.Headers{nil, {}} {
		s := &http.Stream{}
		s.Request.Body, s.Response.Body = &late{trailers}, http.NoBody
		f.OnRequest(s, 0)
		for range 2 { // they may be asked for more than once
			got := s.Request.Body.Trailers()
			if (got == nil) != (trailers == nil) || got != nil && lines(got) != "a=1" {
				t.Errorf("%v", got)
			}
		}
	}
}

// FuzzQuery: whatever a query holds, what becomes of it can stand in a request.
func FuzzQuery(f *testing.F) {
	f.Add("a=b&c=%20")
	f.Add("%0d%0a=%")
	f.Fuzz(func(t *testing.T, query string) {
		s := &http.Stream{}
		s.Request.Body, s.Request.Path = http.NoBody, []byte("/?"+query)
		one := `{"append":{"record":{"key":"k","value":"v"},"action":"OVERWRITE_IF_EXISTS_OR_ADD"}}`
		built, err := headermutation.Factory().New(read(t, "HeaderMutation", `"mutations":{"queryParameterMutations":[`+one+`]}`), http.Env{})
		if err != nil {
			t.Fatal(err)
		}
		built.OnRequest(s, 0)
		if got := string(s.Request.Path); strings.ContainsAny(got, " \r\n\x00\x7f") || !strings.Contains(got, "k=v") {
			t.Errorf("%q becomes %q", query, got)
		}
	})
}
