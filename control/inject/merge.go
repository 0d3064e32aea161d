package inject

import (
	"encoding/json"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"sigs.k8s.io/yaml"
)

// autoImage is the image of a container that leaves everything to injection.
const autoImage = "auto"

// containers are by which list of a pod they are in.
type containers struct {
	Containers     []corev1.Container `json:"containers,omitempty"`
	InitContainers []corev1.Container `json:"initContainers,omitempty"`
}

// merge renders the templates over the pod, and over them what the pod says itself.
func (p *injection) merge() error {
	templates, err := p.chosen(p.Pod.Annotations)
	if err != nil {
		return err
	}
	p.strip()
	for _, t := range templates {
		text, err := render(t, p.view(p.pod))
		if err != nil {
			return err
		}
		patch, err := yaml.YAMLToJSON(text)
		if err != nil {
			return fmt.Errorf("template %s: what it renders is not YAML: %w", t.Name(), err)
		}
		if p.rendered, err = patched(p.rendered, patch); err != nil {
			return fmt.Errorf("template %s: what it renders is not a pod: %w", t.Name(), err)
		}
		p.takeOverrides()
		if p.pod, err = patched(p.pod, patch); err != nil {
			return fmt.Errorf("template %s: %w", t.Name(), err)
		}
	}
	return p.applyOverrides()
}

// patched is base with a strategic merge patch.
func patched[T any](base *T, patch []byte) (*T, error) {
	before, err := json.Marshal(base)
	if err != nil {
		return nil, err
	}
	if string(patch) == "null" {
		patch = []byte("{}")
	}
	after, err := strategicpatch.StrategicMergePatch(before, patch, *base)
	if err != nil {
		return nil, err
	}
	merged := new(T)
	return merged, json.Unmarshal(after, merged)
}

// strip takes away what an earlier injection put in, so that it is made anew: its containers
// and its volumes.
func (p *injection) strip() {
	spec := &p.pod.Spec
	spec.Containers = slices.DeleteFunc(spec.Containers, func(c corev1.Container) bool { return slices.Contains(p.before.Containers, c.Name) && c.Name != ProxyContainer })
	spec.InitContainers = slices.DeleteFunc(spec.InitContainers, func(c corev1.Container) bool { return slices.Contains(p.before.InitContainers, c.Name) })
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return slices.Contains(p.before.Volumes, v.Name) })
}

// takeOverrides takes the containers out of the pod that a template has too, in whichever
// list: the template's are merged in their place, and these over them.
func (p *injection) takeOverrides() {
	take := func(from []corev1.Container, into *[]corev1.Container) []corev1.Container {
		return slices.DeleteFunc(from, func(c corev1.Container) bool {
			if findContainer(p.rendered, c.Name) == nil {
				return false
			}
			if findIn(p.overrides.Containers, c.Name) == nil && findIn(p.overrides.InitContainers, c.Name) == nil && len(*into) < 32 {
				*into = append(*into, c)
			}
			return true
		})
	}
	p.pod.Spec.Containers = take(p.pod.Spec.Containers, &p.overrides.Containers)
	p.pod.Spec.InitContainers = take(p.pod.Spec.InitContainers, &p.overrides.InitContainers)
}

func findIn(all []corev1.Container, name string) *corev1.Container {
	if i := slices.IndexFunc(all, named(name)); i >= 0 {
		return &all[i]
	}
	return nil
}
