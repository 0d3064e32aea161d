package explain

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	networking "istio.io/api/networking/v1alpha3"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lateen-mesh/lateen/control/config"
)

// assumption fills in what a cluster would add to the objects of files.
type assumption struct {
	objects  []*config.Config
	pods     []*corev1.Pod
	services []*corev1.Service
}

// tlsMode is the label of pods whose proxy takes mutual TLS.
const tlsMode = "security.istio.io/tlsMode"

// assume returns the objects with the pods of workloads, addresses, endpoints and gateways
// that a cluster would have of them.
func assume(objects []*config.Config, documents map[config.Key]config.Document) []*config.Config {
	a := &assumption{objects: slices.Clone(objects)}
	a.workloads(documents)
	a.gateways()
	a.addresses()
	a.endpoints()
	return a.objects
}

// workloads makes a pod of each object that runs pods.
func (a *assumption) workloads(documents map[config.Key]config.Document) {
	for _, key := range sortedKeys(documents) {
		d := documents[key]
		if !slices.Contains([]string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController"}, string(key.Kind)) {
			continue
		}
		var o struct {
			Spec struct {
				Replicas *int32                 `json:"replicas"`
				Template corev1.PodTemplateSpec `json:"template"`
			} `json:"spec"`
		}
		if json.Unmarshal(d.JSON, &o) != nil || o.Spec.Replicas != nil && *o.Spec.Replicas == 0 {
			continue
		}
		pod := &corev1.Pod{ObjectMeta: o.Spec.Template.ObjectMeta, Spec: o.Spec.Template.Spec}
		pod.Name, pod.Namespace = key.Name, key.Namespace
		a.add(pod, d.Source)
	}
	for i, c := range a.objects {
		if pod, ok := c.Spec.(*corev1.Pod); ok && pod.Status.PodIP == "" {
			pod = pod.DeepCopy()
			a.start(pod)
			clone := *c
			clone.Labels, clone.Spec = pod.Labels, pod
			a.objects[i] = &clone
		}
	}
}

func sortedKeys(documents map[config.Key]config.Document) []config.Key {
	return slices.SortedFunc(maps.Keys(documents), func(a, b config.Key) int {
		return slices.Compare([]string{a.Namespace, a.Name, string(a.Kind)}, []string{b.Namespace, b.Name, string(b.Kind)})
	})
}

// add adds a pod that runs.
func (a *assumption) add(pod *corev1.Pod, source config.Source) {
	a.start(pod)
	a.objects = append(a.objects, &config.Config{
		Key: config.Key{Kind: config.Pod, Namespace: pod.Namespace, Name: pod.Name}, APIVersion: "v1", Labels: pod.Labels, Annotations: pod.Annotations, Spec: pod, Source: source,
	})
}

// start gives a pod an address and, unless it wants none, a proxy.
func (a *assumption) start(pod *corev1.Pod) {
	n := len(a.pods) + 2
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: fmt.Sprintf("10.244.%d.%d", n/250, n%250), Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	pod.Status.PodIPs = []corev1.PodIP{{IP: pod.Status.PodIP}}
	const inject = "sidecar.istio.io/inject"
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	if _, said := pod.Labels[tlsMode]; !said && pod.Labels[inject] != "false" && pod.Annotations[inject] != "false" {
		pod.Labels[tlsMode] = "istio"
	}
	a.pods = append(a.pods, pod)
}

// gateways makes those that Gateways select and nobody runs.
func (a *assumption) gateways() {
	made := map[string]*corev1.Service{}
	for _, c := range slices.Clone(a.objects) {
		g, ok := c.Spec.(*networking.Gateway)
		if !ok || len(g.GetSelector()) == 0 {
			continue
		}
		key := labels.Set(g.GetSelector()).String()
		service := made[key]
		if service == nil {
			if slices.ContainsFunc(a.pods, func(p *corev1.Pod) bool { return selects(g.GetSelector(), p) }) {
				continue
			}
			service = a.gateway(g.GetSelector())
			made[key] = service
		}
		for _, s := range g.GetServers() {
			publish(service, int32(s.GetPort().GetNumber()))
		}
	}
}

