package analyze

import (
	"maps"
	"slices"
	"strings"

	"istio.io/api/annotation"
	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/inject"
)

// annotated are the kinds whose annotations people write for the mesh.
func annotated() []kind { return []kind{namespace, service, pod, deployment} }

// annotations finds Istio's annotations that do not exist, stand on the wrong kind, have a
// value that cannot be followed, or are going away.
func annotations(p *pass) {
	for _, k := range annotated() {
		for _, o := range p.list(k) {
			for _, name := range sortedKeys(o.annotations) {
				if !istioAnnotation(name) {
					continue
				}
				known := annotationOf(name)
				if known == nil {
					p.report(o, annotationField(name), UnknownAnnotation, name)
					continue
				}
				p.judgeAnnotation(o, known)
			}
		}
	}
}

func (p *pass) judgeAnnotation(o *object, a *annotation.Instance) {
	at := annotationField(a.Name)
	if _, both := o.labels[a.Name]; a.Deprecated && !both { // who has the label as well serves old versions by it
		p.report(o, at, DeprecatedAnnotation, a.Name, "")
	}
	if slices.Contains(a.Resources, annotation.Any) {
		return
	}
	var fits []string
	for _, r := range a.Resources {
		fits = append(fits, r.String())
	}
	if !slices.Contains(fits, string(o.Key.Kind)) {
		p.report(o, at, MisplacedAnnotation, a.Name, strings.Join(fits, ", "))
		return
	}
	if err := inject.CheckAnnotation(a.Name, o.annotations[a.Name]); err != nil {
		p.report(o, at, InvalidAnnotation, a.Name, err.Error())
	}
}

// alphaAnnotations finds annotations of features that are not settled. Those that the mesh
// itself sets are nobody's choice.
func alphaAnnotations(p *pass) {
	for _, k := range annotated() {
		for _, o := range p.list(k) {
			for _, name := range sortedKeys(o.annotations) {
				a := annotationOf(name)
				if istioAnnotation(name) && a != nil && a.FeatureStatus == annotation.Alpha && !setByMesh(o, name) {
					p.report(o, annotationField(name), AlphaAnnotation, name)
				}
			}
		}
	}
}

func setByMesh(o *object, name string) bool {
	switch name {
	case annotation.IoIstioRev.Name, annotation.SidecarStatus.Name, annotation.GatewayControllerVersion.Name:
		return true
	case annotation.SidecarInterceptionMode.Name, annotation.SidecarTrafficIncludeInboundPorts.Name,
		annotation.SidecarTrafficExcludeInboundPorts.Name, annotation.SidecarTrafficIncludeOutboundIPRanges.Name,
		annotation.SidecarTrafficExcludeOutboundIPRanges.Name:
		// Injection writes these for the node's plugin, which then sets up the redirection that
		// the pod's own init container only checks.
		whole, ok := o.spec.(*corev1.Pod)
		return ok && slices.ContainsFunc(whole.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == "istio-validation" })
	}
	return false
}

func istioAnnotation(name string) bool {
	prefix, _, _ := strings.Cut(name, "/")
	return name == annotation.IoKubernetesIngressClass.Name || prefix == "istio.io" || strings.HasSuffix(prefix, ".istio.io")
}

func annotationOf(name string) *annotation.Instance {
	for _, a := range annotation.AllResourceAnnotations() {
		if a.Name == name {
			return a
		}
	}
	return nil
}

// annotationField is the path of an annotation, whose name has dots.
func annotationField(name string) string { return `metadata.annotations["` + name + `"]` }

func sortedKeys[K ~string, V any](m map[K]V) []K { return slices.Sorted(maps.Keys(m)) }
