package kubelet

import (
	"context"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"

	"github.com/lateen-mesh/lateen/local/network"
)

// The pauses that let changes gather, and between tries.
const (
	gather     = 5 * time.Millisecond
	againAfter = time.Second
)

// A serviceMap brings what Services and EndpointSlices say into the mesh.
type serviceMap struct {
	k        *Kubelet
	ctx      context.Context
	services corelisters.ServiceLister
	slices   discoverylisters.EndpointSliceLister
	changed  chan struct{}
}

func (k *Kubelet) newServiceMap(ctx context.Context, services corelisters.ServiceLister, slices discoverylisters.EndpointSliceLister) *serviceMap {
	return &serviceMap{k: k, ctx: ctx, services: services, slices: slices, changed: make(chan struct{}, 1)}
}

// change asks for a look at all.
func (m *serviceMap) change() {
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// run sets the mesh's Services until the context ends.
func (m *serviceMap) run() {
	m.change()
	var set []network.Service
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := func(pause time.Duration) {
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-m.ctx.Done():
		}
	}
	for {
		select {
		case <-m.ctx.Done():
			return
		case <-m.changed:
		}
		wait(gather)
		all, err := m.list()
		if err == nil && set != nil && reflect.DeepEqual(all, set) {
			continue
		}
		if err == nil {
			err = m.k.o.Mesh.SetServices(all)
		}
		if err != nil {
			m.k.log.Warn("services of the mesh", "error", err)
			m.change()
			wait(againAfter)
			continue
		}
		set = all
	}
}

// list is every Service with what is behind it, in a stable order.
func (m *serviceMap) list() ([]network.Service, error) {
	services, err := m.services.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	endpoints, err := m.slices.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	byService := map[string][]*discoveryv1.EndpointSlice{}
	for _, s := range endpoints {
		name := s.Namespace + "/" + s.Labels[discoveryv1.LabelServiceName]
		byService[name] = append(byService[name], s)
	}
	all := make([]network.Service, 0, len(services))
	for _, s := range services {
		all = append(all, meshService(s, byService[s.Namespace+"/"+s.Name]))
	}
	slices.SortFunc(all, func(a, b network.Service) int {
		return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name)
	})
	return all, nil
}

// meshService is a Service as the mesh's network has it.
func meshService(s *corev1.Service, behind []*discoveryv1.EndpointSlice) network.Service {
	n := network.Service{Namespace: s.Namespace, Name: s.Name, ClientIP: s.Spec.SessionAffinity == corev1.ServiceAffinityClientIP}
	if s.Spec.Type == corev1.ServiceTypeExternalName {
		n.ExternalName = s.Spec.ExternalName
		return n
	}
	for _, text := range s.Spec.ClusterIPs {
		if a, err := netip.ParseAddr(text); err == nil {
			n.Addresses = append(n.Addresses, a)
		}
	}
	for _, p := range s.Spec.Ports {
		n.Ports = append(n.Ports, network.Port{Name: p.Name, Protocol: string(p.Protocol), Port: uint16(p.Port),
			Backends: backends(p.Name, behind, s.Spec.PublishNotReadyAddresses)})
	}
	if len(n.Addresses) == 0 {
		n.Endpoints = []netip.Addr{}
	}
	for _, e := range chosen(behind, s.Spec.PublishNotReadyAddresses) {
		a, err := netip.ParseAddr(e.Addresses[0])
		if err != nil {
			continue
		}
		if n.Endpoints != nil && !slices.Contains(n.Endpoints, a) {
			n.Endpoints = append(n.Endpoints, a)
		}
		if e.Hostname == nil || *e.Hostname == "" {
			continue
		}
		if n.Hosts == nil {
			n.Hosts = map[string][]netip.Addr{}
		}
		if host := *e.Hostname; !slices.Contains(n.Hosts[host], a) {
			n.Hosts[host] = append(n.Hosts[host], a)
		}
	}
	slices.SortFunc(n.Endpoints, netip.Addr.Compare)
	return n
}

// backends are those of a Service's port: the endpoints' own number of its name.
func backends(name string, behind []*discoveryv1.EndpointSlice, notReady bool) []netip.AddrPort {
	var all []netip.AddrPort
	for _, s := range behind {
		for _, p := range s.Ports {
			if p.Port == nil || p.Name != nil && *p.Name != name || p.Name == nil && name != "" {
				continue
			}
			for _, e := range chosen([]*discoveryv1.EndpointSlice{s}, notReady) {
				if a, err := netip.ParseAddr(e.Addresses[0]); err == nil {
					all = append(all, netip.AddrPortFrom(a, uint16(*p.Port)))
				}
			}
		}
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// chosen are the endpoints that serve: those that are ready, else those that end but still serve.
func chosen(behind []*discoveryv1.EndpointSlice, notReady bool) []discoveryv1.Endpoint {
	var ready, ending []discoveryv1.Endpoint
	for _, s := range behind {
		for _, e := range s.Endpoints {
			switch c := e.Conditions; {
			case len(e.Addresses) == 0:
			case notReady, c.Ready == nil, *c.Ready:
				ready = append(ready, e)
			case c.Serving != nil && *c.Serving && c.Terminating != nil && *c.Terminating:
				ending = append(ending, e)
			}
		}
	}
	if len(ready) == 0 {
		return ending
	}
	return ready
}
