package analyze

import (
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// proxyUID is the user that proxies run as; what it sends is not redirected to the proxy.
const proxyUID = 1337

// applicationUIDs finds applications that run as the proxy's user.
func applicationUIDs(p *pass) {
	for _, o := range of[*corev1.Pod](p.Mesh, pod) {
		p.checkUID(o.object, "spec", &o.spec.Spec)
	}
	for _, o := range of[*appsv1.Deployment](p.Mesh, deployment) {
		p.checkUID(o.object, "spec.template.spec", &o.spec.Spec.Template.Spec)
	}
}

func (p *pass) checkUID(o *object, at string, spec *corev1.PodSpec) {
	if s := spec.SecurityContext; s != nil && s.RunAsUser != nil && *s.RunAsUser == proxyUID {
		p.report(o, at+".securityContext.runAsUser", InvalidApplicationUID)
		return
	}
	for i, c := range spec.Containers {
		if s := c.SecurityContext; c.Name != proxyContainer && s != nil && s.RunAsUser != nil && *s.RunAsUser == proxyUID {
			p.report(o, indexed(at+".containers", i)+".securityContext.runAsUser", InvalidApplicationUID)
			return
		}
	}
}

// serviceAssociations finds deployments that several services lead to and whose services
// disagree: on the protocol of a port, or on the port of a target port.
func serviceAssociations(p *pass) {
	for _, o := range of[*appsv1.Deployment](p.Mesh, deployment) {
		template := o.spec.Spec.Template
		if !p.inMesh(o.Namespace, template.Labels, template.Annotations, &template.Spec) {
			continue
		}
		var serving []item[*corev1.Service]
		for _, s := range of[*corev1.Service](p.Mesh, service) {
			if s.Namespace == o.Namespace && len(s.spec.Spec.Selector) > 0 && selects(s.spec.Spec.Selector, template.Labels) {
				serving = append(serving, s)
			}
		}
		p.compareProtocols(o, serving)
		p.compareTargets(o, serving)
	}
}

func (p *pass) compareProtocols(o item[*appsv1.Deployment], serving []item[*corev1.Service]) {
	names, protocols := map[int32][]string{}, map[int32][]corev1.Protocol{}
	for _, s := range serving {
		for _, port := range s.spec.Spec.Ports {
			names[port.Port] = append(names[port.Port], s.Name)
			protocols[port.Port] = append(protocols[port.Port], port.Protocol)
		}
	}
	for _, port := range sortedNumbers(names) {
		slices.Sort(protocols[port])
		if differ(protocols[port]) && differ(slices.Sorted(slices.Values(names[port]))) {
			p.report(o.object, "metadata.name", DeploymentAssociatedToMultipleServices, o.Name, port, unique(names[port]))
		}
	}
}

func (p *pass) compareTargets(o item[*appsv1.Deployment], serving []item[*corev1.Service]) {
	names, ports := map[string][]string{}, map[string][]int32{}
	for _, s := range serving {
		for _, port := range s.spec.Spec.Ports {
			target := port.TargetPort.String()
			names[target] = append(names[target], s.Name)
			ports[target] = append(ports[target], port.Port)
		}
	}
	for _, target := range sortedKeys(names) {
		if slices.Sort(ports[target]); differ(ports[target]) && differ(unique(names[target])) {
			p.report(o.object, "metadata.name", DeploymentConflictingPorts, o.Name, unique(names[target]), target, slices.Compact(ports[target]))
		}
	}
}

// differ reports whether sorted values are not all the same.
func differ[T comparable](sorted []T) bool {
	return len(sorted) > 1 && sorted[0] != sorted[len(sorted)-1]
}

func unique(names []string) []string { return slices.Compact(slices.Sorted(slices.Values(names))) }

func sortedNumbers[V any](m map[int32]V) []int32 {
	var all []int32
	for n := range m {
		all = append(all, n)
	}
	slices.Sort(all)
	return all
}

// indexed is the path of an element: "spec.http[1]".
func indexed(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }
