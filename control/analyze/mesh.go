package analyze

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// A Mesh is everything that analyzers look at. It is filled by one goroutine and analyzed
// by one.
type Mesh struct {
	options Options
	forms   map[kind]form
	objects map[kind]map[config.Key]*object
	lacking map[kind]bool // kinds whose objects are not known

	snapshot   *mesh.Snapshot
	meshConfig *meshconfig.MeshConfig
	networks   *meshconfig.MeshNetworks
	scopes     map[string]*mesh.Scope         // what routers of a namespace see
	lists      map[kind][]*object             // sorted
	workloads  []item[*corev1.Pod]            // see pods
	selected   map[string][]item[*corev1.Pod] // workloads by selector of a gateway
}

// Options are what the objects do not say.
type Options struct {
	// Namespace is that of objects which name none; "" is config.DefaultNamespace.
	Namespace string
	// RootNamespace is that of the control plane; "" is config.DefaultRootNamespace.
	RootNamespace string
	// MeshConfig is in force in place of the one in the mesh's ConfigMap.
	MeshConfig *meshconfig.MeshConfig
	// Networks are in place of those in the mesh's ConfigMap.
	Networks *meshconfig.MeshNetworks
	// Partial says that the objects are the mesh's configuration without the cluster that it
	// is for: analyzers that compare with what runs there are left out.
	Partial bool
	// Files says that the objects are what people have written, not what runs: there is the
	// ingress gateway that an installation brings, and a Deployment stands for its pods.
	Files bool
	// ReadFile reads a file that an object names, with a bound; nil where such files are on
	// other machines.
	ReadFile func(name string) ([]byte, error)
}

// NewMesh returns a mesh without objects.
func NewMesh(o Options) *Mesh {
	if o.Namespace == "" {
		o.Namespace = config.DefaultNamespace
	}
	m := &Mesh{options: o, forms: forms(), objects: map[kind]map[config.Key]*object{}, lacking: map[kind]bool{}}
	for k, f := range m.forms {
		m.lacking[k] = o.Partial && f.core
	}
	if o.Files {
		m.AddText("", []byte(installedGateway))
	}
	return m
}

// installedGateway is what an installation has of an ingress gateway, as far as analyzers
// ask for it.
const installedGateway = `
apiVersion: v1
kind: Pod
metadata: {name: istio-ingressgateway, namespace: istio-system, labels: {app: istio-ingressgateway, istio: ingressgateway}}
spec: {containers: [{name: istio-proxy, image: proxyv2}]}
---
apiVersion: v1
kind: Service
metadata: {name: istio-ingressgateway, namespace: istio-system, labels: {app: istio-ingressgateway, istio: ingressgateway}}
spec:
  selector: {app: istio-ingressgateway, istio: ingressgateway}
  ports:
  - {name: status-port, port: 15021}
  - {name: http2, port: 80, targetPort: 80}
  - {name: http2-alternative, port: 8080, targetPort: 8080}
  - {name: https, port: 443, targetPort: 443}
  - {name: https-alternative, port: 8443, targetPort: 8443}
`

// AddText adds the objects of a YAML or JSON text, over those that there are of the same
// name. The problems are documents that cannot be read at all; objects of kinds that
// no analyzer looks at are passed over.
func (m *Mesh) AddText(name string, text []byte) []config.Problem {
	docs, unreadable := config.Documents(name, text)
	_, found := config.DecodeIn(m.options.Namespace, name, text)
	for i, d := range docs {
		o := m.read(d.JSON)
		if o == nil {
			continue
		}
		if name != "" {
			o.source, o.line = d.Source, d.Line
		}
		if o.stored != nil {
			o.stored.Source = d.Source
		}
		for _, p := range found {
			if p.Source.Line >= d.Source.Line && (i+1 == len(docs) || p.Source.Line < docs[i+1].Source.Line) {
				o.problems = append(o.problems, p)
			}
		}
		m.add(o)
	}
	return unreadable
}

// AddObject adds an object that an API server holds, as JSON, over one that there is of the
// same name. Objects of kinds that no analyzer looks at are passed over.
func (m *Mesh) AddObject(text []byte) error {
	o := m.read(text)
	if o == nil {
		return nil
	}
	if o.spec == nil && m.forms[o.kind].spec == nil {
		return fmt.Errorf("%s: cannot be read", o.Key)
	}
	if m.forms[o.kind].spec != nil { // the API server has judged the others
		_, o.problems = config.DecodeIn(m.options.Namespace, "", text)
		for i := range o.problems {
			o.problems[i].Source = config.Source{}
		}
	}
	m.add(o)
	return nil
}

// A Resource is a kind of objects that analyzers look at.
type Resource struct{ Group, Kind string }

// Resources are all of them, by group and kind.
func Resources() []Resource {
	var all []Resource
	for _, k := range sortedKeys(forms()) {
		group, name, _ := strings.Cut(string(k), "/")
		all = append(all, Resource{group, name})
	}
	return all
}

// Lacks says that the objects of a kind could not be read: analyzers that look at them are
// left out.
func (m *Mesh) Lacks(r Resource) { m.lacking[kind(r.Group+"/"+r.Kind)] = true }

func (m *Mesh) add(o *object) {
	if m.objects[o.kind] == nil {
		m.objects[o.kind] = map[config.Key]*object{}
	}
	m.objects[o.kind][o.Key] = o
}

// prepare works out the mesh that the objects make.
func (m *Mesh) prepare() {
	var all []*config.Config
	for _, k := range m.objects {
		for _, o := range k {
			if o.stored != nil {
				all = append(all, o.stored)
			}
		}
	}
	slices.SortFunc(all, func(a, b *config.Config) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	set := config.NewSet(1, all)
	root := m.root()
	m.meshConfig, m.networks = m.options.MeshConfig, m.options.Networks
	if m.meshConfig == nil {
		m.meshConfig, _ = config.MeshConfigOf(set, root)
	}
	if m.meshConfig == nil {
		m.meshConfig = config.DefaultMeshConfig()
	}
	if o := set.Get(config.ConfigMap, root, config.MeshConfigMap); m.networks == nil && o != nil {
		m.networks, _ = ParseNetworks([]byte(o.Spec.(*corev1.ConfigMap).Data["meshNetworks"]))
	}
	m.scopes, m.lists, m.workloads = map[string]*mesh.Scope{}, map[kind][]*object{}, nil
	m.selected = map[string][]item[*corev1.Pod]{}
	m.snapshot = mesh.Build(set, mesh.Options{MeshConfig: m.meshConfig})
}

// ParseNetworks reads the YAML of a MeshNetworks. Fields that it does not know are passed
// over: validation is not its task.
func ParseNetworks(text []byte) (*meshconfig.MeshNetworks, error) {
	n := &meshconfig.MeshNetworks{}
	asJSON, err := yaml.YAMLToJSON(text)
	if err == nil {
		err = (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(asJSON, n)
	}
	if err != nil {
		return nil, fmt.Errorf("mesh networks: %w", err)
	}
	return n, nil
}

// root is the namespace of the control plane, whose policies are for the whole mesh.
func (m *Mesh) root() string {
	if m.options.RootNamespace != "" {
		return m.options.RootNamespace
	}
	return config.DefaultRootNamespace
}

// list are the objects of a kind, by namespace and name. The caller must not change it.
func (m *Mesh) list(k kind) []*object {
	if all, done := m.lists[k]; done {
		return all
	}
	all := slices.Collect(maps.Values(m.objects[k]))
	slices.SortFunc(all, func(a, b *object) int { return strings.Compare(a.fullName(), b.fullName()) })
	m.lists[k] = all
	return all
}

// get is the object of a kind and name, nil if there is none.
func (m *Mesh) get(k kind, namespace, name string) *object {
	_, bare, _ := strings.Cut(string(k), "/")
	return m.objects[k][config.Key{Kind: config.Kind(bare), Namespace: namespace, Name: name}]
}

// An item is an object with its spec as what it is.
type item[T any] struct {
	*object
	spec T
}

// of are the objects of a kind that can be read.
func of[T any](m *Mesh, k kind) []item[T] {
	var all []item[T]
	for _, o := range m.list(k) {
		if spec, ok := o.spec.(T); ok {
			all = append(all, item[T]{o, spec})
		}
	}
	return all
}

// fullName is "namespace/name", of cluster-wide objects the name.
func (o *object) fullName() string {
	return strings.TrimPrefix(o.Namespace+"/"+o.Name, "/")
}

// selects reports whether a selector of labels matches; an empty one matches all.
func selects(selector, of map[string]string) bool { return mesh.Selects(selector, of) }

// written is a selector as people write it: "app=a,version=v1".
func written(selector map[string]string) string { return labels.SelectorFromSet(selector).String() }
