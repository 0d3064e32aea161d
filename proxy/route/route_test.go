package route_test

import (
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
)

// read is a RouteConfiguration from its JSON form.
func read(t testing.TB, text string) *routev3.RouteConfiguration {
	t.Helper()
	var rc routev3.RouteConfiguration
	if err := protojson.Unmarshal([]byte(text), &rc); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return &rc
}

func compile(t testing.TB, text string) *route.Table {
	t.Helper()
	table, err := route.Compile(read(t, text), route.CompileEnv{})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// routes is a table with one virtual host for everything and the given routes.
func routes(t testing.TB, list string) *route.Table {
	t.Helper()
	return compile(t, `{"name":"r","virtualHosts":[{"name":"v","domains":["*"],"routes":[`+list+`]}]}`)
}

// to is a route to a cluster that bears its name.
func to(name, match string) string {
	return `{"name":"` + name + `","match":` + match + `,"route":{"cluster":"` + name + `"}}`
}

// request reads "METHOD authority/path" and "name: value" lines.
func request(text string) *http.Request {
	head, rest, _ := strings.Cut(text, "\n")
	method, target, _ := strings.Cut(head, " ")
	i := strings.IndexByte(target, '/')
	r := &http.Request{Method: []byte(method), Scheme: []byte("http"), Authority: []byte(target[:i]), Path: []byte(target[i:])}
	for line := range strings.Lines(rest) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		r.Headers.Add([]byte(name), []byte(value))
	}
	return r
}

// chosen is the name of the route for a request, "-" without.
func chosen(table *route.Table, text string) string {
	return name(table.Select(&route.Facts{Request: request(text)}, nil))
}

func name(d route.Decision) string {
	if d.Route == nil {
		return "-"
	}
	return d.Route.Name
}

func TestVirtualHosts(t *testing.T) {
	host := func(name string, domains ...string) string {
		return `{"name":"` + name + `","domains":["` + strings.Join(domains, `","`) + `"],"routes":[` + to(name, `{"prefix":"/"}`) + `]}`
	}
	hosts := strings.Join([]string{
		host("exact", "foo.com", "FOO.org:80", "[::1]:80"), host("suffix", "*.foo.com"), host("longer", "*.bar.foo.com"), host("dash", "*-foo.com"),
		host("prefix", "foo.*"), host("longer prefix", "foo.bar.*"),
	}, ",")
	for _, c := range []struct{ id, options, want string }{
		{"WI-026 exact before longest suffix before longest prefix", ``, `
			foo.com=exact FoO.CoM=exact foo.org:80=exact foo.org=longer-none a.foo.com=suffix a.bar.foo.com=longer bar.foo.com=suffix
			.foo.com=- x-foo.com=dash foo.net=prefix foo.bar.com=longer_prefix foo.=- foo.com:81=prefix other=- =- foo.com:=prefix`},
		{"WI-026 any port", `"ignorePortInHostMatching":true,`, `
			foo.com:81=exact FOO.com:1=exact a.foo.com:99=suffix foo.com:=prefix foo.com:8a=prefix [::1]:80=- other:80=-`},
	} {
		t.Run(c.id, func(t *testing.T) {
			table := compile(t, `{`+c.options+`"virtualHosts":[`+hosts+`]}`)
			for pair := range strings.FieldsSeq(c.want) {
				i := strings.LastIndexByte(pair, '=')
				want := strings.ReplaceAll(pair[i+1:], "_", " ")
				if want == "longer-none" {
					want = "prefix"
				}
				if got := chosen(table, "GET "+pair[:i]+"/"); got != want {
					t.Errorf("%s goes to %s, want %s", pair[:i], got, want)
				}
			}
		})
	}
	t.Run("everything else", func(t *testing.T) {
		table := compile(t, `{"virtualHosts":[`+hosts+`,`+host("any", "*")+`]}`)
		long := strings.Repeat("A", 300)
		for authority, want := range map[string]string{"other": "any", "": "any", "foo.com": "exact", long: "any", long + ".foo.com": "suffix"} {
			if got := chosen(table, "GET "+authority+"/"); got != want {
				t.Errorf("%.20s goes to %s, want %s", authority, got, want)
			}
		}
	})
}

