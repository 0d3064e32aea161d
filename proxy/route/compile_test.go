package route_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/runtime"
)

// only is the one route of a table with one.
func only(t *testing.T, table *route.Table) *route.Route {
	t.Helper()
	d := table.Select(&route.Facts{Request: request("GET a/p")}, nil)
	if d.Route == nil {
		t.Fatal("no route")
	}
	return d.Route
}

// action is a route whose action is given, in a virtual host with more fields.
func action(text string) string {
	return `{"name":"r","match":{"prefix":"/"},` + text + `}`
}

func forward(t *testing.T, fields string) *route.Forward {
	t.Helper()
	return only(t, routes(t, action(`"route":{`+fields+`}`))).Forward
}

func TestForward(t *testing.T) {
	t.Run("VS-046 timeout, idle timeout, gRPC timeout", func(t *testing.T) {
		f := forward(t, `"cluster":"c","timeout":"0.5s","idleTimeout":"3s","maxGrpcTimeout":"0s"`)
		if f.Cluster != "c" || f.Timeout != 500*time.Millisecond || f.IdleTimeout != 3*time.Second || !f.MaxGRPCTimeoutSet || f.MaxGRPCTimeout != 0 {
			t.Errorf("%+v", f)
		}
		if f := forward(t, `"cluster":"c","timeout":"0s"`); f.Timeout != 0 {
			t.Errorf("timeout 0s is %s", f.Timeout)
		}
	})
	t.Run("defaults", func(t *testing.T) {
		f := forward(t, `"cluster":"c"`)
		if f.Timeout != 15*time.Second || f.IdleTimeout >= 0 || f.ClusterNotFoundCode != 503 || f.MaxRequestBytes != -1 || f.Retry != nil || f.Priority != 0 {
			t.Errorf("%+v", f)
		}
	})
	t.Run("other fields", func(t *testing.T) {
		f := forward(t, `"clusterHeader":"X-Cluster","hostRewriteHeader":"X-Host","appendXForwardedHost":true,"priority":"HIGH","clusterNotFoundResponseCode":"INTERNAL_SERVER_ERROR",
			"metadataMatch":{"filterMetadata":{"envoy.lb":{"version":"v1"}}},"upgradeConfigs":[{"upgradeType":"WebSocket"},{"upgradeType":"CONNECT","enabled":false}]`)
		if string(f.ClusterHeader) != "x-cluster" || string(f.HostRewriteHeader) != "x-host" || !f.AppendXForwardedHost || f.Priority != 1 || f.ClusterNotFoundCode != 500 ||
			!reflect.DeepEqual(f.Upgrades, map[string]bool{"websocket": true, "connect": false}) {
			t.Errorf("%+v", f)
		}
	})
	t.Run("VS-047 retries of the route, of the virtual host, none", func(t *testing.T) {
		f := forward(t, `"cluster":"c","retryPolicy":{"retryOn":"connect-failure,refused-stream, unavailable,cancelled,retriable-status-codes,never-heard","numRetries":10,
			"retryHostPredicate":[{"name":"envoy.retry_host_predicates.previous_hosts"}],"hostSelectionRetryMaxAttempts":"5","retriableStatusCodes":[503],
			"perTryTimeout":"2s","retryPriority":{"name":"envoy.retry_priorities.previous_priorities","typedConfig":
				{"@type":"type.googleapis.com/envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig","updateFrequency":2}},"retriableHeaders":[{"name":"X-Again"}]}`)
		want := &route.RetryPolicy{
			On:      route.OnConnectFailure | route.OnRefusedStream | route.OnGRPCUnavailable | route.OnGRPCCancelled | route.OnRetriableStatusCodes,
			Retries: 10, HostAttempts: 5, StatusCodes: []int{503}, PerTry: 2 * time.Second, PreviousHosts: true, PreviousPriorities: 2,
			BackOffBase: 25 * time.Millisecond, BackOffMax: 250 * time.Millisecond, RetriableHeaders: f.Retry.RetriableHeaders,
		}
		if !reflect.DeepEqual(f.Retry, want) {
			t.Errorf("got %+v, want %+v", f.Retry, want)
		}
		again := http.Response{Status: 200}
		again.Headers.Add([]byte("x-again"), nil)
		if !f.Retry.RetriableHeaders[0].MatchResponse(&again) || f.Retry.RetriableHeaders[0].MatchResponse(&http.Response{Status: 200}) {
			t.Error("retriable_headers do not decide by x-again")
		}
		inherited := only(t, compile(t, `{"virtualHosts":[{"name":"v","domains":["*"],"retryPolicy":{"retryOn":"5xx"},"routes":[`+to("r", `{"prefix":"/"}`)+`]}]}`)).Forward.Retry
		if inherited == nil || inherited.On != route.On5xx || inherited.Retries != 1 {
			t.Errorf("inherited %+v", inherited)
		}
	})
	t.Run("VS-052 back-off", func(t *testing.T) {
		f := forward(t, `"cluster":"c","retryPolicy":{"retryOn":"5xx","numRetries":0,"retryBackOff":{"baseInterval":"0.1s"}}`)
		if f.Retry.Retries != 0 || f.Retry.BackOffBase != 100*time.Millisecond || f.Retry.BackOffMax != time.Second {
			t.Errorf("%+v", f.Retry)
		}
	})
	t.Run("mirrors of the most specific level", func(t *testing.T) {
		f := forward(t, `"cluster":"c","requestMirrorPolicies":[{"cluster":"m","traceSampled":false,"runtimeFraction":{"defaultValue":{"numerator":250,"denominator":"TEN_THOUSAND"}}},{"cluster":"n","disableShadowHostSuffixAppend":true}]`)
		var none *runtime.Values
		want := []route.Mirror{
			{Cluster: "m", Share: none.ShareOf("", match.Fraction{Numerator: 250, Denominator: 10_000})},
			{Cluster: "n", Share: none.ShareOf("", match.Fraction{Numerator: 1, Denominator: 1}), NoShadowSuffix: true, TraceSampled: true},
		}
		if !reflect.DeepEqual(f.Mirrors, want) {
			t.Errorf("%+v, want %+v", f.Mirrors, want)
		}
		table := compile(t, `{"requestMirrorPolicies":[{"cluster":"table"}],"virtualHosts":[{"name":"v","domains":["*"],"requestMirrorPolicies":[{"cluster":"host"}],"routes":[`+to("r", `{"prefix":"/"}`)+`]}]}`)
		if m := only(t, table).Forward.Mirrors; len(m) != 1 || m[0].Cluster != "host" {
			t.Errorf("%+v", m)
		}
	})
	t.Run("hash policies", func(t *testing.T) {
		f := forward(t, `"cluster":"c","hashPolicy":[{"header":{"headerName":"X-User"},"terminal":true},{"cookie":{"name":"c","ttl":"0s","path":"/"}},{"connectionProperties":{"sourceIp":true}},{"queryParameter":{"name":"q"}}]`)
		want := []route.HashPolicy{{Header: "x-user", Terminal: true}, {Cookie: "c", CookieTTLSet: true, CookiePath: "/"}, {SourceIP: true}, {Query: "q"}}
		if !reflect.DeepEqual(f.HashPolicy, want) {
			t.Errorf("%+v, want %+v", f.HashPolicy, want)
		}
	})
	t.Run("request buffer limits", func(t *testing.T) {
		table := compile(t, `{"virtualHosts":[{"name":"v","domains":["*"],"perRequestBufferLimitBytes":7,"routes":[`+to("r", `{"prefix":"/"}`)+`]}]}`)
		if n := only(t, table).Forward.MaxRequestBytes; n != 7 {
			t.Errorf("%d of the virtual host, want 7", n)
		}
		if n := only(t, routes(t, `{"match":{"prefix":"/"},"perRequestBufferLimitBytes":5,"route":{"cluster":"c"}}`)).Forward.MaxRequestBytes; n != 5 {
			t.Errorf("%d of the route, want 5", n)
		}
	})
}

