package install

import (
	"cmp"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/inject"
	"github.com/lateen-mesh/lateen/wellknown"
)

// enabled reports whether what is under keys has enabled: true; for a value itself, whether
// it is true.
func enabled(tree map[string]any, keys ...string) bool {
	if m := mapping(tree, keys...); m != nil {
		return truth(m, "enabled")
	}
	return truth(tree, keys...)
}

// root is the namespace of the control plane. That of the whole spec is meant for it where
// the spec has one; else the spec is about gateways of a control plane that is elsewhere.
func root(spec map[string]any) string {
	whole := ""
	if enabled(spec, "components", "pilot") {
		whole = text(spec, "namespace")
	}
	return cmp.Or(text(spec, "components", "pilot", "namespace"), text(spec, "values", "global", "istioNamespace"), whole, config.DefaultRootNamespace)
}

// defaultValues are all values there are: those that injection reads, which has them, and ours.
func defaultValues() (map[string]any, error) {
	own, err := embedded("values.yaml")
	return lay(inject.DefaultValues(), own), err
}

// baseNamespace is that of what all control planes share.
func (i *Installation) baseNamespace() string {
	return cmp.Or(text(i.spec, "components", "base", "namespace"), text(i.spec, "values", "global", "istioNamespace"), config.DefaultRootNamespace)
}

// valuesOf are the values of a spec over all defaults.
func valuesOf(spec map[string]any) (map[string]any, error) {
	values, err := defaultValues()
	if err != nil {
		return nil, err
	}
	values = lay(values, mapping(spec, "values"))
	values = lay(values, mapping(spec, "unvalidatedValues"))
	global := mapping(values, "global")
	given := mapping(spec, "values", "global")
	global["hub"] = cmp.Or(text(given, "hub"), text(spec, "hub"), text(global, "hub"))
	global["tag"] = cmp.Or(text(given, "tag"), text(spec, "tag"), imageTag())
	global["istioNamespace"] = root(spec)
	values["revision"] = cmp.Or(text(spec, "revision"), text(values, "revision"))
	return values, nil
}

// imageTag is this build's version as the tag of an image can be written.
func imageTag() string { return strings.ReplaceAll(wellknown.Version(), "+", "-") }

// suffix is what names of one revision end with.
func (i *Installation) suffix() string {
	if r := i.Revision(); r != defaultRevision {
		return "-" + r
	}
	return ""
}

// meshTree is the MeshConfig of the spec with what follows from other fields.
func (i *Installation) meshTree() map[string]any {
	istiod := fmt.Sprintf("istiod%s.%s.svc:15012", i.suffix(), root(i.spec))
	mesh := map[string]any{
		"rootNamespace": root(i.spec),
		"defaultConfig": map[string]any{"discoveryAddress": istiod},
	}
	proxy := mapping(mesh, "defaultConfig")
	if id := text(i.values, "global", "meshID"); id != "" {
		proxy["meshId"] = id
	}
	if sampling := at(i.values, "pilot", "traceSampling"); sampling != nil && fmt.Sprint(sampling) != "1" {
		proxy["tracing"] = map[string]any{"sampling": sampling}
	}
	return lay(mesh, mapping(i.spec, "meshConfig"))
}

// renderMesh is the text of the MeshConfig, without a line end, so that kubectl shows it as
// a block whose lines can be grepped. All of it together is checked once more: fields that are
// right by themselves may contradict each other.
func (i *Installation) renderMesh() (string, error) {
	content, err := yaml.Marshal(i.meshTree())
	if err != nil {
		return "", fmt.Errorf("meshConfig: %w", err)
	}
	_, problems := config.DecodeMeshConfig("", content)
	for _, p := range problems {
		if p.Severity == config.Error {
			return "", fmt.Errorf("meshConfig: %s: %s", p.Field, p.Message)
		}
	}
	return strings.TrimSuffix(string(content), "\n"), nil
}

// renderNetworks is the text of the networks.
func (i *Installation) renderNetworks() (string, error) {
	networks := mapping(i.values, "global", "meshNetworks")
	content, err := yaml.Marshal(map[string]any{"networks": networks})
	return strings.TrimSuffix(string(content), "\n"), err
}
