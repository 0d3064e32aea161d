package install

import (
	"fmt"
	"maps"
	"slices"

	"sigs.k8s.io/yaml"
)

// operator is the whole spec, every value with what it is.
func (i *Installation) operator() map[string]any {
	spec := lay(nil, i.spec)
	spec["hub"], spec["tag"] = at(i.values, "global", "hub"), at(i.values, "global", "tag")
	spec["meshConfig"] = i.meshTree()
	spec["values"] = copied(i.values)
	return spec
}

// Operator is what is installed as one object of kind IstioOperator, in YAML: the profile
// with everything that was laid over it, and every value there is.
func (i *Installation) Operator() ([]byte, error) {
	return yaml.Marshal(map[string]any{"apiVersion": apiVersion, "kind": kind, "spec": i.operator()})
}

// Settings are the same as PATH=VALUE, good for --set, in order.
func (i *Installation) Settings() []string {
	var all []string
	flatten("", i.operator(), &all)
	slices.Sort(all)
	return all
}

func flatten(path string, v any, all *[]string) {
	switch v := v.(type) {
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			s := step{key: k}.String()
			if path == "" {
				s = s[1:]
			}
			flatten(path+s, v[k], all)
		}
	case []any:
		for i, element := range v {
			flatten(fmt.Sprintf("%s[%d]", path, i), element, all)
		}
	default:
		*all = append(*all, fmt.Sprintf("%s=%v", path, v))
	}
}
