package install

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// patch applies the overlays of a component: each names an object and paths in it whose
// values are replaced, or removed where a patch has no value.
func patch(objects []*unstructured.Unstructured, component map[string]any) ([]*unstructured.Unstructured, error) {
	overlays, _ := at(component, "k8s", "overlays").([]any)
	for n, element := range overlays {
		overlay, _ := element.(map[string]any)
		kind, name := text(overlay, "kind"), text(overlay, "name")
		where := fmt.Sprintf("k8s.overlays[%d] (%s %s)", n, kind, name)
		found := false
		for _, o := range objects {
			if o.GetKind() != kind || o.GetName() != name {
				continue
			}
			found = true
			if err := patchObject(o, overlay); err != nil {
				return nil, fmt.Errorf("%s: %w", where, err)
			}
		}
		if !found {
			return nil, fmt.Errorf("%s: the component has no such object, but %s", where, names(objects))
		}
	}
	return objects, nil
}

func patchObject(o *unstructured.Unstructured, overlay map[string]any) error {
	patches, _ := overlay["patches"].([]any)
	for i, element := range patches {
		p, _ := element.(map[string]any)
		steps, err := parsePath(text(p, "path"))
		if err != nil {
			return fmt.Errorf("patches[%d]: the path %w", i, err)
		}
		value, err := patchValue(p["value"])
		if err != nil {
			return fmt.Errorf("patches[%d] %s: %w", i, text(p, "path"), err)
		}
		tree, err := put(o.Object, steps, value)
		if err != nil {
			return fmt.Errorf("patches[%d] %s: %w", i, text(p, "path"), err)
		}
		o.Object, _ = tree.(map[string]any)
	}
	return normalize(o)
}

// patchValue is the value of a patch; a text of several lines is YAML itself.
func patchValue(v any) (any, error) {
	s, ok := v.(string)
	if !ok || !strings.Contains(s, "\n") {
		return copied(v), nil
	}
	var tree any
	if err := yaml.Unmarshal([]byte(s), &tree); err != nil {
		return nil, err
	}
	if _, ok := tree.(map[string]any); ok {
		return tree, nil
	}
	return s, nil
}

func names(objects []*unstructured.Unstructured) string {
	var all []string
	for _, o := range objects {
		all = append(all, o.GetKind()+" "+o.GetName())
	}
	return strings.Join(all, ", ")
}
