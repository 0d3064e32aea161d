package config_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/test/material"
)

// fromServer reads a document as if an API server held it.
func fromServer(t testing.TB, d config.Document) (*config.Config, []config.Problem) {
	t.Helper()
	var o struct {
		Metadata metav1.ObjectMeta
		Spec     json.RawMessage
	}
	if err := json.Unmarshal(d.JSON, &o); err != nil {
		t.Fatal(err)
	}
	if o.Metadata.Namespace == "" {
		o.Metadata.Namespace = config.DefaultNamespace
	}
	return config.FromSpec(d.Object.Kind, d.APIVersion, &o.Metadata, o.Spec)
}

func isCustom(kind config.Kind) bool {
	return slices.ContainsFunc(config.Resources(), func(r config.Resource) bool { return r.Kind == kind && r.Custom })
}

func TestFromSpec(t *testing.T) {
	t.Run("objects are the same as of files", func(t *testing.T) {
		compared := 0
		inputs, err := filepath.Glob(filepath.Join(material.Path(t, "golden"), "*", "input", "*.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range inputs {
			text := read(t, path)
			objects, _ := config.DecodeYAML(path, text)
			documents, _ := config.Documents(path, text)
			for _, d := range documents {
				i := slices.IndexFunc(objects, func(o *config.Config) bool { return o.Source == d.Source })
				if i < 0 || !isCustom(d.Object.Kind) {
					continue
				}
				compared++
				got, problems := fromServer(t, d)
				if got == nil || !proto.Equal(objects[i].Spec.(proto.Message), got.Spec.(proto.Message)) || got.Key != objects[i].Key {
					t.Errorf("%s: from a file %v, from a server %v, problems %v", objects[i].Key, objects[i], got, problems)
				}
			}
		}
		if compared < 20 {
			t.Errorf("only %d objects were compared", compared)
		}
	})
	meta := &metav1.ObjectMeta{Name: "web", Namespace: "shop"}
	for _, c := range []struct{ name, spec, field, message string }{
		{"a field that is not known is passed over", `{"hosts":["a.test"],"tomorrow":{"a":[1,null]},"http":[{"route":[{"destination":{"host":"b","new":true}}]}]}`, "", ""},
		{"both spellings of a field are one", `{"hosts":["a.test"],"tls":[{"match":[{"sni_hosts":["a.test"],"port":443}],"route":[{"destination":{"host":"b"}}]}]}`, "", ""},
		{"a rule of validation", `{"hosts":["a.test"],"http":[{"route":[{"destination":{"host":"b"},"weight":-1}]}]}`, "http[0].route[0].weight", "must"},
		{"a value of another type", `{"hosts":"a.test"}`, "hosts", "must be a list"},
		{"text that YAML would not take", `{"hosts":["a.test"],"http":[{"headers":{"request":{"set":{"` + strings.Repeat("k", 2000) + `":"\u0085\ud83d\ude00"}}},"route":[{"destination":{"host":"b"}}]}]}`, "", ""},
		{"no spec", ``, "spec", "one of http"},
		{"not JSON", `{"hosts":`, "", "JSON"},
		{"nested without end", strings.Repeat("[", 5000) + strings.Repeat("]", 5000), "", "nested"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o, problems := config.FromSpec(config.VirtualService, "networking.istio.io/v1", meta, []byte(c.spec))
			if c.field == "" && c.message == "" {
				if o == nil || len(problems) > 0 {
					t.Fatalf("problems %v", problems)
				}
				return
			}
			if o != nil || len(problems) == 0 {
				t.Fatalf("it is taken")
			}
			p := problems[0]
			if p.Object.String() != "VirtualService shop/web" || !strings.HasPrefix(p.Field, c.field) || !strings.Contains(p.Message, c.message) || p.Source != (config.Source{}) {
				t.Errorf("problem %+v", p)
			}
		})
	}
}

func TestFromObject(t *testing.T) {
	port := corev1.ServicePort{Name: "http", Port: 80}
	o, problems := config.FromObject(config.Service, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{port}}})
	if len(problems) > 0 || o.APIVersion != "v1" || o.Spec.(*corev1.Service).Spec.Ports[0].TargetPort.IntVal != 80 {
		t.Errorf("%+v, problems %v", o, problems)
	}
	o, problems = config.FromObject(config.Service, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "shop"}})
	if o != nil || len(problems) != 1 || problems[0].Error() != "Service shop/web: spec.ports: at least one port is required" {
		t.Errorf("%+v, problems %v", o, problems)
	}
	if o, problems = config.FromObject(config.Gateway, &corev1.Service{}); o != nil || len(problems) != 1 {
		t.Errorf("%+v, problems %v", o, problems)
	}
}

