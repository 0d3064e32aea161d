package analyze

import (
	"strings"

	security "istio.io/api/security/v1beta1"
	corev1 "k8s.io/api/core/v1"
)

// authorizationPolicies finds policies for workloads that do not exist and sources in
// namespaces that do not. A policy that targets objects by name selects no workloads.
func authorizationPolicies(p *pass) {
	pods := p.meshPods()
	for _, o := range of[*security.AuthorizationPolicy](p.Mesh, authorizationPolicy) {
		if len(o.spec.TargetRefs) == 0 && o.spec.TargetRef == nil {
			p.checkSelection(o, pods)
		}
		for i, rule := range o.spec.Rules {
			for j, from := range rule.From {
				at := indexed("spec.rules", i) + indexed(".from", j) + ".source."
				p.checkNamespaces(o.object, at+"namespaces", from.Source.GetNamespaces())
				p.checkNamespaces(o.object, at+"notNamespaces", from.Source.GetNotNamespaces())
			}
		}
	}
}

func (p *pass) checkSelection(o item[*security.AuthorizationPolicy], pods []item[*corev1.Pod]) {
	selector := o.spec.Selector.GetMatchLabels()
	meshWide := o.Namespace == p.root()
	if meshWide && len(selector) == 0 {
		return
	}
	for _, w := range pods {
		if (meshWide || w.Namespace == o.Namespace) && selects(selector, w.labels) {
			return
		}
	}
	p.report(o.object, "spec.selector.matchLabels", NoMatchingWorkloadsFound, written(selector))
}

func (p *pass) checkNamespaces(o *object, field string, patterns []string) {
	for i, pattern := range patterns {
		if !p.hasNamespace(pattern) {
			p.report(o, indexed(field, i), ReferencedResourceNotFound, "namespace", pattern)
		}
	}
}

// hasNamespace reports whether there is a namespace for a value as policies write them:
// "a", "a*", "*a" or "*".
func (p *pass) hasNamespace(pattern string) bool {
	for _, ns := range p.list(namespace) {
		prefix, open := strings.CutSuffix(pattern, "*")
		suffix, late := strings.CutPrefix(pattern, "*")
		if ns.Name == pattern || open && strings.HasPrefix(ns.Name, prefix) || late && strings.HasSuffix(ns.Name, suffix) {
			return true
		}
	}
	return false
}

// meshPods are the pods that have a proxy, are to get one, or are served by that of their node.
func (m *Mesh) meshPods() []item[*corev1.Pod] {
	var all []item[*corev1.Pod]
	for _, w := range m.pods() {
		if m.inMesh(w.Namespace, w.labels, w.annotations, &w.spec.Spec) || ambientPod(w.object) {
			all = append(all, w)
		}
	}
	return all
}
