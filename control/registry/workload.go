package registry

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/control/config"
)

// Labels of Kubernetes that the registry reads of a Node or Pod.
const (
	regionLabel      = "topology.kubernetes.io/region"
	oldRegionLabel   = "failure-domain.beta.kubernetes.io/region"
	zoneLabel        = "topology.kubernetes.io/zone"
	oldZoneLabel     = "failure-domain.beta.kubernetes.io/zone"
	subZoneLabel     = "topology.istio.io/subzone"
	podTemplateLabel = "pod-template-hash"
)

// indexWorkloads finds the Pods that have an address and have not run to their end.
func (b *builder) indexWorkloads() {
	b.workloads = map[string]*Workload{}
	b.localities = map[string]Locality{}
	b.podsIn = map[string][]*Workload{}
	for _, c := range b.set.List(config.Node) {
		b.localities[c.Name] = nodeLocality(c.Labels)
	}
	networks := map[string]string{}
	for _, c := range b.set.List(config.Namespace) {
		networks[c.Name] = c.Labels[networkLabel]
	}
	for _, c := range b.set.List(config.Pod) {
		pod := c.Spec.(*corev1.Pod)
		w := &Workload{
			Name: c.Name, Namespace: c.Namespace, Addresses: podAddresses(pod), Labels: c.Labels,
			ServiceAccount: cmp.Or(pod.Spec.ServiceAccountName, "default"), Owner: owner(pod),
			Locality: b.localities[pod.Spec.NodeName], Network: cmp.Or(c.Labels[networkLabel], networks[c.Namespace]),
			TLSMode: cmp.Or(c.Labels[tlsModeLabel], "disabled"), Ready: isReady(pod), Terminating: pod.DeletionTimestamp != nil, HostNetwork: pod.Spec.HostNetwork,
		}
		if own := c.Labels[localityLabel]; own != "" {
			w.Locality = ParseLocality(strings.ReplaceAll(own, ".", "/"))
		}
		if len(w.Addresses) == 0 || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
			continue
		}
		w.Network = cmp.Or(w.Network, b.network(w.Addresses[0]))
		b.workloads[c.Namespace+"/"+c.Name] = w
		b.pods = append(b.pods, w)
		b.podsIn[c.Namespace] = append(b.podsIn[c.Namespace], w)
	}
}

// indexDepartures marks the Pods that are about to end. What leaves and is no Pod is known
// by its addresses, but not by one that it shares with all on its machine.
func (b *builder) indexDepartures() {
	b.gone = map[string]bool{}
	for _, d := range b.opts.Leaving {
		if w := b.workloads[d.Namespace+"/"+d.Name]; w != nil && d.has(w) {
			w.Leaving = true
			continue
		}
		for _, a := range d.Addresses {
			if ip, err := netip.ParseAddr(a); err == nil && !ip.IsLoopback() && !b.isPodAddress(a) {
				b.gone[a] = true
			}
		}
	}
}

func (b *builder) isPodAddress(a string) bool {
	return slices.ContainsFunc(b.pods, func(w *Workload) bool { return slices.Contains(w.Addresses, a) })
}

func nodeLocality(labels map[string]string) Locality {
	return Locality{
		Region:  cmp.Or(labels[regionLabel], labels[oldRegionLabel]),
		Zone:    cmp.Or(labels[zoneLabel], labels[oldZoneLabel]),
		SubZone: labels[subZoneLabel],
	}
}

func podAddresses(pod *corev1.Pod) []string {
	var all []string
	for _, ip := range pod.Status.PodIPs {
		all = append(all, ip.IP)
	}
	if ip := pod.Status.PodIP; ip != "" && !slices.Contains(all, ip) {
		all = append([]string{ip}, all...)
	}
	return all
}

func isReady(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// scheduledJob is the name of a Job that a CronJob has made.
var scheduledJob = regexp.MustCompile(`^(.+)-\d{8,}$`)

// owner is the name of what a person has written to have the Pod.
func owner(pod *corev1.Pod) string {
	ref := metav1.GetControllerOf(pod)
	if ref == nil {
		return pod.Name
	}
	switch ref.Kind {
	case "ReplicaSet":
		if hash := pod.Labels[podTemplateLabel]; hash != "" {
			return strings.TrimSuffix(ref.Name, "-"+hash)
		}
	case "Job":
		if m := scheduledJob.FindStringSubmatch(ref.Name); m != nil {
			return m[1]
		}
	}
	return ref.Name
}

// identity is the SPIFFE identity of a service account.
func (b *builder) identity(namespace, account string) string {
	return fmt.Sprintf("spiffe://%s/ns/%s/sa/%s", b.opts.TrustDomain, namespace, account)
}

// network is that of an address of which nothing says more.
func (b *builder) network(address string) string {
	if b.opts.Network != "" || len(b.opts.Blocks) == 0 {
		return b.opts.Network
	}
	a, err := netip.ParseAddr(address)
	if err != nil { // a name, or a path
		return ""
	}
	for _, block := range b.opts.Blocks {
		if block.Prefix.Contains(a.Unmap()) {
			return block.Network
		}
	}
	return ""
}

// describe tells what is known of the workload at an endpoint.
func (b *builder) describe(e *Endpoint, w *Workload) {
	e.Namespace, e.WorkloadName, e.Labels = w.Namespace, w.Owner, w.Labels
	e.Locality, e.Network, e.TLSMode = w.Locality, w.Network, w.TLSMode
	e.ServiceAccount = b.identity(w.Namespace, w.ServiceAccount)
	if w.Leaving {
		e.end()
	}
}

// end takes the endpoint of a workload that leaves out of the mesh.
func (e *Endpoint) end() {
	e.Ending = e.Ending || !e.Unhealthy
	e.Unhealthy, e.Draining = true, false
}

// selectedPods are the Pods of the service's namespace that its selector matches.
func (b *builder) selectedPods(s *Service) []*Endpoint {
	var list []*Endpoint
	for _, w := range b.podsIn[s.Namespace] {
		if !selects(s.Selector, w.Labels, nil) {
			continue
		}
		for _, p := range s.Ports {
			e := &Endpoint{Address: w.Addresses[0], Port: cmp.Or(p.TargetPort, p.Number), PortName: p.Name,
				Weight: 1, Cluster: b.opts.ClusterID, Unhealthy: !w.Ready || w.Terminating, Ending: w.Ready && w.Terminating}
			b.describe(e, w)
			list = append(list, e)
		}
	}
	return list
}

// Workloads returns the Pods that have an address, in conflict order. The caller must
// not change the slice.
func (r *Registry) Workloads() []*Workload { return r.workloads }

// WorkloadAt returns the Pod that has one of the addresses for itself, nil if there is
// none.
func (r *Registry) WorkloadAt(addresses []string) *Workload {
	for _, a := range addresses {
		if w := r.workloadAt[a]; w != nil {
			return w
		}
	}
	return nil
}

func (r *Registry) indexWorkloads(pods []*Workload) {
	r.workloads, r.workloadAt = pods, map[string]*Workload{}
	for _, w := range pods {
		if w.HostNetwork {
			continue
		}
		for _, a := range w.Addresses {
			r.workloadAt[a] = w
		}
	}
}
