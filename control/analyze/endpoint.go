package analyze

import (
	"fmt"
	"slices"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lateen-mesh/lateen/control/registry"
)

// clusterLabel marks secrets with the kubeconfig of another cluster.
const clusterLabel = "istio/multiCluster"

// emptyDestinations finds destinations of VirtualServices that nothing serves. Where
// services of other clusters join those of this one, this one does not tell.
func emptyDestinations(p *pass) {
	if slices.ContainsFunc(p.list(secret), func(o *object) bool { return o.labels[clusterLabel] == "true" }) {
		return
	}
	for _, o := range p.routes() {
		for _, d := range destinations(o.spec) {
			s := p.destinationOf(o, d.GetHost())
			if s == nil || d.idle {
				continue
			}
			if reason, fix := p.unserved(s, d.GetPort().GetNumber()); reason != "" {
				p.report(o.object, d.at, DestinationWithoutEndpoints, short(d.at), d.GetHost(), reason, fix)
			}
		}
	}
}

// unserved says why nothing serves the port of a service, 0 being all its ports, and what to do.
func (p *pass) unserved(s *registry.Service, number uint32) (reason, fix string) {
	if s.FromEntry {
		return p.unservedEntry(s)
	}
	whole, ok := s.Origin.Spec.(*corev1.Service)
	if !ok || whole.Spec.Type == corev1.ServiceTypeExternalName {
		return "", ""
	}
	if len(whole.Spec.Selector) == 0 {
		if p.options.Files || p.hasEndpoints(s) { // Endpoints in files become EndpointSlices later
			return "", ""
		}
		return fmt.Sprintf("Service %s/%s has no selector, and no EndpointSlice has an address for it", s.Namespace, s.Name), "Give it one of both."
	}
	var selected []*corev1.Pod
	known := false
	for _, w := range p.pods() {
		if w.Namespace == s.Namespace {
			known = true
			if selects(whole.Spec.Selector, w.labels) {
				selected = append(selected, w.spec)
			}
		}
	}
	switch {
	case p.options.Files && !known: // the workloads are written elsewhere
	case len(selected) == 0:
		return fmt.Sprintf("no pod of namespace %s has the labels %s of Service %s", s.Namespace, written(whole.Spec.Selector), s.Name),
			"Start one, or correct the Service's selector."
	default:
		return missingPort(whole, selected, number)
	}
	return "", ""
}

// missingPort finds a service whose ports name ports that no container of its pods has.
func missingPort(s *corev1.Service, pods []*corev1.Pod, number uint32) (reason, fix string) {
	for _, port := range s.Spec.Ports {
		if number != 0 && uint32(port.Port) != number || number == 0 && len(s.Spec.Ports) > 1 || port.TargetPort.Type != intstr.String {
			continue
		}
		if !slices.ContainsFunc(pods, func(w *corev1.Pod) bool { return namesPort(w, port.TargetPort.StrVal) }) {
			return fmt.Sprintf("no container of the pods of Service %s/%s has a port with the name %q", s.Namespace, s.Name, port.TargetPort.StrVal),
				"Name the container's port so, or give the Service its number as targetPort."
		}
	}
	return "", ""
}

// namesPort reports whether a container of the pod has a port of the name.
func namesPort(w *corev1.Pod, name string) bool {
	for _, c := range slices.Concat(w.Spec.InitContainers, w.Spec.Containers) {
		if slices.ContainsFunc(c.Ports, func(port corev1.ContainerPort) bool { return port.Name == name }) {
			return true
		}
	}
	return false
}

func (p *pass) unservedEntry(s *registry.Service) (reason, fix string) {
	entry, ok := s.Origin.Spec.(*networking.ServiceEntry)
	if !ok || entry.Resolution != networking.ServiceEntry_STATIC || p.hasEndpoints(s) {
		return "", ""
	}
	if labels := entry.WorkloadSelector.GetLabels(); len(labels) > 0 {
		return fmt.Sprintf("no pod or WorkloadEntry of namespace %s has the labels %s of ServiceEntry %s", s.Namespace, written(labels), s.Origin.Name),
			"Start one, or correct the entry's workloadSelector."
	}
	return fmt.Sprintf("ServiceEntry %s/%s has resolution STATIC and no endpoints", s.Namespace, s.Origin.Name), "Give it endpoints, or resolution DNS."
}

func (p *pass) hasEndpoints(s *registry.Service) bool {
	return slices.ContainsFunc(s.Ports, func(port registry.Port) bool { return len(p.snapshot.Registry.Endpoints(s, port)) > 0 })
}
