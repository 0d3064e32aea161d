package kubelet

import (
	"context"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	corelisters "k8s.io/client-go/listers/core/v1"
)

// machineAddress is where users of this machine reach what it publishes.
const machineAddress = "127.0.0.1"

// A balancer stands in for a cluster's load balancers: a Service of that type has the address of this
// machine once one of its ports is published here for a pod behind it. It keeps the address while
// its pods change.
type balancer struct {
	k        *Kubelet
	services corelisters.ServiceLister
	changed  chan struct{}
}

func newBalancer(k *Kubelet, services corelisters.ServiceLister) *balancer {
	return &balancer{k: k, services: services, changed: make(chan struct{}, 1)}
}

// change asks for a look at all.
func (b *balancer) change() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// run gives addresses until the context ends.
func (b *balancer) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-b.changed:
		}
		all, err := b.services.List(labels.Everything())
		if err != nil {
			b.k.log.Warn("load balancers", "error", err)
			continue
		}
		for _, s := range all {
			if b.wants(s) {
				b.give(ctx, s)
			}
		}
	}
}

func (b *balancer) wants(s *corev1.Service) bool {
	return s.Spec.Type == corev1.ServiceTypeLoadBalancer && len(s.Spec.Selector) > 0 && len(s.Status.LoadBalancer.Ingress) == 0 && b.k.publishes(s)
}

// give writes the address. A Service that changes meanwhile is looked at again.
func (b *balancer) give(ctx context.Context, s *corev1.Service) {
	s = s.DeepCopy()
	s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: machineAddress}}
	_, err := b.k.client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, s, metav1.UpdateOptions{})
	if err != nil && !apierrors.IsConflict(err) && !isGone(err) && ctx.Err() == nil {
		b.k.log.Warn("load balancer", "service", s.Namespace+"/"+s.Name, "error", err)
	}
}

// publishes reports whether a port of a Service is a port of this machine, of a pod behind the Service.
func (k *Kubelet) publishes(s *corev1.Service) bool {
	chosen, found := labels.SelectorFromSet(s.Spec.Selector), false
	k.each(func(w *worker) {
		pod := w.pod()
		if found || pod.Namespace != s.Namespace || !chosen.Matches(labels.Set(pod.Labels)) {
			return
		}
		found = slices.ContainsFunc(w.box.published(), func(at netip.AddrPort) bool {
			return slices.ContainsFunc(s.Spec.Ports, func(p corev1.ServicePort) bool { return int32(at.Port()) == p.Port })
		})
	})
	return found
}
