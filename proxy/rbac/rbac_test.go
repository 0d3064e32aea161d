package rbac_test

import (
	"net/netip"
	"strings"
	"testing"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/rbac"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

func rules(t testing.TB, text string) *rbacv3.RBAC {
	t.Helper()
	var c rbacv3.RBAC
	if err := protojson.Unmarshal([]byte(text), &c); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return &c
}

// facts are of a request by mutual TLS.
func facts() rbac.Facts {
	f := rbac.Facts{
		Info: &streaminfo.Info{
			DownstreamLocal: netip.MustParseAddrPort("10.0.0.1:8080"), DownstreamDirectRemote: netip.MustParseAddrPort("127.0.0.1:1"),
			DownstreamTold: netip.MustParseAddrPort("192.0.2.1:2"), DownstreamRemote: netip.MustParseAddrPort("203.0.113.1:0"),
			ServerName: "any.test", TLSVersion: "TLSv1.3", PeerURISANs: []string{"spiffe://a/ns/x", "spiffe://a/ns/y"},
			PeerDNSSANs: []string{"peer.test"}, PeerSubject: "CN=peer",
			Metadata:    map[string]map[string]any{"jwt": {"sub": "me", "groups": []any{"a", "b"}}},
			FilterState: map[string]any{"key": "value"},
		},
		Request: &http.Request{Method: []byte("GET"), Path: []byte("/a/b?q=/c"), Authority: []byte("any.test")},
	}
	f.Request.Headers.Add([]byte("x-a"), []byte("1"))
	f.Request.Headers.Add([]byte("x-a"), []byte("2"))
	return f
}

var anything = `[{"any":true}]`

// tests are permissions ("P") and principals ("I") with what they say of facts.
var tests = []struct {
	kind, text string
	want       bool
}{
	{"P", `{"header":{"name":"x-a","stringMatch":{"exact":"2"}}}`, true},
	{"P", `{"header":{"name":":path","stringMatch":{"suffix":"/c"}}}`, true},
	{"P", `{"urlPath":{"path":{"exact":"/a/b"}}}`, true},
	{"P", `{"urlPath":{"path":{"suffix":"/c"}}}`, false},
	{"P", `{"uriTemplate":{"name":"x","typedConfig":{"@type":"type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig","pathTemplate":"/a/{x}"}}}`, true},
	{"P", `{"destinationIp":{"addressPrefix":"10.0.0.0","prefixLen":24}}`, true},
	{"P", `{"destinationPort":8080}`, true},
	{"P", `{"destinationPort":0}`, false},
	{"P", `{"destinationPortRange":{"start":8080,"end":8081}}`, true},
	{"P", `{"destinationPortRange":{"start":8079,"end":8080}}`, false},
	{"P", `{"requestedServerName":{"exact":"any.test"}}`, true},
	{"P", `{"metadata":{"filter":"jwt","path":[{"key":"groups"}],"value":{"listMatch":{"oneOf":{"stringMatch":{"exact":"b"}}}}}}`, true},
	{"P", `{"sourcedMetadata":{"metadataMatcher":{"filter":"jwt","path":[{"key":"sub"}],"value":{"stringMatch":{"exact":"me"}}}}}`, true},
	{"P", `{"sourcedMetadata":{"metadataSource":"ROUTE","metadataMatcher":{"filter":"jwt","path":[{"key":"sub"}],"value":{"stringMatch":{"exact":"me"}},"invert":true}}}`, false},
	{"P", `{"andRules":{"rules":[{"any":true},{"notRule":{"destinationPort":1}}]}}`, true},
	{"P", `{"orRules":{"rules":[{"destinationPort":1},{"destinationPort":2}]}}`, false},
	{"I", `{"authenticated":{}}`, true},
	{"I", `{"authenticated":{"principalName":{"exact":"spiffe://a/ns/y"}}}`, true},
	{"I", `{"authenticated":{"principalName":{"exact":"peer.test"}}}`, true},
	{"I", `{"authenticated":{"principalName":{"exact":"CN=peer"}}}`, true},
	{"I", `{"authenticated":{"principalName":{"exact":""}}}`, false},
	{"I", `{"sourceIp":{"addressPrefix":"192.0.2.0","prefixLen":24}}`, true},
	{"I", `{"directRemoteIp":{"addressPrefix":"127.0.0.1","prefixLen":32}}`, true},
	{"I", `{"remoteIp":{"addressPrefix":"203.0.113.1","prefixLen":32}}`, true},
	{"I", `{"remoteIp":{"addressPrefix":"::","prefixLen":0}}`, false},
	{"I", `{"header":{"name":"x-b","presentMatch":true}}`, false},
	{"I", `{"urlPath":{"path":{"prefix":"/a"}}}`, true},
	{"I", `{"metadata":{"filter":"jwt","path":[{"key":"sub"}],"value":{"presentMatch":true}}}`, true},
	{"I", `{"filterState":{"key":"key","stringMatch":{"prefix":"val"}}}`, true},
	{"I", `{"filterState":{"key":"none","stringMatch":{"prefix":"val"}}}`, false},
	{"I", `{"andIds":{"ids":[{"any":true},{"notId":{"any":true}}]}}`, false},
	{"I", `{"orIds":{"ids":[{"notId":{"any":true}},{"any":true}]}}`, true},
}

// policy is the rules of one policy.
func policy(kind, text string) string {
	permissions, principals := "["+text+"]", anything
	if kind == "I" {
		permissions, principals = principals, permissions
	}
	return `{"policies":{"p":{"permissions":` + permissions + `,"principals":` + principals + `}}}`
}

// TestMatchers: SX-016 each permission and each principal, and none of them allocates.
func TestMatchers(t *testing.T) {
	f := facts()
	for _, c := range tests {
		r, err := rbac.New(rules(t, policy(c.kind, c.text)), true)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if v := r.Decide(f); v.Allowed != c.want {
			t.Errorf("%s: %v", c.text, v)
		}
		if n := testing.AllocsPerRun(100, func() { r.Decide(f) }); n > 0 {
			t.Errorf("%s allocates %v times", c.text, n)
		}
	}
}

// TestWithoutRequest: PO-021 what asks for a path misses.
func TestWithoutRequest(t *testing.T) {
	f := facts()
	f.Request = nil
	r, err := rbac.New(rules(t, policy("P", `{"urlPath":{"path":{"prefix":"/"}}}`)), false)
	if err != nil || r.Decide(f).Allowed {
		t.Errorf("%v, or allowed", err)
	}
}

// TestActions: PO-018 the first policy by name decides as the action says.
func TestActions(t *testing.T) {
	const policies = `"policies":{"b b":{"permissions":[{"any":true}],"principals":[{"any":true}]},
		"a":{"permissions":[{"urlPath":{"path":{"prefix":"/a"}}}],"principals":[{"any":true}]}}`
	for _, c := range []struct {
		action, path string
		want         rbac.Verdict
	}{
		{"ALLOW", "/a", rbac.Verdict{Allowed: true, Policy: "a", Details: "rbac_access_denied_matched_policy[a]"}},
		{"DENY", "/x", rbac.Verdict{Policy: "b b", Index: 1, Details: "rbac_access_denied_matched_policy[b_b]"}},
		{"LOG", "/x", rbac.Verdict{Allowed: true, Policy: "b b", Index: 1, Details: "rbac_access_denied_matched_policy[b_b]"}},
	} {
		r, err := rbac.New(rules(t, `{"action":"`+c.action+`",`+policies+`}`), true)
		if err != nil {
			t.Fatal(err)
		}
		f := facts()
		f.Request.Path = []byte(c.path)
		if got := r.Decide(f); got != c.want || r.Logs() != (c.action == "LOG") {
			t.Errorf("%s %s: %+v", c.action, c.path, got)
		}
	}
	for action, allowed := range map[string]bool{"ALLOW": false, "DENY": true, "LOG": true} {
		r, err := rbac.New(rules(t, `{"action":"`+action+`"}`), true)
		if err != nil {
			t.Fatal(err)
		}
		if v := r.Decide(facts()); v.Allowed != allowed || v.Details != "rbac_access_denied_matched_policy[none]" {
			t.Errorf("%s without policies: %+v", action, v)
		}
	}
}

func TestRefusals(t *testing.T) {
	deep := strings.Repeat(`{"notRule":`, 200) + `{"any":true}` + strings.Repeat(`}`, 200)
	for text, want := range map[string]string{
		policy("P", `{"any":false}`):                                       `policies["p"].permissions[0].any: must be true`,
		policy("P", `{}`):                                                  `policies["p"].permissions[0].rule: not set`,
		policy("I", `{}`):                                                  `policies["p"].principals[0].identifier: not set`,
		policy("P", `{"matcher":{"name":"m"}}`):                            `permissions[0].matcher "m": not supported`,
		policy("I", `{"custom":{"name":"c"}}`):                             `principals[0].custom "c": not supported`,
		policy("P", `{"destinationPort":65536}`):                           `destination_port: 65536 is more than 65535`,
		policy("P", `{"destinationPortRange":{"start":3,"end":3}}`):        `range start 3 cannot be greater or equal than range end 3`,
		policy("P", `{"andRules":{}}`):                                     `permissions[0].and_rules.rules: must not be empty`,
		policy("P", `{"andRules":{"rules":[{"any":true},{"any":false}]}}`): `permissions[0].and_rules.rules[1].any: must be true`,
		policy("I", `{"sourceIp":{"addressPrefix":"x"}}`):                  `principals[0].source_ip[0].address_prefix`,
		policy("P", deep):                                                  `nested deeper than 100`,
		`{"policies":{"p":{"principals":[{"any":true}]}}}`:                 `policies["p"].permissions: must not be empty`,
		`{"policies":{"p":{"condition":{"id":"1"}}}}`:                      `policies["p"].condition: not supported`,
		`{"auditLoggingOptions":{}}`:                                       `audit_logging_options: not supported`,
		`{"action":7}`:                                                     `action: 7: unknown`,
		policy("P", `{"urlPath":{"path":{"safeRegex":{"regex":"("}}}}`):    `url_path.path: safe_regex`,
		policy("I", `{"authenticated":{"principalName":{"prefix":""}}}`):   `authenticated.principal_name: prefix: must not be empty`,
		policy("P", `{"uriTemplate":{"name":"t"}}`):                        `uri_template "t"`,
		policy("I", `{"metadata":{"filter":"a"}}`):                         `metadata: filter and path: must be set`,
		policy("I", `{"filterState":{"key":"a"}}`):                         `filter_state "a": matcher: not set`,
		policy("P", `{"sourcedMetadata":{"metadataSource":5}}`):            `sourced_metadata.metadata_matcher`,
		policy("P", `{"requestedServerName":{}}`):                          `requested_server_name: match_pattern: not set`,
	} {
		_, err := rbac.New(rules(t, text), true)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.200s: %v, want %s", text, err, want)
		}
	}
	if _, err := rbac.New(rules(t, policy("P", `{"header":{"name":"x"}}`)), false); err == nil || !strings.Contains(err.Error(), "Found header(x) rule") {
		t.Errorf("a header without HTTP: %v", err)
	}
}

