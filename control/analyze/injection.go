package analyze

import (
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/inject"
)

const (
	proxyContainer = inject.ProxyContainer
	labelInjection = "istio-injection" // of a namespace: enabled, disabled
	labelRevision  = "istio.io/rev"
	labelDataPlane = "istio.io/dataplane-mode" // ambient: the node's proxy serves
	injectWish     = "sidecar.istio.io/inject" // label or annotation of a pod
)

// injection finds namespaces whose labels do not say whether, or say twice how, their pods
// are part of the mesh, and pods that should have a proxy and have none.
func injection(p *pass) {
	byDefault := p.injectsByDefault()
	for _, ns := range p.list(namespace) {
		if systemNamespace(ns.Name) || ns.Name == p.root() {
			continue
		}
		how := injectionLabels(ns.labels)
		switch {
		case ns.labels[labelInjection] == "disabled":
		case len(how) > 1:
			p.report(ns, "metadata.labels", NamespaceMultipleInjectionLabels, how)
		case len(how) == 1:
		case byDefault:
			p.report(ns, "", NamespaceInjectionEnabledByDefault)
		default:
			p.report(ns, "", NamespaceNotInjected, ns.Name, ns.Name)
		}
	}
	for _, w := range of[*corev1.Pod](p.Mesh, pod) {
		ns := p.get(namespace, "", w.Namespace)
		if ns == nil || systemNamespace(ns.Name) || w.spec.Spec.HostNetwork {
			continue
		}
		how := injectionLabels(ns.labels)
		if len(how) != 1 || how[0] == labelDataPlane || ns.labels[labelInjection] == "disabled" {
			continue
		}
		if wish, said := wishOf(w.labels, w.annotations); (!said || wish) && !hasProxy(&w.spec.Spec) {
			p.report(w.object, "", PodMissingProxy, w.Name)
		}
	}
}

// injectionLabels are the labels of a namespace that bring its pods into the mesh.
func injectionLabels(labels map[string]string) []string {
	var all []string
	if labels[labelInjection] == "enabled" {
		all = append(all, labelInjection)
	}
	if labels[labelDataPlane] == "ambient" {
		all = append(all, labelDataPlane)
	}
	if labels[labelRevision] != "" {
		all = append(all, labelRevision)
	}
	return all
}

// systemNamespace reports whether a namespace holds what runs the cluster itself.
func systemNamespace(name string) bool {
	return strings.HasPrefix(name, "kube-") || name == "local-path-storage"
}

// wishOf is what a pod says of its injection, the label first.
func wishOf(labels, annotations map[string]string) (wish, said bool) {
	text, said := labels[injectWish]
	if !said {
		text, said = annotations[injectWish]
	}
	return strings.EqualFold(text, "true"), said
}

func hasProxy(spec *corev1.PodSpec) bool {
	proxy := func(c corev1.Container) bool { return c.Name == proxyContainer }
	return slices.ContainsFunc(spec.Containers, proxy) || slices.ContainsFunc(spec.InitContainers, proxy)
}

// inMesh reports whether pods such as this have a sidecar, or get one.
func (m *Mesh) inMesh(in string, labels, annotations map[string]string, spec *corev1.PodSpec) bool {
	if hasProxy(spec) {
		return true
	}
	if wish, said := wishOf(labels, annotations); said {
		return wish
	}
	ns := m.get(namespace, "", in)
	return ns != nil && ns.labels[labelInjection] != "disabled" &&
		(ns.labels[labelInjection] == "enabled" || ns.labels[labelRevision] != "")
}

// ambientPod reports whether the proxy of its node serves a pod.
func ambientPod(o *object) bool {
	return o.annotations["ambient.istio.io/redirection"] == "enabled"
}

// ambientNamespace reports whether pods of a namespace are served by their nodes' proxies,
// where they have none of their own.
func ambientNamespace(o *object) bool {
	return o != nil && slices.Equal(injectionLabels(o.labels), []string{labelDataPlane})
}

// injectorValues are what analyzers read of the values of injection.
type injectorValues struct {
	Global struct {
		Hub   string `json:"hub"`
		Tag   any    `json:"tag"`
		Proxy struct {
			Image string `json:"image"`
		} `json:"proxy"`
	} `json:"global"`
	Webhook struct {
		ByDefault bool `json:"enableNamespacesByDefault"`
	} `json:"sidecarInjectorWebhook"`
}

// injectors are the values of each injector by the name of its ConfigMap.
func (p *pass) injectors() map[string]injectorValues {
	all := map[string]injectorValues{}
	for _, o := range of[*corev1.ConfigMap](p.Mesh, configMap) {
		if o.Namespace != p.root() || !strings.HasPrefix(o.Name, config.InjectorConfigMap) {
			continue
		}
		var v injectorValues
		if json.Unmarshal([]byte(o.spec.Data[inject.ValuesKey]), &v) == nil {
			all[o.Name] = v
		}
	}
	return all
}

func (p *pass) injectsByDefault() bool {
	for _, v := range p.injectors() {
		if v.Webhook.ByDefault {
			return true
		}
	}
	return false
}
