package kube

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/test/material"
)

// texts is the configuration of every case of the whole mesh and of the files that globs
// below the acceptance material match, by name.
func texts(t *testing.T, globs ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	cases, err := filepath.Glob("../../test/cases/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	variable := regexp.MustCompile(`\$\{[a-z_0-9]+\}`)
	for _, path := range cases {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, f := range archive.Files {
			if strings.HasPrefix(f.Name, "config/") {
				text.WriteString(variable.ReplaceAllString(string(f.Data), "8080") + "\n---\n")
			}
		}
		all[filepath.Base(path)] = text.String()
	}
	for _, path := range sharedFiles(globs) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		folder := filepath.Dir(path)
		if base := filepath.Base(folder); base == "input" || base == "networking" {
			folder = filepath.Dir(folder)
		}
		name := filepath.Base(folder)
		all[name] += string(text) + "\n---\n"
	}
	return all
}

// sharedFiles are files of the acceptance material, none where that is not present.
func sharedFiles(globs []string) []string {
	var all []string
	for _, glob := range globs {
		files, _ := filepath.Glob(filepath.Join(material.Dir(), glob))
		all = append(all, files...)
	}
	return all
}

// timeless is a set without creation times: an API server gives its own.
func timeless(objects []*config.Config) *config.Set {
	var all []*config.Config
	for _, o := range objects {
		o := *o
		o.CreationTime, o.Source = time.Time{}, config.Source{File: "any"}
		all = append(all, &o)
	}
	return config.NewSet(1, all)
}

// resources is all that a gateway and a sidecar get for a set of objects, as JSON by
// proxy, type and name.
func resources(t *testing.T, set *config.Set) map[string]string {
	t.Helper()
	snapshot := mesh.Build(set, mesh.Options{})
	out := map[string]string{}
	for id, labels := range map[string]map[string]any{
		"router~10.1.1.1~ingress.istio-system~istio-system.svc.cluster.local": {"istio": "ingressgateway", "app": "istio-ingressgateway"},
		"sidecar~10.1.1.2~web.default~default.svc.cluster.local":              {"app": "web"},
	} {
		metadata, err := structpb.NewStruct(map[string]any{"LABELS": labels})
		if err != nil {
			t.Fatal(err)
		}
		proxy, err := mesh.ParseProxy(&corepb.Node{Id: id, Metadata: metadata})
		if err != nil {
			t.Fatal(err)
		}
		scope := snapshot.Scope(proxy)
		put := func(kind, name string, m proto.Message) {
			text, err := protojson.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			var plain any
			if err := json.Unmarshal(text, &plain); err != nil { // protojson's spaces are random
				t.Fatal(err)
			}
			text, _ = json.Marshal(plain)
			out[string(proxy.Type)+" "+kind+" "+name] = string(text)
		}
		for _, c := range compile.Clusters(snapshot, scope, proxy) {
			put("cluster", c.Name, envoy.Cluster(c))
			if c.Discovery == ir.EDS {
				put("endpoints", c.Name, envoy.Assignment(*compile.Endpoints(snapshot, scope, proxy, c.Name)))
			}
		}
		for _, l := range compile.Listeners(snapshot, scope, proxy) {
			put("listener", l.Name, envoy.Listener(l))
		}
		for _, r := range compile.Routes(snapshot, scope, proxy) {
			put("routes", r.Name, envoy.RouteConfiguration(*r))
		}
	}
	return out
}

// same compares what proxies get.
func same(t *testing.T, files, api *config.Set) {
	t.Helper()
	want, got := resources(t, files), resources(t, api)
	for name := range maps.Keys(want) {
		if want[name] != got[name] {
			t.Errorf("%s: from files %s\nfrom the API %s", name, want[name], got[name])
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got))); diff != "" {
		t.Errorf("names (-files +API):\n%s", diff)
	}
}

