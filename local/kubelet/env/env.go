// Package env gives the environment of a container: variables of its manifest with
// their references, $(NAME) in values, command and arguments, and the variables of
// Services. The downward API's values are those of Field and Resource.
package env

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/kubectl/pkg/util/fieldpath"
	podresource "k8s.io/kubectl/pkg/util/resource"
)

// A Source has the objects that variables refer to.
type Source interface {
	ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error)
	Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error)
}

// A Pod is a pod on its node, of which variables may tell.
type Pod struct {
	Object    *corev1.Pod
	Addresses []string
	Host      string
	CPUs      int64 // of the node: what a container without limit has
	Memory    int64 // bytes
}

// Field is the value at a path of the pod, as the downward API has it.
func (p Pod) Field(path string) (string, error) {
	switch path {
	case "spec.nodeName":
		return p.Object.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return p.Object.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return p.Host, nil
	case "status.podIP":
		return slices.Concat(p.Addresses, []string{""})[0], nil
	case "status.podIPs":
		return strings.Join(p.Addresses, ","), nil
	}
	return fieldpath.ExtractFieldPathAsString(p.Object, path)
}

// Resource is a limit or request of a container of the pod; a limit that is not set
// is what the node has.
func (p Pod) Resource(container string, ref *corev1.ResourceFieldSelector) (string, error) {
	if ref.ContainerName != "" {
		container = ref.ContainerName
	}
	for _, all := range [][]corev1.Container{p.Object.Spec.InitContainers, p.Object.Spec.Containers} {
		for i := range all {
			if all[i].Name == container {
				return podresource.ExtractContainerResourceValue(ref, p.limited(&all[i]))
			}
		}
	}
	return "", fmt.Errorf("container %s not found", container)
}

func (p Pod) limited(c *corev1.Container) *corev1.Container {
	c = c.DeepCopy()
	if c.Resources.Limits == nil {
		c.Resources.Limits = corev1.ResourceList{}
	}
	for name, value := range map[corev1.ResourceName]int64{corev1.ResourceCPU: p.CPUs, corev1.ResourceMemory: p.Memory} {
		if q := c.Resources.Limits[name]; q.IsZero() {
			c.Resources.Limits[name] = *resource.NewQuantity(value, resource.DecimalSI)
		}
	}
	return c
}

// A builder collects variables; a later one of the same name replaces the earlier.
type builder struct {
	pod       Pod
	container *corev1.Container
	source    Source
	names     []string // in the order of their first mention
	values    map[string]string
}

func (b *builder) set(name, value string) {
	if _, ok := b.values[name]; !ok {
		b.names = append(b.names, name)
	}
	b.values[name] = value
}

// Of returns a container's variables as NAME=VALUE: those given (of the image, of
// Services) first, then those of the manifest, which replace them. Errors name
// the object and key that is missing.
func Of(ctx context.Context, pod Pod, c *corev1.Container, source Source, given []string) ([]string, error) {
	b := &builder{pod: pod, container: c, source: source, values: map[string]string{}}
	for _, v := range given {
		name, value, _ := strings.Cut(v, "=")
		b.set(name, value)
	}
	for _, from := range c.EnvFrom {
		if err := b.from(ctx, from); err != nil {
			return nil, err
		}
	}
	for _, v := range c.Env {
		if err := b.add(ctx, v); err != nil {
			return nil, err
		}
	}
	all := make([]string, 0, len(b.names))
	for _, name := range b.names {
		if value, ok := b.values[name]; ok {
			all = append(all, name+"="+value)
		}
	}
	return all, nil
}

// from takes all keys of an object.
func (b *builder) from(ctx context.Context, from corev1.EnvFromSource) error {
	values := map[string]string{}
	namespace := b.pod.Object.Namespace
	switch {
	case from.ConfigMapRef != nil:
		m, err := b.source.ConfigMap(ctx, namespace, from.ConfigMapRef.Name)
		if err != nil {
			return unlessOptional(err, from.ConfigMapRef.Optional)
		}
		values = m.Data
	case from.SecretRef != nil:
		s, err := b.source.Secret(ctx, namespace, from.SecretRef.Name)
		if err != nil {
			return unlessOptional(err, from.SecretRef.Optional)
		}
		for key, value := range s.Data {
			values[key] = string(value)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if name := from.Prefix + key; !strings.ContainsAny(name, "=\x00") {
			b.set(name, values[key])
		}
	}
	return nil
}

// unlessOptional drops the error of an object that may be missing.
func unlessOptional(err error, optional *bool) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (b *builder) add(ctx context.Context, v corev1.EnvVar) error {
	value, ok, err := Expand(v.Value, b.values), true, error(nil)
	if from := v.ValueFrom; from != nil {
		value, ok, err = b.refer(ctx, from)
	}
	if err != nil {
		return err
	}
	if ok {
		b.set(v.Name, value)
	}
	return nil
}

// refer is the value that a reference means; not ok: there is none, and that is allowed.
func (b *builder) refer(ctx context.Context, from *corev1.EnvVarSource) (value string, ok bool, err error) {
	namespace := b.pod.Object.Namespace
	switch {
	case from.FieldRef != nil:
		value, err = b.pod.Field(from.FieldRef.FieldPath)
		return value, true, err
	case from.ResourceFieldRef != nil:
		value, err = b.pod.Resource(b.container.Name, from.ResourceFieldRef)
		return value, true, err
	case from.ConfigMapKeyRef != nil:
		ref := from.ConfigMapKeyRef
		m, err := b.source.ConfigMap(ctx, namespace, ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		value, ok := m.Data[ref.Key]
		return value, ok, missing(ok, ref.Optional, ref.Key, "ConfigMap", namespace, ref.Name)
	case from.SecretKeyRef != nil:
		ref := from.SecretKeyRef
		s, err := b.source.Secret(ctx, namespace, ref.Name)
		if err != nil {
			return "", false, unlessOptional(err, ref.Optional)
		}
		value, ok := s.Data[ref.Key]
		return string(value), ok, missing(ok, ref.Optional, ref.Key, "Secret", namespace, ref.Name)
	}
	return "", false, fmt.Errorf("container %s: a variable refers to what is not supported here", b.container.Name)
}

func missing(found bool, optional *bool, key, kind, namespace, name string) error {
	if found || optional != nil && *optional {
		return nil
	}
	return fmt.Errorf("couldn't find key %s in %s %s/%s", key, kind, namespace, name)
}

// Expand replaces $(NAME) by values. $$ is a $; a name without value stays as it is.
func Expand(text string, values map[string]string) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(text, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		name, rest, closed := "", "", false
		if strings.HasPrefix(after, "(") {
			name, rest, closed = strings.Cut(after[1:], ")")
		}
		value, known := values[name]
		switch {
		case strings.HasPrefix(after, "$"):
			out.WriteByte('$')
			text = after[1:]
		case closed && known:
			out.WriteString(value)
			text = rest
		case closed:
			out.WriteString("$(" + name + ")")
			text = rest
		default:
			out.WriteByte('$')
			text = after
		}
	}
}

// ExpandAll expands each text by variables as Of returns them.
func ExpandAll(texts, variables []string) []string {
	values := map[string]string{}
	for _, v := range variables {
		name, value, _ := strings.Cut(v, "=")
		values[name] = value
	}
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = Expand(text, values)
	}
	return all
}