func TestMatches(t *testing.T) {
	for _, c := range []struct{ id, match, yes, no string }{
		{"VS-012 uri prefix without segments", `{"prefix":"/foo"}`, "GET a/foo|GET a/foobar|GET a/foo/b?c|GET a/foo?d", "GET a/fo|GET a/Foo|GET a/x/foo"},
		{"VS-012 uri exact, query cut off", `{"path":"/foo"}`, "GET a/foo|GET a/foo?x=/", "GET a/foo/|GET a/foobar|GET a/FOO"},
		{"VS-012 uri regex must match the whole path", `{"safeRegex":{"regex":"/f(o+)/[a-z]*"}}`, "GET a/foo/abc|GET a/fo/?x", "GET a/foo/abc1|GET a/x/foo/|GET a/foo"},
		{"VS-021 prefix ignoring case", `{"prefix":"/Foo","caseSensitive":false}`, "GET a/fOObar", "GET a/fo"},
		{"VS-021 exact ignoring case", `{"path":"/Foo","caseSensitive":false}`, "GET a/foo|GET a/FOO", "GET a/foo/"},
		{"VS-021 a regex keeps its case", `{"safeRegex":{"regex":"/foo"},"caseSensitive":false}`, "GET a/foo", "GET a/FOO"},
		{"path segments", `{"pathSeparatedPrefix":"/foo/bar"}`, "GET a/foo/bar|GET a/foo/bar/|GET a/foo/bar/x?y|GET a/foo/bar?y", "GET a/foo/bars|GET a/foo"},
		{"everything", `{"prefix":""}`, "GET a/|GET a/x", ""},
		{"VS-013 scheme", `{"prefix":"/","headers":[{"name":":scheme","stringMatch":{"exact":"http"}}]}`, "GET a/", ""},
		{"VS-014 method", `{"prefix":"/","headers":[{"name":":method","stringMatch":{"exact":"GET"}}]}`, "GET a/", "POST a/|get a/"},
		{"VS-015 authority with its port", `{"prefix":"/","headers":[{"name":":authority","stringMatch":{"prefix":"a.test"}}]}`, "GET a.test/|GET a.test:80/", "GET b/"},
		{"VS-015 host is authority", `{"prefix":"/","headers":[{"name":"host","stringMatch":{"exact":"a.test"}}]}`, "GET a.test/", "GET a.test:80/"},
		{"VS-016 headers exact, in any case of the name", `{"prefix":"/","headers":[{"name":"End-User","stringMatch":{"exact":"jason"}}]}`, "GET a/\nEnd-USER: jason", "GET a/|GET a/\nend-user: Jason|GET a/\nend-user: jason2"},
		{"VS-016 headers prefix and regex together", `{"prefix":"/","headers":[{"name":"a","stringMatch":{"prefix":"x"}},{"name":"b","stringMatch":{"safeRegex":{"regex":"[0-9]+"}}}]}`, "GET a/\na: xy\nb: 12", "GET a/\na: xy\nb: 12a|GET a/\na: xy|GET a/\nb: 1"},
		{"VS-016 header presence", `{"prefix":"/","headers":[{"name":"a","presentMatch":true}]}`, "GET a/\na: |GET a/\na: x", "GET a/\nb: x"},
		{"several fields are several values", `{"prefix":"/","headers":[{"name":"a","stringMatch":{"exact":"x"}}]}`, "GET a/\na: x\nA: y|GET a/\na: y\na: x", "GET a/\na: x,y"},
		{"but one value of a header that Envoy keeps as one", `{"prefix":"/","headers":[{"name":"accept","stringMatch":{"exact":"x,y"}}]}`, "GET a/\naccept: x\naccept: y", "GET a/\naccept: x"},
		{"VS-022 without a header", `{"prefix":"/","headers":[{"name":"a","presentMatch":true,"invertMatch":true}]}`, "GET a/", "GET a/\na: x"},
		{"VS-022 without a value, missing counts", `{"prefix":"/","headers":[{"name":"a","stringMatch":{"exact":"x"},"invertMatch":true,"treatMissingHeaderAsEmpty":true}]}`, "GET a/|GET a/\na: y", "GET a/\na: x"},
		{"inverted, missing does not count", `{"prefix":"/","headers":[{"name":"a","stringMatch":{"exact":"x"},"invertMatch":true}]}`, "GET a/\na: y", "GET a/|GET a/\na: x"},
		{"header range", `{"prefix":"/","headers":[{"name":"a","rangeMatch":{"start":"1","end":"5"}}]}`, "GET a/\na: 4", "GET a/\na: 5|GET a/\na: x|GET a/"},
		{"VS-020 query parameters exact, raw", `{"prefix":"/","queryParameters":[{"name":"q","stringMatch":{"exact":"a%20b"}}]}`, "GET a/?q=a%20b|GET a/?x=1&q=a%20b", "GET a/?q=a+b|GET a/|GET a/q=a%20b"},
		{"VS-020 query parameters regex, first value counts", `{"prefix":"/","queryParameters":[{"name":"q","stringMatch":{"safeRegex":{"regex":"[0-9]+"}}}]}`, "GET a/?q=1&q=x", "GET a/?q=x&q=1|GET a/?q="},
		{"VS-020 query parameter presence", `{"prefix":"/","queryParameters":[{"name":"q","presentMatch":true}]}`, "GET a/?q|GET a/?q=", "GET a/?Q|GET a/"},
		{"gRPC", `{"prefix":"/","grpc":{}}`, "POST a/\ncontent-type: application/grpc|POST a/\ncontent-type: application/grpc+proto", "POST a/\ncontent-type: application/grpc-web|POST a/"},
		{"CONNECT", `{"connectMatcher":{}}`, "CONNECT a/", "GET a/"},
	} {
		t.Run(c.id, func(t *testing.T) {
			table := routes(t, to("it", c.match))
			for text := range strings.SplitSeq(c.yes, "|") {
				if chosen(table, text) != "it" {
					t.Errorf("%q does not match", text)
				}
			}
			for text := range strings.SplitSeq(c.no, "|") {
				if text != "" && chosen(table, text) == "it" {
					t.Errorf("%q matches", text)
				}
			}
		})
	}
}

