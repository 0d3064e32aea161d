package install

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"text/template"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
)

// A view is what the templates of manifests see.
type view struct {
	Name, Namespace string // of the component
	Root            string // namespace of the control plane
	Base            string // namespace of what all control planes share
	Revision        string
	Suffix          string // of the names of one revision: "" or "-REVISION"
	NamespaceSuffix string // of cluster-wide names: "" or "-NAMESPACE"
	Image           string
	Labels          map[string]any // by which Services find the component's pods
	Values          map[string]any
	Settings        map[string]any // the part of the values that is the component's
	Local           *Local

	Mesh, Networks                 string // of ConfigMap istio
	InjectorConfig, InjectorValues string
	Webhooks                       []webhook
	Validators                     []validator

	ProxyConfig, TrustDomain, MeshID, Cluster, Network string // of gateways
	ServicePorts, ContainerPorts                       []any

	Autoscaled, Budgeted bool
	Metrics              []any
}

func (i *Installation) view(component map[string]any) (view, error) {
	mesh := i.meshTree()
	proxyConfig, err := json.Marshal(mesh["defaultConfig"])
	if err != nil {
		return view{}, err
	}
	v := view{
		Root: root(i.spec), Base: i.baseNamespace(), Revision: i.Revision(), Suffix: i.suffix(), Values: i.values, Local: i.local, ProxyConfig: string(proxyConfig),
		Namespace:   cmp.Or(text(component, "namespace"), text(i.spec, "namespace"), root(i.spec)),
		TrustDomain: text(mesh, "trustDomain"), Network: text(i.values, "global", "network"),
		Cluster: cmp.Or(text(i.values, "global", "multiCluster", "clusterName"), "Kubernetes"),
	}
	v.MeshID = cmp.Or(text(i.values, "global", "meshID"), v.TrustDomain)
	if v.Root != config.DefaultRootNamespace {
		v.NamespaceSuffix = "-" + v.Root
	}
	return v, nil
}

// image is that of a component: its own hub and tag, else those of all.
func (i *Installation) image(component map[string]any, name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	hub := cmp.Or(text(component, "hub"), text(i.values, "global", "hub"))
	tag := cmp.Or(text(component, "tag"), text(i.values, "global", "tag"))
	if variant := text(i.values, "global", "variant"); variant != "" {
		tag += "-" + variant
	}
	return hub + "/" + name + ":" + tag
}

// A piece is one component before it is rendered.
type piece struct {
	title, label string // for people; of the label operator.istio.io/component
	template     string
	component    map[string]any
	view         view
}

// render renders all components that are enabled.
func (i *Installation) render() ([]Component, error) {
	pieces, err := i.pieces()
	if err != nil {
		return nil, err
	}
	var all []Component
	for _, p := range pieces {
		objects, err := i.renderPiece(p)
		if err != nil {
			return nil, err
		}
		if n := len(all); n > 0 && all[n-1].Title == p.title { // several gateways are one line to users
			all[n-1].Objects = append(all[n-1].Objects, objects...)
		} else {
			all = append(all, Component{p.title, objects})
		}
	}
	for _, c := range all {
		sortForApply(c.Objects)
	}
	return all, nil
}

func (i *Installation) pieces() ([]piece, error) {
	for _, name := range []string{"cni", "ztunnel", "istiodRemote"} {
		if enabled(i.spec, "components", name) {
			return nil, fmt.Errorf("components.%s.enabled: this component is not built yet", name)
		}
	}
	var all []piece
	if base := mapping(i.spec, "components", "base"); enabled(base, "enabled") {
		v, err := i.view(base)
		if err != nil {
			return nil, err
		}
		v.Namespace = v.Base
		all = append(all, piece{"Istio core", "Base", "base.yaml", base, v})
	}
	if pilot := mapping(i.spec, "components", "pilot"); enabled(pilot, "enabled") {
		v, err := i.istiod(pilot)
		if err != nil {
			return nil, err
		}
		all = append(all, piece{"Istiod", "Pilot", "istiod.yaml", pilot, v})
	}
	for _, kind := range gatewayKinds {
		list, _ := at(i.spec, "components", kind.list).([]any)
		for n, element := range list {
			g, _ := element.(map[string]any)
			if !truth(g, "enabled") {
				continue
			}
			if text(g, "name") == "" {
				return nil, fmt.Errorf("components.%s[%d]: a gateway that is enabled needs a name", kind.list, n)
			}
			v, err := i.gateway(kind, g)
			if err != nil {
				return nil, err
			}
			all = append(all, piece{kind.title, kind.label, "gateway.yaml", g, v})
		}
	}
	return all, nil
}