func TestWeights(t *testing.T) {
	t.Run("VS-029 weights are shares of their sum, zero gets none", func(t *testing.T) {
		f := forward(t, `"weightedClusters":{"clusters":[{"name":"a","weight":1},{"name":"none","weight":0},{"name":"b","weight":3,"hostRewriteLiteral":"b.test"}]}`)
		counts := map[string]int{}
		for random := range uint64(4000) {
			counts[f.Pick(random).Name]++
		}
		if !reflect.DeepEqual(counts, map[string]int{"a": 1000, "b": 3000}) || f.Pick(3).HostRewrite != "b.test" || f.TotalWeight != 4 {
			t.Errorf("%v of %d", counts, f.TotalWeight)
		}
	})
	t.Run("WI-028 the target takes the cluster that the random number chose", func(t *testing.T) {
		table := routes(t, action(`"route":{"weightedClusters":{"clusters":[{"name":"a","weight":1},{"name":"b","weight":1}]}}`))
		counts := map[string]int{}
		for random := range uint64(100) {
			target := route.By(table, &route.Facts{Request: request("GET a/"), Random: random}, nil)
			counts[target.Cluster]++
		}
		if counts["a"] != 50 || counts["b"] != 50 {
			t.Errorf("%v", counts)
		}
	})
}

