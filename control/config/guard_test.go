package config

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// TestGuards says what stands for a broken policy, by what is wrong with it (PO-016).
func TestGuards(t *testing.T) {
	const all = `{"rules":[{}],"action":"DENY"}`
	for _, c := range []struct {
		name      string
		kind      Kind
		head      string // of metadata
		spec      string
		want      string // "": nothing
		fromFiles bool   // an API leaves out what it does not know
	}{
		{name: "what denies denies all that it selects", kind: AuthorizationPolicy,
			spec: `selector: {matchLabels: {app: a}}, action: DENY, rules: [{to: [{operation: {ports: [http]}}]}]`,
			want: `{"selector":{"matchLabels":{"app":"a"}},"rules":[{}],"action":"DENY"}`},
		{name: "what allows allows nothing", kind: AuthorizationPolicy,
			spec: `selector: {matchLabels: {app: a}}, rules: [{to: [{operation: {ports: [http]}}]}, {}]`, want: `{"selector":{"matchLabels":{"app":"a"}}}`},
		{name: "what asks denies", kind: AuthorizationPolicy, spec: `action: CUSTOM, rules: [{}]`, want: all},
		{name: "what only tells guards nothing", kind: AuthorizationPolicy, spec: `action: AUDIT, provider: {name: x}, rules: [{}]`},
		{name: "what is tried out guards nothing", kind: AuthorizationPolicy, head: `, annotations: {istio.io/dry-run: "true"}`, spec: `action: DENY, rules: []`},
		{name: "an action of no known name denies", kind: AuthorizationPolicy, spec: `action: DENNY, rules: [{}]`, want: all},
		{name: "a field of no known name may have been the action", kind: AuthorizationPolicy, spec: `acton: DENY, rules: [{}]`, want: all, fromFiles: true},
		{name: "a selector that is none is for the namespace", kind: AuthorizationPolicy, spec: `selector: {matchLabels: {app: "a*"}}, action: DENY, rules: [{}]`, want: all},
		{name: "a selector of another form, too", kind: AuthorizationPolicy, spec: `selector: [app], action: DENY, rules: [{}]`, want: all},
		{name: "references", kind: AuthorizationPolicy, spec: `targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}], action: DENY, rules: []`,
			want: `{"targetRefs":[{"group":"gateway.networking.k8s.io","kind":"Gateway","name":"g"}],"rules":[{}],"action":"DENY"}`},
		{name: "references and selector", kind: AuthorizationPolicy,
			spec: `selector: {matchLabels: {app: a}}, targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: g}], action: DENY, rules: [{}]`, want: all},
		{name: "no body", kind: AuthorizationPolicy, spec: `[]`, want: all},

		{name: "tokens of the issuer are refused where they are expected", kind: RequestAuthentication,
			spec: `selector: {matchLabels: {app: a}}, jwtRules: [{issuer: i, jwks: broken, fromHeaders: [{name: x}], forwardOriginalToken: true}]`,
			want: `{"selector":{"matchLabels":{"app":"a"}},"jwtRules":[{"issuer":"i","jwks":"{\"keys\":[]}","fromHeaders":[{"name":"x"}]}]}`},
		{name: "of any issuer where it is not known", kind: RequestAuthentication, spec: `jwtRules: [{issuer: [i]}]`, want: `{"jwtRules":[{"jwks":"{\"keys\":[]}"}]}`},
		{name: "all requests where the places are not known", kind: RequestAuthentication, spec: `jwtRules: [{issuer: i, fromHeaders: [{name: ""}]}]`, want: `{}`},
		{name: "likewise where rules are no rules", kind: RequestAuthentication, spec: `jwtRules: [i]`, want: `{}`},
		{name: "likewise where they have another name", kind: RequestAuthentication, spec: `rules: [{issuer: i}]`, want: `{}`, fromFiles: true},
		{name: "without rules there is nothing to guard", kind: RequestAuthentication, spec: `selector: {matchLabels: {app: "a*"}}`},

		{name: "a mode of no known name is strict", kind: PeerAuthentication, spec: `selector: {matchLabels: {app: a}}, mtls: {mode: STRICKT}`,
			want: `{"selector":{"matchLabels":{"app":"a"}},"mtls":{"mode":"STRICT"}}`},
		{name: "what was to be strict is, of all whom it may be for", kind: PeerAuthentication, spec: `selector: {matchLabels: {app: "a*"}}, mtls: {mode: STRICT}`, want: `{"mtls":{"mode":"STRICT"}}`},
		{name: "what opens is left out", kind: PeerAuthentication, spec: `selector: {matchLabels: {app: "a*"}}, mtls: {mode: DISABLE}`},
		{name: "of ports those that close, or may", kind: PeerAuthentication,
			spec: `selector: {matchLabels: {app: a}}, mtls: {mode: PERMISSIVE}, portLevelMtls: {80: {mode: STRICT}, 81: {mode: DISABLE}, 82: {mode: STRICKT}}`,
			want: `{"selector":{"matchLabels":{"app":"a"}},"portLevelMtls":{"80":{"mode":"STRICT"},"82":{"mode":"STRICT"}}}`},
		{name: "ports of nobody in particular are all", kind: PeerAuthentication, spec: `portLevelMtls: {80: {mode: STRICT}}`, want: `{"mtls":{"mode":"STRICT"},"portLevelMtls":{"80":{"mode":"STRICT"}}}`},
		{name: "nothing of ports that are open", kind: PeerAuthentication, spec: `portLevelMtls: {80: {mode: DISABLE}}`},
		{name: "a port of no number is all", kind: PeerAuthentication, spec: `selector: {matchLabels: {app: a}}, portLevelMtls: {http: {mode: STRICT}}`,
			want: `{"selector":{"matchLabels":{"app":"a"}},"mtls":{"mode":"STRICT"}}`},

		{name: "other kinds open nothing", kind: DestinationRule, spec: `host: ""`},
	} {
		t.Run(c.name, func(t *testing.T) {
			spec := "{" + c.spec + "}"
			if c.spec == "[]" {
				spec = c.spec
			}
			group := istioSecurity
			if c.kind == DestinationRule {
				group = istioNetworking
			}
			text := "apiVersion: " + group + "/v1\nkind: " + string(c.kind) + "\nmetadata: {name: x, namespace: foo" + c.head + "}\nspec: " + spec + "\n"
			objects, guards, problems := DecodeGuarded("", "f.yaml", []byte(text))
			if len(objects) != 0 || !HasErrors(problems) {
				t.Fatalf("it is not broken: %v", problems)
			}
			same(t, c.want, guards, Source{"f.yaml", 1})
			if c.fromFiles {
				return
			}
			var annotations struct{ Metadata metav1.ObjectMeta }
			if err := yaml.Unmarshal([]byte(text), &annotations); err != nil {
				t.Fatal(err)
			}
			body, err := yaml.YAMLToJSON([]byte(spec))
			if err != nil {
				t.Fatal(err)
			}
			o, found := FromSpec(c.kind, "v1", &annotations.Metadata, body)
			if !HasErrors(found) {
				t.Fatalf("it is not broken in an API: %v", found)
			}
			guards = nil
			if o != nil {
				guards = []*Config{o}
			}
			same(t, c.want, guards, Source{})
		})
	}
}

