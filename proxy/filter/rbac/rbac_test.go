package rbac_test

import (
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/rbac"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

func config(t *testing.T, kind, text string) *anypb.Any {
	t.Helper()
	var a anypb.Any
	if err := protojson.Unmarshal([]byte(`{"@type":"type.googleapis.com/envoy.extensions.filters.http.rbac.v3.`+kind+`",`+text+`}`), &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

const (
	byPath = `{"policies":{"p":{"permissions":[{"urlPath":{"path":{"prefix":"/ok"}}}],"principals":[{"any":true}]}}}`
	env    = "http.main."
)

// TestDecisions: SX-016 OB-021 what is told of a request, by answer, metadata and stats.
func TestDecisions(t *testing.T) {
	for _, c := range []struct {
		name, filter, route, path string
		denied                    string
		metadata                  map[string]any
		stat                      string
	}{
		{"allowed", `"rules":` + byPath, "", "/ok", "", map[string]any{"enforced_engine_result": "allowed", "enforced_effective_policy_id": "p"}, "rbac.allowed"},
		{"denied", `"rules":` + byPath, "", "/", "none", map[string]any{"enforced_engine_result": "denied"}, "rbac.denied"},
		{"with prefix", `"rulesStatPrefix":"a.","trackPerRuleStats":true,"rules":` + byPath, "", "/ok", "", map[string]any{"a.enforced_engine_result": "allowed", "a.enforced_effective_policy_id": "p"}, "rbac.a.policy.p.allowed"},
		{"shadow", `"shadowRulesStatPrefix":"s","shadowRules":` + byPath, "", "/", "", map[string]any{"sshadow_engine_result": "denied"}, "rbac.s.shadow_denied"},
		{"of a route", `"rulesStatPrefix":"a","rules":{}`, `"rbac":{"rules":` + byPath + `}`, "/ok", "", map[string]any{"aenforced_engine_result": "allowed", "aenforced_effective_policy_id": "p"}, "rbac.a.allowed"},
		{"of a route with a prefix", `"rules":{}`, `"rbac":{"rulesStatPrefix":"r","rules":` + byPath + `}`, "/", "none", map[string]any{"renforced_engine_result": "denied"}, "rbac.denied"},
		{"both", `"rules":` + byPath + `,"shadowRules":{"action":"DENY"}`, "", "/ok", "", map[string]any{"enforced_engine_result": "allowed", "enforced_effective_policy_id": "p", "shadow_engine_result": "allowed"}, "rbac.shadow_allowed"},
	} {
		store := stats.NewStore()
		scope := store.Scope(env)
		f, err := rbac.Factory().New(config(t, "RBAC", c.filter), http.Env{Stats: scope})
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		var s http.Stream
		s.Begin(nil, 1, nil)
		if c.route != "" {
			override, err := rbac.Factory().Override(config(t, "RBACPerRoute", c.route), http.Env{Stats: scope})
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			s.SetOverrides(1, func(http.Slot) any { return override })
		}
		s.Request.Path = []byte(c.path)
		verdict := f.OnRequest(&s, 0)
		reply, replied := s.TakeReply()
		if replied != (c.denied != "") || replied != (verdict == http.Replied) {
			t.Errorf("%s: verdict %v, reply %+v", c.name, verdict, reply)
		}
		if replied && (reply.Status != 403 || string(reply.Body) != "RBAC: access denied" || reply.Details != "rbac_access_denied_matched_policy["+c.denied+"]") {
			t.Errorf("%s: %+v", c.name, reply)
		}
		if got := s.Info.Metadata[rbac.Name]; !reflect.DeepEqual(got, c.metadata) {
			t.Errorf("%s: metadata %v, want %v", c.name, got, c.metadata)
		}
		if n := scope.Counter(c.stat).Value(); n != 1 {
			t.Errorf("%s: %s is %d", c.name, c.stat, n)
		}
	}
}

// TestLog: rules with LOG deny nothing and say what to log.
func TestLog(t *testing.T) {
	f, err := rbac.Factory().New(config(t, "RBAC", `"rules":`+strings.Replace(byPath, "{", `{"action":"LOG",`, 1)), http.Env{Stats: stats.NewStore().Scope(env)})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"/ok": true, "/": false} {
		var s http.Stream
		s.Request.Path = []byte(path)
		if f.OnRequest(&s, 0) != http.Continue || s.Info.Metadata["envoy.common"]["access_log_hint"] != want {
			t.Errorf("%s: %v", path, s.Info.Metadata)
		}
	}
}

func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		`"matcher":{}`: "matcher: not supported", `"shadowMatcher":{}`: "shadow_matcher: not supported",
		`"rules":{"policies":{"p":{}}}`:       `rules.policies["p"].permissions: must not be empty`,
		`"shadowRules":{"policies":{"p":{}}}`: `shadow_rules.policies["p"].permissions: must not be empty`,
	} {
		if _, err := rbac.Factory().New(config(t, "RBAC", text), http.Env{Stats: stats.NewStore().Scope(env)}); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
		if _, err := rbac.Factory().Override(config(t, "RBACPerRoute", `"rbac":{`+text+`}`), http.Env{}); err == nil || err.Error() != "rbac."+want {
			t.Errorf("of a route, %s: %v", text, err)
		}
	}
}