// FuzzNew: any rules are refused or decide, and decide alike each time.
func FuzzNew(f *testing.F) {
	for _, c := range tests {
		raw, err := proto.Marshal(rules(f, policy(c.kind, c.text)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw, []byte("/a/b?c"))
	}
	f.Fuzz(func(t *testing.T, raw, path []byte) {
		var c rbacv3.RBAC
		if proto.Unmarshal(raw, &c) != nil {
			return
		}
		for _, with := range []bool{true, false} {
			r, err := rbac.New(&c, with)
			if err != nil {
				continue
			}
			x := facts()
			if x.Request.Path = path; !with {
				x.Request = nil
			}
			v := r.Decide(x)
			if v != r.Decide(x) || v != r.Verdicts()[v.Index] {
				t.Fatalf("%v: %+v", &c, v)
			}
		}
	})
}

// BenchmarkDecide is a request that the last of ten policies allows.
func BenchmarkDecide(b *testing.B) {
	c := rules(b, policy("I", `{"authenticated":{"principalName":{"exact":"spiffe://a/ns/y"}}}`))
	for name := range strings.FieldsSeq("a b c d e f g h i") {
		c.Policies[name] = rules(b, policy("P", `{"urlPath":{"path":{"prefix":"/other"}}}`)).Policies["p"]
	}
	r, err := rbac.New(c, true)
	if err != nil {
		b.Fatal(err)
	}
	f := facts()
	b.ReportAllocs()
	for b.Loop() {
		if !r.Decide(f).Allowed {
			b.Fatal("denied")
		}
	}
}
