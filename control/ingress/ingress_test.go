package ingress_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ingress"
	"github.com/lateen-mesh/lateen/test/material"
)

func setOf(t *testing.T, text string) *config.Set {
	t.Helper()
	objects, problems := config.DecodeYAML("test.yaml", []byte(text))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	return config.NewSet(1, objects)
}

func meshOf(mode meshconfig.MeshConfig_IngressControllerMode) *meshconfig.MeshConfig {
	mc := config.DefaultMeshConfig()
	mc.IngressControllerMode = mode
	return mc
}

// The objects that the original makes of the same Ingresses.
func TestObjectsOfTheOriginal(t *testing.T) {
	dir := material.Path(t, "data", "gatewayapi", "ingress")
	files, err := filepath.Glob(filepath.Join(dir, "*.golden.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases in %s: %v", dir, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".golden.yaml")
		t.Run("KC-003 "+name, func(t *testing.T) {
			input, err := os.ReadFile(filepath.Join(dir, name+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			golden, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := ingress.Objects(setOf(t, string(input)), meshOf(meshconfig.MeshConfig_DEFAULT), "mydomain")
			for _, o := range got {
				o.Source = config.Source{}
			}
			if diff := cmp.Diff(sorted(t, string(golden)), byKey(got), protocmp.Transform()); diff != "" {
				t.Errorf("(-original +ours):\n%s", diff)
			}
		})
	}
}

func sorted(t *testing.T, text string) []*config.Config {
	all := setOf(t, text).All()
	for _, o := range all {
		o.Source = config.Source{}
	}
	return byKey(all)
}

func byKey(all []*config.Config) []*config.Config {
	slices.SortFunc(all, func(a, b *config.Config) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return all
}

const classes = `
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: ours}
spec: {controller: istio.io/ingress-controller}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: another}
spec: {controller: example.com/other}
---
`

// ingressOf is an Ingress with one more line in its metadata and in its spec.
func ingressOf(metadata, spec string) string {
	return `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: shop
  namespace: default
  ` + metadata + `
spec:
  ` + spec + `
  defaultBackend: {service: {name: shop, port: {number: 80}}}
`
}

func TestClass(t *testing.T) {
	const annotation = "annotations: {kubernetes.io/ingress.class: "
	off, strict, byDefault := meshconfig.MeshConfig_OFF, meshconfig.MeshConfig_STRICT, meshconfig.MeshConfig_DEFAULT
	for _, c := range []struct {
		name           string
		mode           meshconfig.MeshConfig_IngressControllerMode
		class          string // of the mesh
		metadata, spec string
		ours           bool
	}{
		{"AN-022 KC-001 annotation", strict, "istio", annotation + "istio}", "", true},
		{"KC-001 annotation of another", strict, "istio", annotation + "nginx}", "", false},
		{"KC-001 annotation before class", strict, "istio", annotation + "nginx}", "ingressClassName: ours", false},
		{"KC-002 class", strict, "istio", "", "ingressClassName: ours", true},
		{"KC-002 class of another", strict, "istio", "", "ingressClassName: another", false},
		{"KC-002 class that is not there", byDefault, "istio", "", "ingressClassName: nobody", false},
		{"MC-007 ingressClass", strict, "edge", annotation + "edge}", "", true},
		{"MC-007 not the class of the mesh", strict, "edge", annotation + "istio}", "", false},
		{"MC-009 strict without class", strict, "istio", "", "", false},
		{"MC-009 default without class", byDefault, "istio", "", "", true},
		{"MC-009 default with another", byDefault, "istio", annotation + "nginx}", "", false},
		{"MC-009 off", off, "istio", annotation + "istio}", "", false},
		{"MC-009 off with class", off, "istio", "", "ingressClassName: ours", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			mc := meshOf(c.mode)
			mc.IngressClass = c.class
			objects, _ := ingress.Objects(setOf(t, classes+ingressOf(c.metadata, c.spec)), mc, "cluster.local")
			if got := len(objects) > 0; got != c.ours {
				t.Errorf("ours: %v, want %v", got, c.ours)
			}
		})
	}
}

func TestSelector(t *testing.T) {
	for _, c := range []struct{ name, service, selector, want string }{
		{"MC-008 default", "istio-ingressgateway", "ingressgateway", "ingressgateway"},
		{"MC-008 selector", "istio-ingressgateway", "edge", "edge"},
		{"MC-008 selector before service", "front", "edge", "edge"},
		{"MC-008 service", "front", "", "front"},
		{"MC-008 neither", "", "", "ingressgateway"},
	} {
		t.Run(c.name, func(t *testing.T) {
			mc := meshOf(meshconfig.MeshConfig_DEFAULT)
			mc.IngressService, mc.IngressSelector = c.service, c.selector
			objects, _ := ingress.Objects(setOf(t, ingressOf("", "")), mc, "cluster.local")
			want := map[string]string{"istio": c.want}
			if got := objects[0].Spec.(*networking.Gateway).Selector; !cmp.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
		})
	}
}

// What cannot be is told, and the rest is served.
func TestProblems(t *testing.T) {
	text := `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: default}
spec:
  tls: [{hosts: [a.test]}]
  rules:
  - host: empty.test
  - host: a.test
    http:
      paths:
      - {path: /gone, pathType: Exact, backend: {service: {name: gone, port: {name: web}}}}
      - {path: /bucket, pathType: Exact, backend: {resource: {kind: Bucket, name: b}}}
      - {path: /, pathType: Prefix, backend: {service: {name: shop, port: {name: web}}}}
---
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: default}
spec: {ports: [{name: web, port: 8080}]}
`
	objects, problems := ingress.Objects(setOf(t, text), meshOf(meshconfig.MeshConfig_DEFAULT), "cluster.local")
	var fields []string
	for _, p := range problems {
		fields = append(fields, p.Field)
		if p.Source.File != "test.yaml" || p.Object.Name != "shop" {
			t.Errorf("%v does not say where it is", p)
		}
	}
	want := []string{"spec.tls[0].secretName", "spec.rules[0]", "spec.rules[1].http.paths[0].backend.service.port.name", "spec.rules[1].http.paths[1].backend"}
	if diff := cmp.Diff(want, fields); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	vs := objects[1].Spec.(*networking.VirtualService)
	if len(objects) != 2 || len(vs.Http) != 1 || vs.Http[0].Route[0].Destination.Port.Number != 8080 {
		t.Errorf("made %v", objects)
	}
}

// What has not changed stays the same object, so that proxies are not told again.
func TestSameObjects(t *testing.T) {
	var translation ingress.Translation
	text, mc := ingressOf("", ""), meshOf(meshconfig.MeshConfig_DEFAULT)
	first, _ := translation.Join(setOf(t, text), mc, "cluster.local")
	second, _ := translation.Join(setOf(t, text+"\n---\n"+classes), mc, "cluster.local")
	for _, kind := range []config.Kind{config.Gateway, config.VirtualService} {
		if a, b := first.List(kind), second.List(kind); len(a) != 1 || !slices.Equal(a, b) {
			t.Errorf("%s: %v is not %v", kind, b, a)
		}
	}
	own := strings.ReplaceAll(`
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: shop-istio-autogenerated-k8s-ingress-default, namespace: istio-system}
spec: {selector: {istio: mine}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
`, "\t", " ")
	third, _ := translation.Join(setOf(t, text+"\n---\n"+own), mc, "cluster.local")
	if g := third.List(config.Gateway); len(g) != 1 || g[0].Spec.(*networking.Gateway).Selector["istio"] != "mine" {
		t.Errorf("what users have written gives way: %v", g)
	}
}