func TestTheAPIGivesWhatFilesGive(t *testing.T) {
	compared := 0
	for name, text := range texts(t, "golden/*/input/*.yaml", "scenarios/*/*.yaml", "samples/*/networking/*.yaml") {
		t.Run(name, func(t *testing.T) {
			objects, _ := config.DecodeYAML(name, []byte(text))
			documents, _ := config.Documents(name, []byte(text))
			compared += len(objects)
			a := kubetest.New(t)
			for _, d := range documents {
				if slices.ContainsFunc(objects, func(o *config.Config) bool {
					return o.Kind == d.Object.Kind && o.Name == d.Object.Name && o.Source.Line == d.Source.Line
				}) {
					a.Store(d)
				}
			}
			r := of(t, a.Start())
			if st := r.Status(); slices.ContainsFunc(st.Problems, func(p config.Problem) bool { return p.Severity == config.Error }) {
				t.Errorf("problems %v", st.Problems)
			}
			files, api := timeless(objects), timeless(r.store.Current().All())
			if diff := cmp.Diff(keys(files), keys(api)); diff != "" {
				t.Fatalf("objects (-files +API):\n%s", diff)
			}
			for _, o := range files.All() {
				if _, istio := o.Spec.(proto.Message); istio && !o.Equal(api.Get(o.Kind, o.Namespace, o.Name)) {
					o.APIVersion = api.Get(o.Kind, o.Namespace, o.Name).APIVersion // the API serves all in one
					if !o.Equal(api.Get(o.Kind, o.Namespace, o.Name)) {
						t.Errorf("%s: from files %+v, from the API %+v", o.Key, o, api.Get(o.Kind, o.Namespace, o.Name))
					}
				}
			}
			same(t, files, api)
		})
	}
	if compared < 100 {
		t.Errorf("only %d objects were compared", compared)
	}
}

// A real server has rules and defaults of its own: what it refuses is left out of both,
// and Services have the addresses that it gave them.
func TestTheRealAPIServerGivesWhatFilesGive(t *testing.T) {
	s := realAPI(t, true)
	taken, refused := 0, []string{}
	for name, text := range texts(t, "scenarios/*/*.yaml", "samples/*/networking/*.yaml") {
		t.Run(name, func(t *testing.T) {
			objects, _ := config.DecodeYAML(name, []byte(text))
			documents, _ := config.Documents(name, []byte(text))
			for _, d := range documents {
				if d.Object.Kind == config.Namespace {
					s.try(d)
				} else {
					s.try(config.Document{APIVersion: "v1", Object: config.Key{Kind: config.Namespace, Name: namespaceOf(d)},
						JSON: []byte(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"` + namespaceOf(d) + `"}}`)})
				}
			}
			var stored []config.Document
			objects = slices.DeleteFunc(objects, func(o *config.Config) bool {
				i := slices.IndexFunc(documents, func(d config.Document) bool {
					return o.Kind == d.Object.Kind && o.Name == d.Object.Name && o.Source.Line == d.Source.Line
				})
				if o.Kind == config.Namespace || i < 0 {
					return o.Kind != config.Namespace
				}
				ok, why := s.try(documents[i])
				if !ok {
					refused = append(refused, o.Key.String()+": "+why)
				} else {
					taken++
					stored = append(stored, documents[i])
				}
				return !ok
			})
			r := run(t, Options{Connection: Connection{Socket: s.Socket}})
			r.waitSynced()
			set := r.store.Current()
			for _, o := range objects {
				if svc, isService := o.Spec.(*corev1.Service); isService && set.Get(o.Kind, o.Namespace, o.Name) != nil {
					from := set.Get(o.Kind, o.Namespace, o.Name).Spec.(*corev1.Service)
					svc.Spec.ClusterIP, svc.Spec.ClusterIPs = from.Spec.ClusterIP, from.Spec.ClusterIPs
				}
			}
			var mine []*config.Config // without what every server has of its own
			for _, o := range set.All() {
				if slices.ContainsFunc(objects, func(f *config.Config) bool { return f.Key == o.Key }) {
					mine = append(mine, o)
				}
			}
			same(t, timeless(objects), timeless(mine))
			for _, d := range stored {
				if d.Object.Kind != config.Namespace {
					s.delete(pathTo(d))
				}
			}
			r.end()
		})
	}
	t.Logf("%d objects stored; refused: %s", taken, strings.Join(refused, "\n"))
	if taken < 10*len(refused) || taken < 50 {
		t.Errorf("only %d objects were stored, %d refused", taken, len(refused))
	}
}