func TestOrder(t *testing.T) {
	t.Run("VS-008 the first route that matches wins", func(t *testing.T) {
		table := routes(t, strings.Join([]string{to("one", `{"prefix":"/a/b"}`), to("two", `{"prefix":"/a"}`), to("three", `{"prefix":"/a/b/c"}`)}, ","))
		for path, want := range map[string]string{"/a/b/c": "one", "/a/c": "two", "/b": "-"} {
			if got := chosen(table, "GET x"+path); got != want {
				t.Errorf("%s goes to %s, want %s", path, got, want)
			}
		}
	})
	t.Run("a CONNECT without a path", func(t *testing.T) {
		table := routes(t, to("prefix", `{"prefix":""}`)+","+to("connect", `{"connectMatcher":{}}`))
		d := table.Select(&route.Facts{Request: &http.Request{Method: []byte("CONNECT"), Authority: []byte("a:443")}}, nil)
		if name(d) != "connect" {
			t.Errorf("goes to %s", name(d))
		}
	})
	t.Run("runtime_fraction by the random number", func(t *testing.T) {
		table := routes(t, to("some", `{"prefix":"/","runtimeFraction":{"defaultValue":{"numerator":25,"denominator":"HUNDRED"}}}`)+","+to("rest", `{"prefix":"/"}`))
		counts := map[string]int{}
		for random := range uint64(100) {
			counts[name(table.Select(&route.Facts{Request: request("GET a/"), Random: random}, nil))]++
		}
		if counts["some"] != 25 || counts["rest"] != 75 {
			t.Errorf("%v, want 25 and 75", counts)
		}
	})
	t.Run("client certificate", func(t *testing.T) {
		table := routes(t, to("valid", `{"prefix":"/","tlsContext":{"presented":true,"validated":true}}`)+","+to("shown", `{"prefix":"/","tlsContext":{"presented":true}}`)+","+to("none", `{"prefix":"/","tlsContext":{"presented":false}}`))
		for want, f := range map[string]route.Facts{"valid": {PeerPresented: true, PeerValidated: true}, "shown": {PeerPresented: true}, "none": {}} {
			f.Request = request("GET a/")
			if got := name(table.Select(&f, nil)); got != want {
				t.Errorf("goes to %s, want %s", got, want)
			}
		}
	})
	t.Run("VS-016 a claim of a validated token", func(t *testing.T) {
		table := routes(t, to("admin", `{"prefix":"/","dynamicMetadata":[{"filter":"istio_authn","path":[{"key":"request.auth.claims"},{"key":"groups"}],
			"value":{"orMatch":{"valueMatchers":[{"stringMatch":{"exact":"admin"}},{"listMatch":{"oneOf":{"stringMatch":{"exact":"admin"}}}}]}}}]}`)+","+to("rest", `{"prefix":"/"}`))
		for want, groups := range map[string]any{"admin": []any{"dev", "admin"}, "rest": "dev"} {
			f := route.Facts{Request: request("GET a/"), Metadata: map[string]map[string]any{"istio_authn": {"request.auth.claims": map[string]any{"groups": groups}}}}
			if got := name(table.Select(&f, nil)); got != want {
				t.Errorf("%v goes to %s, want %s", groups, got, want)
			}
		}
		if got := chosen(table, "GET a/"); got != "rest" {
			t.Errorf("without a token: %s", got)
		}
	})
}

