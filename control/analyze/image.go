package analyze

import (
	"fmt"
	"slices"
	"strings"

	meshconfig "istio.io/api/mesh/v1alpha1"
	beta "istio.io/api/networking/v1beta1"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/lateen-mesh/lateen/control/config"
)

// proxyImages finds namespaces with pods whose proxy is not the one that would be injected
// today. A pod that names its image wants another.
func proxyImages(p *pass) {
	injectors := p.injectors()
	outdated := map[string][]string{}
	for _, w := range of[*corev1.Pod](p.Mesh, pod) {
		ns := p.get(namespace, "", w.Namespace)
		if ns == nil || w.annotations["sidecar.istio.io/proxyImage"] != "" {
			continue
		}
		injector := config.InjectorConfigMap
		if ns.labels[labelInjection] != "enabled" {
			if ns.labels[labelRevision] == "" {
				continue
			}
			if revision := ns.labels[labelRevision]; revision != "default" {
				injector += "-" + revision
			}
		}
		values, known := injectors[injector]
		if !known {
			continue
		}
		image := values.image()
		for _, c := range slices.Concat(w.spec.Spec.Containers, w.spec.Spec.InitContainers) {
			if c.Name == proxyContainer && c.Image != image && c.Image != image+"-"+p.imageType(w) {
				outdated[w.Namespace] = append(outdated[w.Namespace], w.Name)
			}
		}
	}
	for _, name := range sortedKeys(outdated) {
		p.report(p.get(namespace, "", name), "", PodsIstioProxyImageMismatchInNamespace, unique(outdated[name]))
	}
}

// image is the proxy's, without variant.
func (v injectorValues) image() string {
	if strings.Contains(v.Global.Proxy.Image, "/") {
		return v.Global.Proxy.Image
	}
	return fmt.Sprintf("%s/%s:%v", v.Global.Hub, v.Global.Proxy.Image, v.Global.Tag)
}

// imageType is the variant of the proxy's image that a pod gets: its own annotation says
// it, else the ProxyConfig for the pod, for its namespace, for the mesh, else the MeshConfig.
func (p *pass) imageType(w item[*corev1.Pod]) string {
	own, _ := config.OverlayProxyConfig(&meshconfig.ProxyConfig{}, []byte(w.annotations["proxy.istio.io/config"]))
	if t := own.GetImage().GetImageType(); t != "" {
		return t
	}
	best, variant := 0, p.meshConfig.GetDefaultConfig().GetImage().GetImageType()
	for _, o := range of[*beta.ProxyConfig](p.Mesh, proxyConfig) {
		t, rank := o.spec.Image.GetImageType(), 0
		switch selector := o.spec.Selector.GetMatchLabels(); {
		case t == "":
		case o.Namespace == w.Namespace && len(selector) > 0 && selects(selector, w.labels):
			rank = 3
		case o.Namespace == w.Namespace && len(selector) == 0:
			rank = 2
		case o.Namespace == p.root() && len(selector) == 0:
			rank = 1
		}
		if rank > best {
			best, variant = rank, t
		}
	}
	return variant
}

// automaticImages finds proxies whose image injection is to fill in, where nothing injects.
func automaticImages(p *pass) {
	var hooks []admissionv1.MutatingWebhook
	for _, o := range of[*admissionv1.MutatingWebhookConfiguration](p.Mesh, mutatingWebhook) {
		for _, w := range o.spec.Webhooks {
			if strings.HasSuffix(w.Name, "istio.io") {
				hooks = append(hooks, w)
			}
		}
	}
	for _, o := range of[*corev1.Pod](p.Mesh, pod) {
		if hasAutomaticImage(&o.spec.Spec) {
			p.report(o.object, "", ImageAutoWithoutInjectionError, "Pod", o.Name)
		}
	}
	for _, o := range of[*appsv1.Deployment](p.Mesh, deployment) {
		if !hasAutomaticImage(&o.spec.Spec.Template.Spec) {
			continue
		}
		var in map[string]string
		if ns := p.get(namespace, "", o.Namespace); ns != nil {
			in = ns.labels
		}
		if !slices.ContainsFunc(hooks, func(w admissionv1.MutatingWebhook) bool {
			return chooses(w.NamespaceSelector, in) && chooses(w.ObjectSelector, o.spec.Spec.Template.Labels)
		}) {
			p.report(o.object, "spec.template", ImageAutoWithoutInjectionWarning, "Deployment", o.Name)
		}
	}
}

func hasAutomaticImage(spec *corev1.PodSpec) bool {
	return slices.ContainsFunc(spec.Containers, func(c corev1.Container) bool { return c.Name == proxyContainer && c.Image == "auto" })
}

// chooses is what a webhook's selector means; one that is not there chooses all.
func chooses(selector *metav1.LabelSelector, of map[string]string) bool {
	if selector == nil {
		return true
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	return err == nil && s.Matches(labels.Set(of))
}
