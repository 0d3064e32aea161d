// Package install renders what an installation of the mesh is made of: the objects of
// istio-system from a profile, files of kind IstioOperator and --set flags. It is pure:
// no API, no clock, no file is touched; the same Input gives the same objects.
//
//	profile ◄ local.yaml ◄ files, in order ◄ --set, in order ─► one spec ─► templates ─► objects
//	                                                                 k8s settings, overlays ─┘
//
// What is laid over wins field by field; lists are replaced, but for those of gateways, which
// are merged by name. A field that does not exist is refused with the file and line, or the
// flag, that has it. Names of old versions are taken where they mean what a field of today
// means (see legacy.go); Warnings tells so where it matters.
//
// The parts:
//
//	profiles/     what each profile sets over the one named default
//	local.yaml    what one machine sets over that
//	shape.yaml    the fields of a spec       values.yaml   all values, with their defaults
//	manifests/    one template a component
//
// Every object carries labels that say which component and revision of an installation it
// belongs to. Those labels are the record of what is installed: who applies a rendering finds
// with Selector what an earlier one had and this one has not.
package install

import (
	"cmp"
	"embed"
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/install/crds"
)

//go:embed profiles manifests local.yaml shape.yaml values.yaml
var files embed.FS

// An Input says what is to be installed. The zero Input is the default profile.
type Input struct {
	// Profile is used where neither a file nor Set names one; "" is "default".
	Profile string
	// Files are IstioOperator objects in YAML, merged left to right; a file may hold several.
	Files [][]byte
	// Names are what errors call the Files; where there are none they are numbered.
	Names []string
	// Set are PATH=VALUE: meshConfig.*, values.*, components.*, profile, hub, tag, namespace, …
	Set []string
	// Force makes warnings of fields that there are not.
	Force bool
	// Local is where the engine of one machine has what a cluster has not; nil on a cluster.
	Local *Local
}

// A Local is what the objects of one machine know about it.
type Local struct {
	Sockets string // directory of the machine with xds.sock and outside.sock, which proxies use
	Control string // directory of the machine for control.sock, which the supervisor asks
	// HTTPPort and HTTPSPort are what the ingress gateway's Service shows in place of 80 and
	// 443; zero leaves those.
	HTTPPort, HTTPSPort int
}

// An Installation is a rendering. It does not change.
type Installation struct {
	profile    string
	spec       map[string]any
	values     map[string]any // spec.values over all defaults
	mesh       string
	local      *Local
	warnings   []string
	components []Component
}

// A Component is a part of an installation that users see being installed.
type Component struct {
	Title   string // as the command line shows it: "Istio core"
	Objects []*unstructured.Unstructured
}

// New reads the input and renders all objects. Errors name the flag, or the file and line,
// that is at fault.
func New(in Input) (*Installation, error) {
	spec, profile, warnings, err := resolve(in)
	if err != nil {
		return nil, err
	}
	values, err := valuesOf(spec)
	if err != nil {
		return nil, err
	}
	i := &Installation{profile: profile, spec: spec, values: values, local: in.Local, warnings: warnings}
	if i.mesh, err = i.renderMesh(); err != nil {
		return nil, err
	}
	i.components, err = i.render()
	return i, err
}

// Profile is the name of the profile that the installation began with.
func (i *Installation) Profile() string { return i.profile }

// Warnings are what was accepted and is worth telling, one sentence each.
func (i *Installation) Warnings() []string { return slices.Clone(i.warnings) }

// MeshConfig is the YAML text in ConfigMap istio, under the key mesh.
func (i *Installation) MeshConfig() string { return i.mesh }

// Revision is that of the control plane, "default" where none was given.
func (i *Installation) Revision() string { return cmp.Or(text(i.spec, "revision"), defaultRevision) }

// Components are what is installed, in the order of installing, each with its objects in the
// order of applying. The caller may change the objects.
func (i *Installation) Components() []Component {
	all := make([]Component, 0, len(i.components))
	for _, c := range i.components {
		copied := Component{Title: c.Title}
		for _, o := range c.Objects {
			copied.Objects = append(copied.Objects, o.DeepCopy())
		}
		all = append(all, copied)
	}
	return all
}

// Objects are those of all components in the order of applying: what others need comes
// first, Deployments follow what they mount. The kinds of the mesh are not among them: see
// Definitions. The caller may change them.
func (i *Installation) Objects() ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for _, c := range i.Components() {
		all = append(all, c.Objects...)
	}
	sortForApply(all)
	return all, nil
}

// Definitions are the CustomResourceDefinitions of the mesh's kinds, where the installation
// brings them: with component base, on a cluster. The engine of one machine has its own.
func (i *Installation) Definitions() ([]*unstructured.Unstructured, error) {
	if i.local != nil || !enabled(i.spec, "components", "base") || !enabled(i.values, "base", "enableIstioConfigCRDs") {
		return nil, nil
	}
	return documents(string(crds.All()))
}

// order is that of applying. A kind that is not here comes last.
var order = []string{
	"Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding", "ConfigMap",
	"Service", "Deployment", "HorizontalPodAutoscaler", "PodDisruptionBudget", "MutatingWebhookConfiguration", "ValidatingWebhookConfiguration",
}

func sortForApply(all []*unstructured.Unstructured) {
	rank := func(o *unstructured.Unstructured) int {
		if i := slices.Index(order, o.GetKind()); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(all, func(a, b *unstructured.Unstructured) int { return cmp.Compare(rank(a), rank(b)) })
}

// documents are the objects of a YAML stream.
func documents(stream string) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for doc := range strings.SplitSeq("\n"+stream, "\n---\n") {
		text, err := yaml.YAMLToJSON([]byte(doc))
		if err != nil {
			return nil, err
		}
		if string(text) == "null" {
			continue
		}
		o := &unstructured.Unstructured{}
		if err := o.UnmarshalJSON(text); err != nil {
			return nil, fmt.Errorf("%s: %w", text, err)
		}
		all = append(all, o)
	}
	return all, nil
}
