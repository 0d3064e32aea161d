package registry

import (
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
		s := b.kubernetesService(c, svc, host)
		var endpoints []*Endpoint
		for _, es := range slices[c.Namespace+"/"+c.Name] {
			endpoints = append(endpoints, b.sliceEndpoints(s, svc, es)...)
		}
		if len(s.Selector) > 0 {
			endpoints = append(endpoints, b.selected(s)...)
		}
		b.add(s, endpoints)
	}
}

func (b *builder) slicesByService() map[string][]*discoveryv1.EndpointSlice {
	m := map[string][]*discoveryv1.EndpointSlice{}
	for _, c := range b.set.List(config.EndpointSlice) {
		k := c.Namespace + "/" + c.Labels[discoveryv1.LabelServiceName]
		m[k] = append(m[k], c.Spec.(*discoveryv1.EndpointSlice))
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

// sliceEndpoints are the endpoints of one slice. What a workload is called and
// labelled is known only from its pod, of which the slice gives the name.
func (b *builder) sliceEndpoints(s *Service, svc *corev1.Service, es *discoveryv1.EndpointSlice) []*Endpoint {
	if es.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	var list []*Endpoint
	for _, e := range es.Endpoints {
		name := ""
		if e.TargetRef != nil {
			name = e.TargetRef.Name
		}
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready || svc.Spec.PublishNotReadyAddresses
		serving := e.Conditions.Serving != nil && *e.Conditions.Serving
		terminating := e.Conditions.Terminating != nil && *e.Conditions.Terminating
		for _, p := range es.Ports {
			if p.Port == nil {
				continue
			}
			portName := ""
			if p.Name != nil {
				portName = *p.Name
			}
			for _, address := range e.Addresses {
				list = append(list, &Endpoint{
					Address:      address,
					Port:         uint32(*p.Port),
					PortName:     portName,
					Weight:       1,
					Cluster:      b.opts.ClusterID,
					Namespace:    s.Namespace,
					WorkloadName: name,
					TLSMode:      "disabled",
					Unhealthy:    !ready,
					Draining:     terminating && serving && !ready,
				})
			}
		}
	}
	return list
}