func TestRequireTLS(t *testing.T) {
	table := func(requirement string) *route.Table {
		return compile(t, `{"virtualHosts":[{"name":"v","domains":["*"],"requireTls":"`+requirement+`","routes":[`+to("it", `{"prefix":"/"}`)+`]}]}`)
	}
	const plain, secure, internal = "GET redir.test:80/a?b=c\nx-forwarded-proto: http", "GET redir.test/a\nx-forwarded-proto: https", "GET redir.test/a\nx-forwarded-proto: http\nx-envoy-internal: true"
	for _, c := range []struct {
		requirement, request string
		redirected           bool
	}{
		{"ALL", plain, true}, {"ALL", secure, false}, {"ALL", internal, true}, {"ALL", "GET redir.test/", true},
		{"EXTERNAL_ONLY", plain, true}, {"EXTERNAL_ONLY", internal, false}, {"EXTERNAL_ONLY", secure, false},
		{"NONE", plain, false},
	} {
		t.Run(c.requirement, func(t *testing.T) {
			r := request(c.request)
			d := table(c.requirement).Select(&route.Facts{Request: r}, nil)
			if !c.redirected {
				if name(d) != "it" {
					t.Errorf("%q goes to %+v", c.request, d.Route)
				}
				return
			}
			if d.Route.Redirect == nil || d.Route.Redirect.Status != 301 {
				t.Fatalf("%q goes to %+v, want a redirect", c.request, d.Route)
			}
			if got, want := string(d.Route.AppendLocation(nil, &http.Stream{Request: *r}, "http")), "https://"+string(r.Authority)+string(r.Path); got != want {
				t.Errorf("location %s, want %s", got, want)
			}
		})
	}
	t.Run("without x-forwarded-proto the connection counts", func(t *testing.T) {
		if d := table("ALL").Select(&route.Facts{Request: request("GET a/"), TLS: true}, nil); name(d) != "it" {
			t.Errorf("goes to %+v", d.Route)
		}
	})
}

func TestRecorder(t *testing.T) {
	table := compile(t, `{"virtualHosts":[{"name":"v","domains":["*.test"],"routes":[`+strings.Join([]string{
		to("one", `{"path":"/x"}`), to("two", `{"prefix":"/","headers":[{"name":"end-user","stringMatch":{"exact":"jason"}}]}`),
		to("three", `{"prefix":"/","queryParameters":[{"name":"q"}]}`), to("four", `{"prefix":"/","grpc":{}}`), to("five", `{"prefix":"/a"}`), to("six", `{"prefix":"/"}`),
	}, ",")+`]}]}`)
	var r route.Recorder
	d := table.Select(&route.Facts{Request: request("GET A.test/a?b\nend-user: tom")}, &r)
	if name(d) != "five" || r.Host != "wildcard domain *.test" {
		t.Errorf("goes to %s by %s", name(d), r.Host)
	}
	want := []string{
		`route[0] "one": no, path exact "/x", but it is "/a?b"`,
		`route[1] "two": no, header end-user exact "jason", but it is "tom"`,
		`route[2] "three": no, query parameter q present, but it is "/a?b"`,
		`route[3] "four": no, not a gRPC request`,
		`route[4] "five": yes, path prefix "/a"`,
	}
	if len(r.Steps) != len(want) {
		t.Fatalf("%d steps: %v", len(r.Steps), r.Steps)
	}
	for i, s := range r.Steps {
		if s.String() != want[i] {
			t.Errorf("got  %s\nwant %s", s, want[i])
		}
	}
	var none route.Recorder
	if d := table.Select(&route.Facts{Request: request("GET other/")}, &none); d.VirtualHost != nil || none.Host != "no domain for other" {
		t.Errorf("%+v by %s", d.VirtualHost, none.Host)
	}
}

func TestSelectAllocatesNothing(t *testing.T) {
	var list []string
	for _, match := range []string{
		`{"path":"/nope"}`, `{"prefix":"/Nope","caseSensitive":false}`, `{"safeRegex":{"regex":"/v[0-9]+/.*"}}`,
		`{"prefix":"/","headers":[{"name":"a","stringMatch":{"contains":"zz"}}]}`, `{"prefix":"/","queryParameters":[{"name":"q","stringMatch":{"exact":"x"}}]}`,
		`{"prefix":"/","headers":[{"name":":method","stringMatch":{"exact":"POST"}}]}`, `{"prefix":"/api"}`,
	} {
		list = append(list, to("r", match))
	}
	table := compile(t, `{"ignorePortInHostMatching":true,"virtualHosts":[{"name":"v","domains":["*.foo.com","x"],"routes":[`+strings.Join(list, ",")+`]},{"name":"w","domains":["*"]}]}`)
	f := route.Facts{Request: request("GET Api.Foo.com:8080/api/x?q=1\na: value\ncookie: c")}
	if d := table.Select(&f, nil); name(d) != "r" {
		t.Fatal("no route")
	}
	if n := testing.AllocsPerRun(1000, func() { table.Select(&f, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
