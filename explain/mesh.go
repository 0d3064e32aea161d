package explain

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"
	meshconfig "istio.io/api/mesh/v1alpha1"
	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ingress"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/proxy"
)

// A Mesh is the objects of a mesh, and what its proxies have.
type Mesh struct {
	// Ask gets the page /config_dump?include_eds of the proxy of a pod. Nil: nobody is
	// asked, what a proxy has is what the control plane would make of the objects.
	Ask func(ctx context.Context, namespace, pod string) ([]byte, error)

	snapshot *mesh.Snapshot
	places   map[config.Key]config.Document // of objects from files
}

// NewMesh takes objects as they are; mc nil is the default.
func NewMesh(objects []*config.Config, mc *meshconfig.MeshConfig) *Mesh {
	return &Mesh{snapshot: mesh.Build(config.NewSet(1, objects), mesh.Options{MeshConfig: mc, Identities: true})}
}

// A File is a text with objects.
type File struct {
	Name string
	Text []byte
}

// FromFiles takes what files say for all there is: workloads have one pod each, with an
// address and a proxy; Services have addresses; gateways that Gateway objects select and
// nobody runs are there, with ports 80 and 443 and those that the objects name. Objects
// that cannot be read are problems and left out, but policies among them close what they select; namespace is that of objects that name none.
func FromFiles(files []File, namespace string, mc *meshconfig.MeshConfig) (*Mesh, []config.Problem) {
	var objects, guards []*config.Config
	var problems []config.Problem
	places := map[config.Key]config.Document{}
	for _, f := range files {
		found, closed, wrong := config.DecodeGuarded(namespace, f.Name, f.Text)
		objects, guards, problems = append(objects, found...), append(guards, closed...), append(problems, wrong...)
		documents, _ := config.Documents(f.Name, f.Text) // what is no document is among the problems
		for _, d := range documents {
			if d.Object.Namespace == "" {
				d.Object.Namespace = namespace
			}
			places[d.Object] = d
		}
	}
	if mc == nil {
		mc = config.DefaultMeshConfig()
	}
	ofIngresses, unmet := ingress.Objects(config.NewSet(1, objects), mc, "cluster.local")
	problems = append(problems, unmet...)
	m := NewMesh(assume(slices.Concat(objects, guards, ofIngresses), places), mc)
	m.places = places
	return m, problems
}

// A Workload is a pod with a proxy.
type Workload struct {
	Name, Namespace string
	Gateway         bool

	addresses []string
	labels    map[string]string
	owner     string
	account   string
}

// String is "name.namespace".
func (w *Workload) String() string { return w.Name + "." + w.Namespace }

// Workloads are all pods that have an address.
func (m *Mesh) Workloads() (list []*Workload) {
	for _, w := range m.snapshot.Registry.Workloads() {
		list = append(list, &Workload{
			Name: w.Name, Namespace: w.Namespace, Gateway: m.isGateway(w.Namespace, w.Name, w.Labels),
			addresses: w.Addresses, labels: w.Labels, owner: w.Owner, account: w.ServiceAccount,
		})
	}
	return list
}

// isGateway reports that a pod is a proxy and nothing else.
func (m *Mesh) isGateway(namespace, name string, labels map[string]string) bool {
	if labels["gateway.networking.k8s.io/gateway-name"] != "" || labels["istio"] == "ingressgateway" || labels["istio"] == "egressgateway" {
		return true
	}
	c := m.snapshot.Config.Get(config.Pod, namespace, name)
	if c == nil {
		return false
	}
	pod := c.Spec.(*corev1.Pod)
	if slices.Contains(strings.Split(pod.Annotations["inject.istio.io/templates"], ","), "gateway") {
		return true
	}
	return slices.ContainsFunc(pod.Spec.Containers, func(x corev1.Container) bool { return x.Name == "istio-proxy" && slices.Contains(x.Args, "router") })
}

// ErrNoWorkload is the reason of a NotFound.
var ErrNoWorkload = errors.New("no such workload")

// A NotFound is a name that no workload has, with those that there are.
type NotFound struct {
	Name string
	Have []string // "pod.namespace", sorted
}

// Error names what was looked for.
func (e *NotFound) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("%s: %v: there are no pods at all", e.Name, ErrNoWorkload)
	}
	return fmt.Sprintf("%s: %v", e.Name, ErrNoWorkload)
}

// Unwrap is ErrNoWorkload.
func (e *NotFound) Unwrap() error { return ErrNoWorkload }

