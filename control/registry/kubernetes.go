package registry

import (
	"cmp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/lateen-mesh/lateen/control/config"
)

const exportToAnnotation = "networking.istio.io/exportTo"

// kubernetes adds the Kubernetes Services with the endpoints of their
// EndpointSlices and of the WorkloadEntries that their selectors match.
func (b *builder) kubernetes() {
	b.aliases = map[string]string{}
	slices := b.slicesByService()
	for _, c := range b.set.List(config.Service) {
		svc := c.Spec.(*corev1.Service)
		host := c.Name + "." + c.Namespace + ".svc." + b.opts.Domain
		if svc.Spec.Type == corev1.ServiceTypeExternalName {
			b.aliases[host] = strings.ToLower(strings.TrimSuffix(svc.Spec.ExternalName, "."))
			continue
		}
		own := slices[c.Namespace+"/"+c.Name]
		b.piece(c, own, func(p *piece) {
			s := b.kubernetesService(c, svc, host)
			var endpoints []*Endpoint
			for _, es := range own {
				endpoints = append(endpoints, b.sliceEndpoints(s, svc, es)...)
			}
			if len(s.Selector) > 0 {
				endpoints = append(endpoints, b.selected(s)...)
			}
			p.add(s, endpoints)
		})
	}
}

func (b *builder) slicesByService() map[string][]*config.Config {
	m := map[string][]*config.Config{}
	for _, c := range b.set.List(config.EndpointSlice) {
		k := c.Namespace + "/" + c.Labels[discoveryv1.LabelServiceName]
		m[k] = append(m[k], c)
	}
	return m
}

func (b *builder) kubernetesService(c *config.Config, svc *corev1.Service, host string) *Service {
	s := &Service{
		Host:         host,
		Name:         c.Name,
		Namespace:    c.Namespace,
		ExportTo:     b.opts.ServiceExportTo,
		Labels:       c.Labels,
		Selector:     svc.Spec.Selector,
		CreationTime: c.CreationTime,
		Origin:       c,
	}
	if to := c.Annotations[exportToAnnotation]; to != "" {
		s.ExportTo = nil
		for ns := range strings.SplitSeq(to, ",") {
			s.ExportTo = append(s.ExportTo, strings.TrimSpace(ns))
		}
	}
	for _, at := range svc.Status.LoadBalancer.Ingress {
		if at.IP != "" {
			s.ExternalAddresses = append(s.ExternalAddresses, at.IP)
		}
	}
	s.ExternalAddresses = append(s.ExternalAddresses, svc.Spec.ExternalIPs...)
	for _, p := range svc.Spec.Ports {
		s.Ports = append(s.Ports, kubernetesPort(p))
	}
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		s.Headless, s.Resolution = true, Passthrough
		return s
	}
	s.Addresses = clusterIPs(svc)
	return s
}

func clusterIPs(svc *corev1.Service) []string {
	if len(svc.Spec.ClusterIPs) > 0 {
		return svc.Spec.ClusterIPs
	}
	if svc.Spec.ClusterIP != "" {
		return []string{svc.Spec.ClusterIP}
	}
	return nil
}

func kubernetesPort(p corev1.ServicePort) Port {
	app := ""
	if p.AppProtocol != nil {
		app = *p.AppProtocol
	}
	port := Port{Name: p.Name, Number: uint32(p.Port), Protocol: ProtocolOf(string(p.Protocol), p.Name, app)}
	switch {
	case p.TargetPort.Type == intstr.Int && p.TargetPort.IntVal != 0:
		port.TargetPort = uint32(p.TargetPort.IntVal)
	case p.TargetPort.Type == intstr.Int:
		port.TargetPort = port.Number
	}
	return port
}

// sliceEndpoints are the endpoints of one slice, told apart by the Pods that it names. An
// endpoint whose Pod is not known is taken as it is; but a slice that an API server holds
// is about Pods of that server: until such a Pod is known, nothing could say whether to
// speak TLS to it and what to expect there, so it waits.
func (b *builder) sliceEndpoints(s *Service, svc *corev1.Service, c *config.Config) []*Endpoint {
	es := c.Spec.(*discoveryv1.EndpointSlice)
	if es.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	var list []*Endpoint
	for _, e := range es.Endpoints {
		pod, named := b.podOf(c.Namespace, e.TargetRef)
		if named && pod == nil && c.Source.File == "" {
			continue
		}
		for _, p := range es.Ports {
			if p.Port == nil {
				continue
			}
			for _, address := range e.Addresses {
				list = append(list, b.sliceEndpoint(s, svc, e, p, address, pod))
			}
		}
	}
	return list
}

// podOf is the Pod that a slice says is behind an address; named is whether it says one.
func (b *builder) podOf(namespace string, ref *corev1.ObjectReference) (pod *Workload, named bool) {
	if ref == nil || ref.Kind != string(config.Pod) || ref.Name == "" {
		return nil, false
	}
	return b.workloads[cmp.Or(ref.Namespace, namespace)+"/"+ref.Name], true
}

func (b *builder) sliceEndpoint(s *Service, svc *corev1.Service, e discoveryv1.Endpoint, p discoveryv1.EndpointPort, address string, pod *Workload) *Endpoint {
	isTrue := func(v *bool) bool { return v != nil && *v }
	ready := e.Conditions.Ready == nil || *e.Conditions.Ready || svc.Spec.PublishNotReadyAddresses
	// A Pod says that it is to end before its slice does.
	ending := ready && pod != nil && pod.Terminating && !svc.Spec.PublishNotReadyAddresses
	out := &Endpoint{
		Address:   address,
		Port:      uint32(*p.Port),
		Weight:    1,
		Cluster:   b.opts.ClusterID,
		Network:   b.network(address),
		Namespace: s.Namespace,
		TLSMode:   "disabled",
		Unhealthy: !ready || ending,
		Ending:    ending,
		Draining:  ending || isTrue(e.Conditions.Terminating) && isTrue(e.Conditions.Serving) && !ready,
	}
	if p.Name != nil {
		out.PortName = *p.Name
	}
	if e.Hostname != nil {
		out.Hostname = *e.Hostname
	}
	if e.TargetRef != nil {
		out.WorkloadName = e.TargetRef.Name
	}
	switch {
	case pod != nil:
		b.describe(out, pod)
	case e.NodeName != nil:
		out.Locality = b.localities[*e.NodeName]
	}
	if pod == nil && b.gone[address] {
		out.end()
	}
	return out
}