// istiod is what the control plane's template sees.
func (i *Installation) istiod(pilot map[string]any) (view, error) {
	v, err := i.view(pilot)
	if err != nil {
		return v, err
	}
	v.Namespace = v.Root
	v.Name, v.Settings, v.Mesh = "istiod"+v.Suffix, mapping(i.values, "pilot"), i.mesh
	v.Labels = map[string]any{"app": "istiod", "istio": "pilot"}
	v.Image = i.image(lay(map[string]any{"hub": v.Settings["hub"], "tag": v.Settings["tag"]}, pilot), text(v.Settings, "image"))
	v.Webhooks = webhooks(v.Revision, enabled(i.values, "sidecarInjectorWebhook", "enableNamespacesByDefault"))
	v.Validators = v.validators(enabled(i.values, "global", "configValidation"))
	if v.Networks, err = i.renderNetworks(); err != nil {
		return v, err
	}
	if v.InjectorConfig, v.InjectorValues, err = i.injector(); err != nil {
		return v, err
	}
	v.scale(i, pilot)
	return v, nil
}

// scale says whether there is an autoscaler, and a budget for disruptions: neither on one machine.
func (v *view) scale(i *Installation, component map[string]any) {
	k8s := mapping(component, "k8s")
	v.Autoscaled = i.local == nil && (truth(v.Settings, "autoscaleEnabled") || mapping(k8s, "hpaSpec") != nil)
	v.Budgeted = i.local == nil && (mapping(k8s, "podDisruptionBudget") != nil ||
		enabled(i.values, "global", "defaultPodDisruptionBudget") && number(v.Settings["autoscaleMin"]) > 1)
	for _, resource := range []string{"cpu", "memory"} {
		if target := at(v.Settings, resource, "targetAverageUtilization"); target != nil {
			v.Metrics = append(v.Metrics, map[string]any{"type": "Resource", "resource": map[string]any{
				"name": resource, "target": map[string]any{"type": "Utilization", "averageUtilization": target}}})
		}
	}
}

// number is a whole number, 0 for what is none.
func number(v any) int {
	switch v := v.(type) {
	case int:
		return v
	case int64:
		return int(v)
	case float64:
		return int(v)
	}
	return 0
}

// renderPiece executes the template, labels the objects and applies what the user says about them.
func (i *Installation) renderPiece(p piece) ([]*unstructured.Unstructured, error) {
	t, err := template.New("").Funcs(template.FuncMap{"json": asJSON}).Option("missingkey=error").
		ParseFS(files, "manifests/scaling.yaml", "manifests/"+p.template)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := t.ExecuteTemplate(&out, p.template, p.view); err != nil {
		return nil, err
	}
	objects, err := documents(out.String())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.template, err)
	}
	for _, o := range objects {
		i.label(o, p)
	}
	if err := configure(objects, p); err != nil {
		return nil, err
	}
	return patch(objects, p.component)
}

// Labels that say what belongs to an installation.
const (
	managedLabel   = "operator.istio.io/managed"
	managedValue   = "Reconcile"
	componentLabel = "operator.istio.io/component"
	revisionLabel  = "istio.io/rev"
)

// Selector finds what installations of a revision have put in; "" finds those of all.
func Selector(revision string) string {
	s := managedLabel + "=" + managedValue
	if revision != "" {
		s += "," + revisionLabel + "=" + revision
	}
	return s
}

// label adds the labels that all objects have, those of the component, and to pods what they
// are found by.
func (i *Installation) label(o *unstructured.Unstructured, p piece) {
	labels := o.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	for k, v := range p.view.Labels {
		if p.label != "Pilot" {
			labels[k] = fmt.Sprint(v)
		}
	}
	name := cmp.Or(p.view.Name, "istio-reader")
	maps.Copy(labels, map[string]string{
		"app.kubernetes.io/instance": "istio", "app.kubernetes.io/managed-by": "istioctl", "app.kubernetes.io/name": name,
		"app.kubernetes.io/part-of": "istio", "app.kubernetes.io/version": imageTag(),
		"install.operator.istio.io/owning-resource": "installed-state", "operator.istio.io/version": imageTag(),
		componentLabel: p.label, managedLabel: managedValue, revisionLabel: i.Revision(), "release": "istio",
	})
	o.SetLabels(labels)
	if o.GetKind() != "Deployment" {
		return
	}
	inPod := nested(o.Object, "spec", "template", "metadata", "labels")
	for k, v := range p.view.Labels {
		if inPod[k] == nil {
			inPod[k] = fmt.Sprint(v)
		}
	}
	inPod[revisionLabel] = i.Revision()
	inPod[componentLabel] = p.label
}

// nested is the mapping under keys, made where it is not there.
func nested(tree map[string]any, keys ...string) map[string]any {
	for _, k := range keys {
		m, ok := tree[k].(map[string]any)
		if !ok {
			m = map[string]any{}
			tree[k] = m
		}
		tree = m
	}
	return tree
}

// asJSON writes any value so that YAML reads it as one.
func asJSON(v any) (string, error) {
	text, err := json.Marshal(v)
	return string(text), err
}

// Manifest is the objects as one YAML stream, definitions first.
func (i *Installation) Manifest() ([]byte, error) {
	definitions, err := i.Definitions()
	if err != nil {
		return nil, err
	}
	objects, err := i.Objects()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	for _, o := range append(definitions, objects...) {
		content, err := yaml.Marshal(o.Object)
		if err != nil {
			return nil, err
		}
		out.Write(content)
		out.WriteString("---\n")
	}
	return out.Bytes(), nil
}