func same(t *testing.T, want string, guards []*Config, from Source) {
	t.Helper()
	if want == "" {
		if len(guards) != 0 {
			t.Errorf("guards: %v", guards[0].Spec)
		}
		return
	}
	if len(guards) != 1 {
		t.Fatalf("%d guards", len(guards))
	}
	g := guards[0]
	message := g.Spec.(proto.Message)
	expected := message.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal([]byte(want), expected); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(message, expected) {
		t.Errorf("stands %v, want %v", message, expected)
	}
	if told := g.Guarded(); !g.Guard || g.Name != "x" || g.Namespace != "foo" || g.Source != from || !strings.Contains(told.Message, "never in force: ") || told.Object != g.Key {
		t.Errorf("%+v", g)
	}
}

// TestGuardsOfWhatHasNoName: policies are closed on by place where nothing else names them, or their
// version.
func TestGuardsOfWhatHasNoName(t *testing.T) {
	const spec = "\nspec: {action: DENY, rules: [{}]}\n---\n"
	_, guards, _ := DecodeGuarded("ns", "f.yaml", []byte("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy"+spec+
		"apiVersion: security.istio.io/v9\nkind: AuthorizationPolicy\nmetadata: {name: x}"+spec+
		"apiVersion: other.test/v1\nkind: AuthorizationPolicy\nmetadata: {name: y}"+spec))
	if len(guards) != 2 || guards[0].Name != "f.yaml:1" || guards[1].Name != "x" || guards[1].Namespace != "ns" {
		t.Errorf("guards %v", guards)
	}
}