func TestRewrite(t *testing.T) {
	for _, c := range []struct{ id, match, fields, in, want string }{
		{"VS-043 prefix", `{"prefix":"/foo"}`, `"prefixRewrite":"/"`, "/foo/bar?q=1", "//bar?q=1"},
		{"VS-043 prefix with its slash", `{"prefix":"/foo/"}`, `"prefixRewrite":"/"`, "/foo/bar", "/bar"},
		{"VS-043 exact replaces all but the query", `{"path":"/foo"}`, `"prefixRewrite":"/x"`, "/foo?q", "/x?q"},
		{"VS-043 prefix in another case", `{"prefix":"/FOO","caseSensitive":false}`, `"prefixRewrite":"/x"`, "/foo1", "/x1"},
		{"path segments", `{"pathSeparatedPrefix":"/foo"}`, `"prefixRewrite":"/x"`, "/foo/bar", "/x/bar"},
		{"regex match, prefix rewrite", `{"safeRegex":{"regex":"/foo.*"}}`, `"prefixRewrite":"/x"`, "/foo/bar?q", "/x?q"},
		{"VS-045 regex, all matches, groups, not the query", `{"prefix":"/"}`, `"regexRewrite":{"pattern":{"regex":"/([a-z]+)"},"substitution":"/<\\1>"}`, "/a/b?c=/d", "/<a>/<b>?c=/d"},
		{"none", `{"prefix":"/"}`, `"timeout":"1s"`, "/a?b", "/a?b"},
	} {
		t.Run(c.id, func(t *testing.T) {
			table := routes(t, `{"name":"it","match":`+c.match+`,"route":{"cluster":"c",`+c.fields+`}}`)
			d := table.Select(&route.Facts{Request: request("GET a" + c.in)}, nil)
			if d.Route == nil {
				t.Fatal("no route")
			}
			if got := string(d.Route.AppendPath([]byte(">"), &http.Stream{Request: http.Request{Path: []byte(c.in)}})); got != ">"+c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
	t.Run("VS-044 authority", func(t *testing.T) {
		if f := forward(t, `"cluster":"c","hostRewriteLiteral":"b.test"`); f.HostRewrite != "b.test" {
			t.Errorf("%+v", f)
		}
		if f := forward(t, `"cluster":"c","autoHostRewrite":true`); !f.AutoHostRewrite {
			t.Errorf("%+v", f)
		}
	})
}

func TestRedirect(t *testing.T) {
	for _, c := range []struct {
		id, match, fields, request, scheme, want string
		status                                   int
	}{
		{"VS-033 redirect uri", `{"prefix":"/"}`, `"pathRedirect":"/new"`, "GET a.test:8080/old?q=1", "http", "http://a.test:8080/new?q=1", 301},
		{"redirect uri with a query of its own", `{"prefix":"/"}`, `"pathRedirect":"/new?x"`, "GET a.test/old?q=1", "http", "http://a.test/new?x", 301},
		{"VS-034 redirect authority", `{"prefix":"/"}`, `"hostRedirect":"b.test"`, "GET a.test:8080/p?q", "http", "http://b.test/p?q", 301},
		{"VS-035 redirect port", `{"prefix":"/"}`, `"portRedirect":8443`, "GET a.test:8080/p", "http", "http://a.test:8443/p", 301},
		{"VS-037 redirect scheme, default port goes", `{"prefix":"/"}`, `"schemeRedirect":"https"`, "GET a.test:80/p", "http", "https://a.test/p", 301},
		{"VS-037 redirect scheme, other port stays", `{"prefix":"/"}`, `"httpsRedirect":true`, "GET a.test:8080/p", "http", "https://a.test:8080/p", 301},
		{"redirect to http", `{"prefix":"/"}`, `"schemeRedirect":"http"`, "GET a.test:443/p", "https", "http://a.test/p", 301},
		{"VS-038 redirect code", `{"prefix":"/"}`, `"hostRedirect":"b","responseCode":"PERMANENT_REDIRECT"`, "GET a/", "http", "http://b/", 308},
		{"VS-039 redirect prefix", `{"prefix":"/old"}`, `"prefixRewrite":"/new","responseCode":"FOUND"`, "GET a/old/x?q", "http", "http://a/new/x?q", 302},
		{"redirect regex without query", `{"prefix":"/"}`, `"regexRewrite":{"pattern":{"regex":"o"},"substitution":"0"},"stripQuery":true,"responseCode":"SEE_OTHER"`, "GET a/foo?o", "http", "http://a/f00", 303},
		{"path, query stripped", `{"prefix":"/"}`, `"pathRedirect":"/n","stripQuery":true,"responseCode":"TEMPORARY_REDIRECT"`, "GET a/foo?o", "http", "http://a/n", 307},
	} {
		t.Run(c.id, func(t *testing.T) {
			r := request(c.request)
			d := routes(t, `{"match":`+c.match+`,"redirect":{`+c.fields+`}}`).Select(&route.Facts{Request: r}, nil)
			if d.Route == nil || d.Route.Redirect == nil {
				t.Fatal("no redirect")
			}
			if got := string(d.Route.AppendLocation(nil, &http.Stream{Request: *r}, c.scheme)); got != c.want || d.Route.Redirect.Status != c.status {
				t.Errorf("%d %s, want %d %s", d.Route.Redirect.Status, got, c.status, c.want)
			}
		})
	}
}

func TestDirect(t *testing.T) {
	t.Run("VS-040 direct response status", func(t *testing.T) {
		if d := only(t, routes(t, action(`"directResponse":{"status":503}`))).Direct; d.Status != 503 || len(d.Body) != 0 {
			t.Errorf("%+v", d)
		}
	})
	t.Run("VS-041 direct response body as string and bytes", func(t *testing.T) {
		for _, body := range []string{`"inlineString":"hi"`, `"inlineBytes":"aGk="`} {
			if d := only(t, routes(t, action(`"directResponse":{"status":200,"body":{`+body+`}}`))).Direct; string(d.Body) != "hi" {
				t.Errorf("%s: %q", body, d.Body)
			}
		}
	})
}

func TestRouteFacts(t *testing.T) {
	rt := only(t, routes(t, `{"name":"r","match":{"prefix":"/"},"route":{"cluster":"c"},"statPrefix":"s","decorator":{"operation":"httpbin.org:80/*"},
		"metadata":{"filterMetadata":{"istio":{"config":"/apis/x","n":1}}}}`))
	if rt.Decorator != "httpbin.org:80/*" || !reflect.DeepEqual(rt.Metadata["istio"], map[string]any{"config": "/apis/x", "n": 1.0}) {
		t.Errorf("%+v", rt)
	}
	if rt := only(t, routes(t, action(`"route":{"cluster":"c"},"decorator":{"operation":"o","propagate":false}`))); rt.Decorator != "" {
		t.Errorf("decorator %q", rt.Decorator)
	}
}

// factory compiles google.protobuf.StringValue to its bytes.
var factory = http.Factory{
	Name: "test.filter", TypeURLs: []string{"type.googleapis.com/google.protobuf.StringValue", "type.googleapis.com/inner"},
	Override: func(cfg *anypb.Any, _ http.Env) (any, error) {
		if strings.Contains(string(cfg.Value), "bad") {
			return nil, errors.New("it is bad")
		}
		return string(cfg.Value), nil
	},
}

const stringValue = `{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"x"}`

func TestPerFilter(t *testing.T) {
	compileWith := func(config string) (map[string]any, error) {
		table, err := route.Compile(read(t, `{"virtualHosts":[{"name":"v","domains":["*"],"routes":[{"match":{"prefix":"/"},"route":{"cluster":"c"},"typedPerFilterConfig":{"f":`+config+`}}]}]}`),
			route.CompileEnv{Filters: []http.Factory{factory, {Name: "strict", TypeURLs: []string{"type.googleapis.com/google.protobuf.BoolValue"}}}})
		if err != nil {
			return nil, err
		}
		return only(t, table).PerFilter, nil
	}
	wrap := func(fields string) string {
		return `{"@type":"type.googleapis.com/envoy.config.route.v3.FilterConfig",` + fields + `}`
	}
	const duration = `{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}`
	for _, c := range []struct {
		name, config string
		want         any
	}{
		{"by type", stringValue, "\n\x01x"},
		{"wrapped", wrap(`"config":` + stringValue), "\n\x01x"},
		{"disabled", wrap(`"disabled":true`), route.Disabled{}},
		{"optional and unknown", wrap(`"isOptional":true,"config":` + duration), nil},
	} {
		got, err := compileWith(c.config)
		if err != nil || got["f"] != c.want {
			t.Errorf("%s: %q, %v", c.name, got["f"], err)
		}
	}
	inStruct := `{"@type":"type.googleapis.com/xds.type.v3.TypedStruct","typeUrl":"type.googleapis.com/inner","value":{}}`
	if got, err := compileWith(inStruct); err != nil || got["f"] == nil {
		t.Errorf("in a TypedStruct: %q, %v", got["f"], err)
	}
	for want, config := range map[string]string{
		"google.protobuf.Duration: not supported": duration,
		"it is bad": strings.Replace(stringValue, `"x"`, `"bad"`, 1),
		"filter strict takes no configuration of routes": `{"@type":"type.googleapis.com/google.protobuf.BoolValue","value":true}`,
	} {
		if _, err := compileWith(config); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "typed_per_filter_config[f]") {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

// What a resource asks for and we do not have is refused by name, with its place.
func TestRefused(t *testing.T) {
	vh := func(fields string) string {
		return `{"name":"rc","virtualHosts":[{"name":"v","domains":["*"],` + fields + `}]}`
	}
	rt := func(fields string) string {
		return vh(`"routes":[{"match":{"prefix":"/ok"},"route":{"cluster":"c"}},` + action(fields) + `]`)
	}
	const place = `route configuration "rc": virtual host "v": routes[1] "r": `
	for want, config := range map[string]string{
		`route configuration "rc": internal_only_headers: not supported`:                           `{"name":"rc","internalOnlyHeaders":["a"]}`,
		`virtual host "v": matcher: matcher_type: not set`:                                         vh(`"matcher":{}`),
		`virtual host "v": rate_limits: not supported`:                                             vh(`"rateLimits":[{}]`),
		`virtual host "v": name: there are two of it`:                                              `{"virtualHosts":[{"name":"v","domains":["a"]},{"name":"v","domains":["b"]}]}`,
		`virtual host "w": domains[1]: domain "a.b" is of virtual host "v"`:                        `{"virtualHosts":[{"name":"v","domains":["A.b"]},{"name":"w","domains":["c","a.b"]}]}`,
		`virtual host "w": domains[0]: domain "*.b" is of virtual host "v"`:                        `{"virtualHosts":[{"name":"v","domains":["*.b"]},{"name":"w","domains":["*.b"]}]}`,
		`virtual host "w": domains[0]: domain "*" is of virtual host "v"`:                          `{"virtualHosts":[{"name":"v","domains":["*"]},{"name":"w","domains":["*"]}]}`,
		`Domains: value must contain at least 1`:                                                   `{"virtualHosts":[{"name":"v"}]}`,
		place + `action: not set`:                                                                  vh(`"routes":[{"match":{"prefix":"/ok"},"route":{"cluster":"c"}},{"name":"r","match":{"prefix":"/"}}]`),
		place + `tracing: not supported`:                                                           rt(`"tracing":{},"route":{"cluster":"c"}`),
		place + `filter_action: not supported`:                                                     rt(`"filterAction":{}`),
		place + `route: cluster_specifier: not set`:                                                rt(`"route":{}`),
		place + `route: cluster_specifier_plugin: not supported`:                                   rt(`"route":{"clusterSpecifierPlugin":"x"}`),
		place + `route: weighted_clusters: weights must sum up to`:                                 rt(`"route":{"weightedClusters":{"clusters":[{"name":"a","weight":0}]}}`),
		place + `route: weighted_clusters.clusters[0]: name and cluster_header: one`:               rt(`"route":{"weightedClusters":{"clusters":[{"name":"b","clusterHeader":"a","weight":1}]}}`),
		place + `route: timeout: must not be negative`:                                             rt(`"route":{"cluster":"c","timeout":"-1s"}`),
		place + `route: regex_rewrite: pattern: regex`:                                             rt(`"route":{"cluster":"c","regexRewrite":{"pattern":{"regex":"("}}}`),
		place + `route: prefix_rewrite, regex_rewrite, path_rewrite_policy and path_rewrite: only`: rt(`"route":{"cluster":"c","prefixRewrite":"/","regexRewrite":{"pattern":{"regex":"a"}}}`),
		place + `route: upgrade_configs[1]: there are two for "a"`:                                 rt(`"route":{"cluster":"c","upgradeConfigs":[{"upgradeType":"a"},{"upgradeType":"A"}]}`),
		place + `route: retry_policy: retry_host_predicate[0] "x": not`:                            rt(`"route":{"cluster":"c","retryPolicy":{"retryHostPredicate":[{"name":"x"}]}}`),
		place + `route: retry_policy: retry_priority "x": not supported`:                           rt(`"route":{"cluster":"c","retryPolicy":{"retryPriority":{"name":"x"}}}`),
		place + `route: retry_policy: retry_back_off: max_interval`:                                rt(`"route":{"cluster":"c","retryPolicy":{"retryBackOff":{"baseInterval":"1s","maxInterval":"0.5s"}}}`),
		place + `route: cors: not supported`:                                                       rt(`"route":{"cluster":"c","cors":{}}`),
		place + `direct_response: status: must be 200–599, got 600`:                                rt(`"directResponse":{"status":600}`),
		place + `direct_response: body: 4097 bytes, at most 4096`:                                  rt(`"directResponse":{"status":200,"body":{"inlineString":"` + strings.Repeat("x", 4097) + `"}}`),
		`routes[0] "m": match: filter_state[0]: matcher: not set`:                                  vh(`"routes":[` + to("m", `{"prefix":"/","filterState":[{"key":"a"}]}`) + `]`),
		`routes[0] "m": match: path_specifier: not set`:                                            vh(`"routes":[` + to("m", `{}`) + `]`),
		`routes[0] "m": match: path_match_policy "x": not supported`:                               vh(`"routes":[` + to("m", `{"pathMatchPolicy":{"name":"x"}}`) + `]`),
		`routes[0] "m": match: path: safe_regex: regex "("`:                                        vh(`"routes":[` + to("m", `{"safeRegex":{"regex":"("}}`) + `]`),
		`routes[0] "m": match: headers[1]: a: custom "x": not supported`:                           vh(`"routes":[` + to("m", `{"prefix":"/","headers":[{"name":"b"},{"name":"a","stringMatch":{"custom":{"name":"x"}}}]}`) + `]`),
		`routes[0] "m": match: query_parameters[0]: q: string_match:`:                              vh(`"routes":[` + to("m", `{"prefix":"/","queryParameters":[{"name":"q","stringMatch":{}}]}`) + `]`),
		`request_headers_to_add[0] "a": value: position 0: %NOPE%: unknown`:                        vh(`"requestHeadersToAdd":[{"header":{"key":"a","value":"%NOPE%"}}]`),
		`request_headers_to_add[0] "Host": pseudo headers and host`:                                vh(`"requestHeadersToAdd":[{"header":{"key":"Host","value":"x"}}]`),
		`response_headers_to_remove[0]: pseudo headers and host`:                                   vh(`"responseHeadersToRemove":[":status"]`),
		`append and append_action: only one`:                                                       vh(`"requestHeadersToAdd":[{"header":{"key":"a","value":"x"},"append":true,"appendAction":"ADD_IF_ABSENT"}]`),
		`unknown cluster 'c'`:                                                                      `{"validateClusters":true,"virtualHosts":[{"name":"v","domains":["*"],"routes":[` + to("c", `{"prefix":"/"}`) + `]}]}`,
	} {
		_, err := route.Compile(read(t, config), route.CompileEnv{HasCluster: func(name string) bool { return false }})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\nerror %v\nwant  %s", config, err, want)
		}
	}
}

func TestType(t *testing.T) {
	body, err := anypb.New(read(t, `{"name":"r"}`))
	if err != nil {
		t.Fatal(err)
	}
	typ := route.Type(route.CompileEnv{})
	if table, err := typ.Decode("r", body); err != nil || table.Name != "r" || typ.URL != body.TypeUrl {
		t.Errorf("%+v, %v", table, err)
	}
	if _, err := typ.Decode("r", &anypb.Any{TypeUrl: body.TypeUrl, Value: []byte{0xff}}); err == nil {
		t.Error("broken bytes are accepted")
	}
}
