package inject

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// ignoredNamespaces hold what runs the cluster itself.
var ignoredNamespaces = []string{metav1.NamespaceSystem, metav1.NamespacePublic, corev1.NamespaceNodeLease, "local-path-storage"}

// Required says whether a pod is to be injected, why not, and what its author should know:
// that a pod which asked to be injected was not.
//
// The label sidecar.istio.io/inject of the pod decides, then the annotation of that name.
// Where both are silent the selectors of the settings do, those that never inject first,
// then the policy. Pods in the network of their node have no traffic of their own to
// redirect and are left alone, as are the namespaces of the cluster itself and those that
// are labelled istio-injection=disabled.
func (s *Settings) Required(r Request) (required bool, reason string, warnings []string) {
	said, where := wish(r.Pod)
	refused := func(why string) (bool, string, []string) {
		if truth(said) {
			warnings = append(warnings, fmt.Sprintf("%s is %q, but there is no sidecar: %s", where, said, why))
		}
		return false, why, warnings
	}
	namespace := r.Pod.Namespace
	if namespace == "" {
		namespace = r.Namespace
	}
	switch {
	case r.Pod.Spec.HostNetwork:
		return refused("the pod is in the network of its node (hostNetwork)")
	case slices.Contains(ignoredNamespaces, namespace):
		return refused("namespace " + namespace + " is the cluster's own")
	case r.NamespaceLabels[labelNamespace] == "disabled":
		return refused("namespace " + namespace + " has the label istio-injection=disabled")
	case said != "" && truth(said):
		return true, "", nil
	case said != "":
		return false, fmt.Sprintf("%s is %q", where, said), nil
	}
	set := labels.Set(r.Pod.Labels)
	for _, never := range s.never {
		if matches(never, set) {
			return false, "a neverInjectSelector matches the pod's labels", nil
		}
	}
	for _, always := range s.always {
		if matches(always, set) {
			return true, "", nil
		}
	}
	if !s.enabled {
		return false, "the policy of the injector is disabled", nil
	}
	return true, "", nil
}

// wish is what the pod says about injection, and where.
func wish(pod *corev1.Pod) (said, where string) {
	if v, ok := pod.Labels[labelInject]; ok {
		return v, "label " + labelInject
	}
	return pod.Annotations[labelInject], "annotation " + labelInject
}

func truth(said string) bool {
	return slices.Contains([]string{"true", "yes", "y", "on"}, strings.ToLower(said))
}

// matches is whether a selector that says something matches.
func matches(s labels.Selector, set labels.Set) bool { return !s.Empty() && s.Matches(set) }
