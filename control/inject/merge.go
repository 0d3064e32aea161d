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

// merge renders the templates over the pod, and over them what the pod says itself.
func (p *injection) merge() error {
	templates, err := p.chosen(p.Pod.Annotations)
	if err != nil {
		return err
	}
	p.strip()
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
	overrides, err := p.takeOverrides()
	if err != nil {
		return err
	}
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

// strip takes away what an earlier injection put in, so that it is made anew.
func (p *injection) strip() {
	spec := &p.pod.Spec
	all := containers{spec.Containers, spec.InitContainers}
	p.old = all.drop(slices.Concat(p.before.Containers, p.before.InitContainers)...)
	spec.Containers, spec.InitContainers = all.Containers, all.InitContainers
	spec.Volumes = slices.DeleteFunc(spec.Volumes, func(v corev1.Volume) bool { return slices.Contains(p.before.Volumes, v.Name) })
}

// takeOverrides takes the containers out of the pod that a template has too, in whichever
// list: the template's are put in their place, and these over them. They are those that the
// first injection noted, else those of the pod, but for what an earlier injection put where
// the template does again.
func (p *injection) takeOverrides() (overrides containers, err error) {
	var noted containers
	if text, ok := p.Pod.Annotations[annotationOverrides]; ok {
		if err := json.Unmarshal([]byte(text), &noted); err != nil {
			return overrides, fmt.Errorf("annotation %s: %w", annotationOverrides, err)
		}
	}
	spec := &p.pod.Spec
	all := containers{spec.Containers, spec.InitContainers}
	take := func(rendered []corev1.Container, before []string, into *[]corev1.Container) {
		for _, c := range rendered {
			given := all.drop(c.Name)
			over := noted.find(c.Name)
			if over == nil && !slices.Contains(before, c.Name) {
				if over = given.find(c.Name); over == nil {
					over = p.old.find(c.Name)
				}
			}
			if over != nil {
				*into = append(*into, *over)
			}
		}
	}
	take(p.rendered.Spec.Containers, p.before.Containers, &overrides.Containers)
	take(p.rendered.Spec.InitContainers, p.before.InitContainers, &overrides.InitContainers)
	spec.Containers, spec.InitContainers = all.Containers, all.InitContainers
	return overrides, nil
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
