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

func (c containers) find(name string) *corev1.Container {
	for _, all := range [][]corev1.Container{c.Containers, c.InitContainers} {
		if i := slices.IndexFunc(all, named(name)); i >= 0 {
			return &all[i]
		}
	}
	return nil
}

// drop takes the containers of these names out and returns them.
func (c *containers) drop(names ...string) (dropped containers) {
	take := func(all []corev1.Container, into *[]corev1.Container) []corev1.Container {
		return slices.DeleteFunc(all, func(c corev1.Container) bool {
			found := slices.Contains(names, c.Name)
			if found {
				*into = append(*into, c)
			}
			return found
		})
	}
	c.Containers = take(c.Containers, &dropped.Containers)
	c.InitContainers = take(c.InitContainers, &dropped.InitContainers)
	return dropped
}

// only are the containers of a name, which stay where they are.
func (c containers) only(name string) containers {
	all := containers{slices.Clone(c.Containers), slices.Clone(c.InitContainers)}
	return all.drop(name)
}

// merge renders the templates over the pod, and over them what the pod says itself.
func (p *injection) merge() error {
	templates, err := p.chosen(p.Pod.Annotations)
	if err != nil {
		return err
	}
	if err := p.strip(); err != nil {
		return err
	}
	seen := p.view(p.pod)
	patches := make([][]byte, len(templates))
	for i, t := range templates {
		text, err := render(t, seen)
		if err != nil {
			return err
		}
		if patches[i], err = yaml.YAMLToJSON(text); err != nil {
			return fmt.Errorf("template %s: what it renders is not YAML: %w", t.Name(), err)
		}
		if p.rendered, err = patched(p.rendered, patches[i]); err != nil {
			return fmt.Errorf("template %s: what it renders is not a pod: %w", t.Name(), err)
		}
	}
	overrides := p.takeOverrides()
	for i, t := range templates {
		if p.pod, err = patched(p.pod, patches[i]); err != nil {
			return fmt.Errorf("template %s: %w", t.Name(), err)
		}
	}
	return p.applyOverrides(overrides)
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

// strip makes the pod what it was before an earlier injection, so that it is made anew:
// without what that put in, and with the containers that it noted.
func (p *injection) strip() error {
	spec := &p.pod.Spec
	all := containers{spec.Containers, spec.InitContainers}
	p.old = all.drop(slices.Concat(p.before.Containers, p.before.InitContainers)...)
	var noted containers
	if text, ok := p.Pod.Annotations[annotationOverrides]; ok {
		if err := json.Unmarshal([]byte(text), &noted); err != nil {
			return fmt.Errorf("annotation %s: %w", annotationOverrides, err)
		}
	}
	for _, c := range slices.Concat(noted.Containers, noted.InitContainers) {
		all.drop(c.Name)
	}
	spec.Containers, spec.InitContainers = append(all.Containers, noted.Containers...), append(all.InitContainers, noted.InitContainers...)
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return slices.Contains(p.before.Volumes, v.Name) })
	return nil
}

// takeOverrides takes the containers out of the pod that a template has too, in whichever
// list: the template's are put in their place, and these over them. What an earlier injection
// put into the other list counts as the pod's own.
func (p *injection) takeOverrides() (overrides containers) {
	spec := &p.pod.Spec
	all := containers{spec.Containers, spec.InitContainers}
	take := func(rendered []corev1.Container, before []string) {
		for _, c := range rendered {
			given := all.drop(c.Name)
			if given.find(c.Name) == nil && !slices.Contains(before, c.Name) {
				given = p.old.only(c.Name)
			}
			overrides.Containers = append(overrides.Containers, given.Containers...)
			overrides.InitContainers = append(overrides.InitContainers, given.InitContainers...)
		}
	}
	take(p.rendered.Spec.Containers, p.before.Containers)
	take(p.rendered.Spec.InitContainers, p.before.InitContainers)
	spec.Containers, spec.InitContainers = all.Containers, all.InitContainers
	return overrides
}

// applyOverrides merges what the pod says about containers of the templates over them, and
// notes it for the next injection.
func (p *injection) applyOverrides(overrides containers) error {
	for _, over := range slices.Concat(overrides.Containers, overrides.InitContainers) {
		into := findContainer(p.pod, over.Name)
		if over.Image == autoImage {
			over.Image = ""
		}
		dropProbes(into, &over)
		patch, err := json.Marshal(over)
		if err != nil {
			return err
		}
		merged, err := patched(into, patch)
		if err != nil {
			return fmt.Errorf("container %s: %w", over.Name, err)
		}
		*into = *merged
	}
	for _, c := range slices.Concat(p.pod.Spec.Containers, p.pod.Spec.InitContainers) {
		if c.Image == autoImage {
			return fmt.Errorf("container %s has image %q, which is for a container of a template, and no template of the pod has one of that name", c.Name, autoImage)
		}
	}
	if len(overrides.Containers)+len(overrides.InitContainers) == 0 || p.before.given {
		return nil
	}
	text, err := json.Marshal(overrides)
	if err != nil {
		return err
	}
	if p.pod.Annotations == nil {
		p.pod.Annotations = map[string]string{}
	}
	p.pod.Annotations[annotationOverrides] = string(text)
	return nil
}

// dropProbes takes away how the template probes where the pod says how itself: two ways in
// one probe are none.
func dropProbes(from, over *corev1.Container) {
	for _, pair := range [][2]*corev1.Probe{
		{from.ReadinessProbe, over.ReadinessProbe}, {from.LivenessProbe, over.LivenessProbe}, {from.StartupProbe, over.StartupProbe},
	} {
		if pair[0] != nil && pair[1] != nil && pair[1].ProbeHandler != (corev1.ProbeHandler{}) {
			pair[0].ProbeHandler = corev1.ProbeHandler{}
		}
	}
}