func TestJoin(t *testing.T) {
	t.Run("has each object once, the first's before the second's", func(t *testing.T) {
		rapid.Check(t, func(t *rapid.T) {
			draw := func(label string) *config.Set {
				var all []*config.Config
				for i := range rapid.IntRange(0, 6).Draw(t, label) {
					o := gateway(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"), fmt.Sprint(label[:1], rapid.IntRange(0, 3).Draw(t, "name")), rapid.IntRange(0, 3).Draw(t, "age"))
					if rapid.Bool().Draw(t, "shared") {
						o.Name = fmt.Sprint("both", i)
					}
					if rapid.Bool().Draw(t, "other kind") {
						o.Kind, o.Spec = config.Sidecar, &networking.Sidecar{}
					}
					all = append(all, o)
				}
				return config.NewSet(uint64(len(all)), all)
			}
			first, second := draw("first"), draw("second")
			joined, shadowed := config.Join(first, second)
			want := config.NewSet(0, slices.Concat(first.All(), second.All()))
			if got, all := joined.All(), want.All(); !slices.Equal(got, all) {
				t.Fatalf("joined %v, want %v", names(got), names(all))
			}
			if joined.Len()+len(shadowed) != first.Len()+second.Len() {
				t.Fatalf("%d and %d objects give %d and %d shadowed", first.Len(), second.Len(), joined.Len(), len(shadowed))
			}
			for _, o := range shadowed {
				if second.Get(o.Kind, o.Namespace, o.Name) != o || first.Get(o.Kind, o.Namespace, o.Name) == nil {
					t.Fatalf("%s is not shadowed", o.Key)
				}
			}
		})
	})
	t.Run("with nothing it is the other itself", func(t *testing.T) {
		one := config.NewSet(3, []*config.Config{gateway("a", "x", 0)})
		for _, empty := range []*config.Set{nil, config.NewSet(0, nil)} {
			if a, _ := config.Join(one, empty); a != one {
				t.Error("first")
			}
			if b, _ := config.Join(empty, one); b != one {
				t.Error("second")
			}
		}
	})
}

func FuzzFromSpec(f *testing.F) {
	f.Add(byte(0), []byte(`{"hosts":["a.test"],"http":[{"route":[{"destination":{"host":"b"},"weight":1e2}]}]}`))
	f.Add(byte(0), []byte(`{"hosts":null,"gateways":[],"exportTo":["."],"http":[{"timeout":"1.5s","retries":{"attempts":3}}]}`))
	var custom []config.Resource
	for _, r := range config.Resources() {
		if r.Custom {
			custom = append(custom, r)
		}
	}
	for _, text := range everyKind() {
		documents, _ := config.Documents("f", []byte(text))
		var o struct{ Spec json.RawMessage }
		if err := json.Unmarshal(documents[0].JSON, &o); err != nil {
			f.Fatal(err)
		}
		kind := slices.IndexFunc(custom, func(r config.Resource) bool { return r.Kind == documents[0].Object.Kind })
		f.Add(byte(kind), []byte(o.Spec))
	}
	f.Fuzz(func(t *testing.T, kind byte, spec []byte) {
		r := custom[int(kind)%len(custom)]
		o, problems := config.FromSpec(r.Kind, r.Group+"/"+r.Versions[0], &metav1.ObjectMeta{Name: "a", Namespace: "b"}, spec)
		if (o == nil) != config.HasErrors(problems) {
			t.Errorf("object %v with problems %v", o, problems)
		}
		if o == nil {
			return
		}
		text, err := config.Encode(o)
		if err != nil {
			t.Fatal(err)
		}
		again, problems := config.DecodeYAML("", text)
		if len(again) != 1 || !proto.Equal(again[0].Spec.(proto.Message), o.Spec.(proto.Message)) {
			t.Errorf("%s is read back as %v, problems %v", text, again, problems)
		}
	})
}

func TestPlural(t *testing.T) {
	want := map[config.Kind]string{
		config.VirtualService: "virtualservices", config.ServiceEntry: "serviceentries", config.AuthorizationPolicy: "authorizationpolicies",
		config.Gateway: "gateways", config.ProxyConfig: "proxyconfigs", config.IngressClass: "ingressclasses", config.EndpointSlice: "endpointslices",
	}
	for _, r := range config.Resources() {
		if name, ok := want[r.Kind]; ok && r.Plural() != name {
			t.Errorf("%s: %s, want %s", r.Kind, r.Plural(), name)
		}
	}
}
