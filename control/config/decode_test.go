package config_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/test/material"
)

var update = flag.Bool("update", false, "rewrite the expectations in testdata")

// Each file of testdata is a chapter of the manual: pairs of a text (NAME.yaml)
// and what comes of it (NAME.want): the objects, then the problems with hints.
func TestManual(t *testing.T) {
	chapters, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(chapters) == 0 {
		t.Fatal("no chapters", err)
	}
	for _, path := range chapters {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(ar.Files); i += 2 {
			in, want := ar.Files[i], &ar.Files[i+1]
			t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar")+"/"+strings.TrimSuffix(in.Name, ".yaml"), func(t *testing.T) {
				got := outcome(in.Name, in.Data)
				if *update {
					want.Data = []byte(got)
				}
				if diff := cmp.Diff(string(want.Data), got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
		}
		if *update {
			if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func outcome(name string, text []byte) string {
	var out strings.Builder
	objects, problems := config.DecodeYAML(name, text)
	for _, o := range objects {
		fmt.Fprintf(&out, "%s at %s\n", o.Key, o.Source)
	}
	for _, p := range problems {
		fmt.Fprintf(&out, "%s: %s\n", p.Severity, p)
		if p.Hint != "" {
			fmt.Fprintf(&out, "  hint: %s\n", p.Hint)
		}
	}
	return out.String()
}

func TestTextForms(t *testing.T) {
	const text = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata:\n  name: a\nspec:\n  hosts: [a.test]\n" +
		"  ports: [{number: 80, name: http}]\n  resolution: DNS\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\nspecs: 1\n"
	utf16 := []byte{0xff, 0xfe}
	for _, r := range text {
		utf16 = append(utf16, byte(r), 0)
	}
	for _, c := range []struct {
		name string
		text []byte
	}{
		{"as it is", []byte(text)},
		{"byte order mark", []byte("\ufeff" + text)},
		{"CRLF", []byte(strings.ReplaceAll(text, "\n", "\r\n"))},
		{"UTF-16, as PowerShell redirects", utf16},
		{"no newline at the end", []byte(strings.TrimSuffix(text, "\n"))},
	} {
		t.Run(c.name, func(t *testing.T) {
			want := "ServiceEntry default/a at f:1\nerror: f:13: ConfigMap default/m: specs: unknown field \"specs\"\n" +
				"  hint: fields here: kind, apiVersion, metadata, immutable, data, binaryData\n"
			if diff := cmp.Diff(want, outcome("f", c.text)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Where one document ends, whatever stands between two of them.
func TestDocuments(t *testing.T) {
	object := func(name string) string { return "kind: ConfigMap\napiVersion: v1\nmetadata: {name: " + name + "}\n" }
	for _, c := range []struct{ name, text, want string }{
		{"markers only", strings.Repeat("---\n", 5000), ""},
		{"empty documents", "---\n---\n# nothing\n---\n" + object("a") + "---\n\n---\n---\n" + object("b") + "---\n", "a:5 b:12"},
		{"directives", "%YAML 1.1\n# first\n---\n" + object("a") + "...\n%YAML 1.1\n---\n" + object("b"), "a:4 b:10"},
		{"content on the marker's line", "--- {kind: ConfigMap, apiVersion: v1, metadata: {name: a}}\n--- # b\n" + object("b"), "a:1 b:3"},
		{"a document that is broken", object("a") + "---\n[\n---\n" + object("b") + "---\n: {\n...\n" + object("c"), "a:1 b:7 c:13"},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects, _ := config.DecodeYAML("f", []byte(c.text))
			var got []string
			for _, o := range objects {
				got = append(got, fmt.Sprintf("%s:%d", o.Name, o.Source.Line))
			}
			if got := strings.Join(got, " "); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Small texts that would become large, or deep, are refused with a name for what
// is wrong, not with an exhausted machine.
func TestBounds(t *testing.T) {
	head := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n"
	bomb := "a: &a0 {m: x, o: x}\n"
	for i := 1; i < 40; i++ {
		bomb += fmt.Sprintf("b%d: &a%d {p: *a%d, q: *a%d}\n", i, i, i-1, i-1)
	}
	for _, c := range []struct{ name, text, want string }{
		{"aliases of aliases", head + "x-anchors:\n" + indent(bomb) + "data: {k: v}\n", "unknown field"},
		{"aliases of aliases where anything may stand", "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nspec: {hosts: [a.test]}\nstatus:\n" + indent(bomb), "document is too large"},
		{"an alias of what it is in", "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nstatus: &s {again: *s}\n", "levels deep"},
		{"deep nesting", "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: a}\nstatus: " + strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "levels deep"},
		{"deeper than the parser goes", strings.Repeat("[", 100000), "YAML syntax: "},
		{"merged into itself", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: &d {<<: *d}\n", "merged mappings are nested too deep"},
	} {
		t.Run(c.name, func(t *testing.T) {
			objects, problems := config.DecodeYAML("f", []byte(c.text))
			if len(objects) != 0 || len(problems) == 0 || !strings.Contains(problems[0].Message, c.want) {
				t.Errorf("%d objects, problems %v, want %q", len(objects), problems, c.want)
			}
			if len(problems) > 40 {
				t.Errorf("%d problems", len(problems))
			}
		})
	}
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSuffix(s, "\n"), "\n", "\n  ") + "\n"
}

func TestDefaultNamespaceIsAParameter(t *testing.T) {
	text := []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: ns, namespace: odd}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: own}\n")
	objects, problems := config.DecodeIn("shop", "f", text)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var got []string
	for _, o := range objects {
		got = append(got, o.Key.String())
	}
	if diff := cmp.Diff([]string{"ConfigMap shop/m", "Namespace ns", "ConfigMap own/m"}, got); diff != "" {
		t.Error(diff)
	}
}

// What is decoded can be encoded and decoded again.
func roundTrip(t *testing.T, o *config.Config) {
	t.Helper()
	text, err := config.Encode(o)
	if err != nil {
		t.Fatal(err)
	}
	again, problems := config.DecodeYAML("again", text)
	if len(again) != 1 || config.HasErrors(problems) {
		t.Fatalf("%s does not read back: %v\n%s", o.Key, problems, text)
	}
	want, got := *o, *again[0]
	want.Source, got.Source = config.Source{}, config.Source{}
	if diff := cmp.Diff(want, got, protocmp.Transform(), equateEmpty()); diff != "" {
		t.Errorf("%s changed on the way (-want +got):\n%s", o.Key, diff)
	}
}

// equateEmpty: an empty map and none are one thing in YAML.
func equateEmpty() cmp.Option {
	return cmp.FilterPath(func(p cmp.Path) bool { return true }, cmp.FilterValues(func(a, b any) bool {
		_, pa := a.(proto.Message)
		return !pa && isEmpty(a) && isEmpty(b)
	}, cmp.Ignore()))
}

func isEmpty(v any) bool {
	switch m := v.(type) {
	case map[string]string:
		return len(m) == 0
	case map[string][]byte:
		return len(m) == 0
	}
	return false
}

func TestSamplesRoundTrip(t *testing.T) {
	root := material.Path(t)
	n := 0
	for _, dir := range []string{"samples", "golden", "scenarios"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, e os.DirEntry, err error) error {
			if err != nil || filepath.Ext(path) != ".yaml" {
				return err
			}
			objects, _ := config.DecodeYAML(path, read(t, path))
			for _, o := range objects {
				roundTrip(t, o)
				n++
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if n < 100 {
		t.Errorf("only %d objects", n)
	}
}

// everyKind is an object of each kind that attaches itself to others or patches them.
func everyKind() []string {
	object := func(apiVersion, kind, spec string) string {
		return "apiVersion: " + apiVersion + "\nkind: " + kind + "\nmetadata: {name: a, namespace: b}\nspec: " + spec + "\n"
	}
	return []string{
		object("networking.istio.io/v1alpha3", "EnvoyFilter", "{workloadSelector: {labels: {a: b}}, priority: -1, configPatches: [{applyTo: HTTP_FILTER, match: {context: GATEWAY, proxy: {proxyVersion: '^1.*', metadata: {a: b}}, listener: {portNumber: 80, filterChain: {sni: a, filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: b}}}}}, patch: {operation: ADD, filterClass: STATS, value: {name: c, typed_config: {'@type': d, e: [1, null, 1.5]}}}}]}"),
		object("networking.istio.io/v1", "WorkloadGroup", "{metadata: {labels: {a: b}, annotations: {c: d}}, template: {ports: {http: 80}, locality: e/f/g}, probe: {periodSeconds: 3, httpGet: {port: 80, httpHeaders: [{name: a, value: b}]}}}"),
		object("networking.istio.io/v1beta1", "ProxyConfig", "{selector: {matchLabels: {a: b}}, concurrency: 2, environmentVariables: {A: b}, image: {imageType: debug}}"),
		object("security.istio.io/v1", "PeerAuthentication", "{selector: {matchLabels: {a: b}}, mtls: {mode: STRICT}, portLevelMtls: {80: {mode: DISABLE}}}"),
		object("security.istio.io/v1", "RequestAuthentication", "{targetRefs: [{kind: Service, name: a}], jwtRules: [{issuer: a, jwks: '{\"keys\":[{\"kty\":\"oct\",\"k\":\"AQ\"}]}', fromHeaders: [{name: a, prefix: 'b '}], outputClaimToHeaders: [{claim: a, header: b}], timeout: 5s}]}"),
		object("security.istio.io/v1", "AuthorizationPolicy", "{action: DENY, rules: [{from: [{source: {principals: ['*'], ipBlocks: [10.0.0.0/8]}}], to: [{operation: {paths: ['/a/{*}/{**}'], ports: ['80']}}], when: [{key: 'request.headers[a]', values: [b]}]}]}"),
		object("telemetry.istio.io/v1", "Telemetry", "{tracing: [{randomSamplingPercentage: 1.5, customTags: {a: {literal: {value: b}}}}], metrics: [{overrides: [{match: {metric: REQUEST_COUNT}, tagOverrides: {a: {operation: REMOVE}}}]}], accessLogging: [{filter: {expression: 'true'}}]}"),
		object("extensions.istio.io/v1alpha1", "WasmPlugin", "{url: 'oci://a/b', phase: AUTHN, priority: 3, pluginConfig: {a: [1]}, vmConfig: {env: [{name: A, valueFrom: HOST}]}, match: [{mode: SERVER, ports: [{number: 80}]}]}"),
		object("extensions.istio.io/v1alpha1", "TrafficExtension", "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: a}], lua: {inlineCode: 'function envoy_on_request() end'}}"),
	}
}

func TestEveryKindReadsBack(t *testing.T) {
	for _, text := range everyKind() {
		objects, problems := config.DecodeYAML("f", []byte(text))
		if len(objects) != 1 || config.HasErrors(problems) {
			t.Fatalf("%s: %v", text, problems)
		}
		t.Run(string(objects[0].Kind), func(t *testing.T) { roundTrip(t, objects[0]) })
	}
}

func FuzzDecodeYAML(f *testing.F) {
	chapters, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range chapters {
		ar, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range ar.Files {
			f.Add(file.Data)
		}
	}
	for _, seed := range everyKind() {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		config.Validate("shop", "f", text)
		objects, problems := config.DecodeYAML("f", text)
		lines := 2
		for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} { // all that YAML counts
			lines += bytes.Count(text, []byte(end))
		}
		for _, p := range problems {
			if p.Source.Line < 1 || p.Source.Line > lines || p.Message == "" {
				t.Errorf("problem outside the text or without words: %#v", p)
			}
		}
		for _, o := range objects {
			roundTrip(t, o)
		}
	})
}

func BenchmarkDecodeYAML(b *testing.B) {
	var text bytes.Buffer
	for i := range 1000 {
		fmt.Fprintf(&text, "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata:\n  name: vs-%d\nspec:\n  hosts: [h%d.test]\n  http:\n  - match:\n    - uri: {prefix: /a}\n      headers: {x: {exact: y1}}\n    route:\n    - destination: {host: h%d.test, subset: v1}\n      weight: 90\n    - destination: {host: h%d.test, subset: v2}\n      weight: 10\n    timeout: 3s\n---\n", i, i, i, i)
	}
	b.ReportAllocs()
	for b.Loop() {
		if objects, problems := config.DecodeYAML("f", text.Bytes()); len(objects) != 1000 {
			b.Fatal(problems)
		}
	}
}