// gateway makes one with a Service in front of it.
func (a *assumption) gateway(selector map[string]string) *corev1.Service {
	name := "gateway"
	for _, label := range []string{"istio", "app"} {
		if v := selector[label]; v != "" {
			name = v
		}
	}
	if selector["istio"] != "" && name == selector["istio"] {
		name = "istio-" + name
	}
	own := metav1.ObjectMeta{Name: name, Namespace: config.DefaultRootNamespace, Labels: maps.Clone(selector)}
	pod := &corev1.Pod{ObjectMeta: own, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "istio-proxy", Args: []string{"proxy", "router"}}}, ServiceAccountName: name + "-service-account"}}
	a.add(pod, config.Source{})
	service := &corev1.Service{ObjectMeta: own, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Selector: selector}}
	publish(service, 80)
	publish(service, 443)
	a.objects = append(a.objects, &config.Config{Key: config.Key{Kind: config.Service, Namespace: own.Namespace, Name: name}, APIVersion: "v1", Labels: own.Labels, Spec: service})
	return service
}

// publish adds a port to a gateway's Service, in the pod above those that need privileges.
func publish(s *corev1.Service, port int32) {
	if slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == port || p.TargetPort.IntVal == port }) {
		return
	}
	target := port
	if port < 1024 {
		target += 8000
	}
	s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprintf("tcp-%d", port), Port: port, TargetPort: intstr.FromInt32(target)})
}

// addresses gives Services those that they lack.
func (a *assumption) addresses() {
	n := 0
	for i, c := range a.objects {
		s, ok := c.Spec.(*corev1.Service)
		if !ok {
			continue
		}
		s = s.DeepCopy()
		if s.Spec.ClusterIP == "" && s.Spec.Type != corev1.ServiceTypeExternalName {
			n++
			s.Spec.ClusterIP = fmt.Sprintf("10.96.%d.%d", n/250, n%250+1)
			s.Spec.ClusterIPs = []string{s.Spec.ClusterIP}
			clone := *c
			clone.Spec = s
			a.objects[i] = &clone
		}
		s.Namespace, s.Name = c.Namespace, c.Name
		a.services = append(a.services, s)
	}
}

// endpoints makes the slices of Services that have none.
func (a *assumption) endpoints() {
	has := map[string]bool{}
	for _, c := range a.objects {
		if c.Kind == config.EndpointSlice {
			has[c.Namespace+"/"+c.Labels[discoveryv1.LabelServiceName]] = true
		}
	}
	for _, s := range a.services {
		if len(s.Spec.Selector) == 0 || has[s.Namespace+"/"+s.Name] {
			continue
		}
		for _, pod := range a.pods {
			if pod.Namespace == s.Namespace && selects(s.Spec.Selector, pod) {
				a.objects = append(a.objects, slice(s, pod))
			}
		}
	}
}

func selects(selector map[string]string, pod *corev1.Pod) bool {
	return labels.SelectorFromSet(selector).Matches(labels.Set(pod.Labels))
}

// slice is what a pod serves of a Service.
func slice(s *corev1.Service, pod *corev1.Pod) *config.Config {
	ready, name := true, s.Name+"-"+pod.Name
	out := &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{pod.Status.PodIP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name}}},
	}
	for _, p := range s.Spec.Ports {
		target := p.TargetPort.IntVal
		for _, c := range pod.Spec.Containers {
			for _, own := range c.Ports {
				if p.TargetPort.Type == intstr.String && own.Name == p.TargetPort.StrVal {
					target = own.ContainerPort
				}
			}
		}
		if target == 0 {
			target = p.Port
		}
		out.Ports = append(out.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &target, Protocol: &p.Protocol})
	}
	return &config.Config{Key: config.Key{Kind: config.EndpointSlice, Namespace: s.Namespace, Name: name}, APIVersion: "discovery.k8s.io/v1",
		Labels: map[string]string{discoveryv1.LabelServiceName: s.Name}, Spec: out}
}