// Find finds the workload that POD[.NAMESPACE] or TYPE/NAME[.NAMESPACE] names: a pod, or
// the first pod of what runs it. Without a namespace in the name that of the caller counts,
// and then any where only one has the name. The error is a *NotFound.
func (m *Mesh) Find(name, namespace string) (*Workload, error) {
	_, plain, typed := strings.Cut(name, "/")
	if !typed {
		plain = name
	}
	all := m.Workloads()
	pick := func(name, namespace string) *Workload {
		for _, same := range []func(*Workload) bool{
			func(w *Workload) bool { return w.Name == name && !typed },
			func(w *Workload) bool { return w.owner == name },
			func(w *Workload) bool { return w.labels["app"] == name },
		} {
			if i := slices.IndexFunc(all, func(w *Workload) bool { return (namespace == "" || w.Namespace == namespace) && same(w) }); i >= 0 {
				return all[i]
			}
		}
		return nil
	}
	if w := pick(plain, namespace); w != nil {
		return w, nil
	}
	if dot := strings.LastIndexByte(plain, '.'); dot > 0 {
		if w := pick(plain[:dot], plain[dot+1:]); w != nil {
			return w, nil
		}
	} else if w := pick(plain, ""); w != nil {
		return w, nil
	}
	missing := &NotFound{Name: name}
	for _, w := range all {
		missing.Have = append(missing.Have, w.String())
	}
	slices.Sort(missing.Have)
	return nil, missing
}

// node is how the proxy of a workload presents itself to the control plane.
func (m *Mesh) node(w *Workload) *corepb.Node {
	kind := mesh.SidecarProxy
	if w.Gateway {
		kind = mesh.Router
	}
	labels := map[string]any{}
	for k, v := range w.labels {
		labels[k] = v
	}
	suffix := w.Namespace + ".svc." + domain
	metadata, err := structpb.NewStruct(map[string]any{
		"NAME": w.Name, "NAMESPACE": w.Namespace, "LABELS": labels, "INSTANCE_IPS": strings.Join(w.addresses, ","), "CLUSTER_ID": "Kubernetes",
		"SERVICE_ACCOUNT": w.account, "WORKLOAD_NAME": w.owner, "INTERCEPTION_MODE": "REDIRECT", "DNS_CAPTURE": "true", "PILOT_SAN": "istiod.istio-system.svc",
	})
	if err != nil {
		metadata = nil // a label that is not UTF-8, which no API takes
	}
	return &corepb.Node{Id: fmt.Sprintf("%s~%s~%s.%s~%s", kind, w.addresses[0], w.Name, w.Namespace, suffix), Cluster: w.owner + "." + w.Namespace, Metadata: metadata}
}

// domain is that of the cluster, where nobody says otherwise.
const domain = "cluster.local"

// at is the workload that has an address, nil for none.
func (m *Mesh) at(address string) *Workload {
	host, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil
	}
	for _, w := range m.Workloads() {
		if slices.Contains(w.addresses, host.Addr().String()) {
			return w
		}
	}
	return nil
}

// A side is one proxy: what it is to the control plane, and what it has.
type side struct {
	w         *Workload
	proxy     *mesh.Proxy
	resources proxy.Resources
	model     *proxy.Model
}

// side compiles what the proxy of a workload has.
func (m *Mesh) side(ctx context.Context, w *Workload) (*side, error) {
	node, r, err := m.Resources(ctx, w)
	if err != nil {
		return nil, err
	}
	s := &side{w: w, resources: r}
	if s.proxy, err = mesh.ParseProxy(node); err != nil {
		return nil, err
	}
	s.model, err = proxy.NewModel(node, r)
	return s, err
}

// Resources is what the proxy of a workload has, and how it presents itself.
func (m *Mesh) Resources(ctx context.Context, w *Workload) (*corepb.Node, proxy.Resources, error) {
	if m.Ask != nil {
		text, err := m.Ask(ctx, w.Namespace, w.Name)
		if err != nil {
			return nil, proxy.Resources{}, err
		}
		node, r, err := FromDump(text)
		w.Gateway = strings.HasPrefix(node.GetId(), string(mesh.Router)+"~")
		return node, r, err
	}
	node := m.node(w)
	p, err := mesh.ParseProxy(node)
	if err != nil {
		return nil, proxy.Resources{}, err
	}
	r, err := Generate(m.snapshot, p)
	return node, r, err
}

// place is "file:line" of a field of an object, "" when it is of no file.
func (m *Mesh) place(o *Origin) string {
	key := config.Key{Kind: config.Kind(o.Kind), Namespace: o.Namespace, Name: o.Name}
	if d, ok := m.places[key]; ok {
		line := d.Source
		if o.Field != "" {
			line.Line = d.Line("spec." + o.Field)
		}
		return line.String()
	}
	if c := m.snapshot.Config.Get(key.Kind, key.Namespace, key.Name); c != nil {
		return c.Source.String()
	}
	return ""
}
