package local

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
)

// served reports whether every Service knows all ready pods that it selects: the
// controller that tells it is up to a second behind.
func served(ctx context.Context, client kubernetes.Interface) bool {
	now := metav1.ListOptions{ResourceVersion: "0"}
	services, err := client.CoreV1().Services("").List(ctx, now)
	if err != nil {
		return false
	}
	pods, err := client.CoreV1().Pods("").List(ctx, now)
	if err != nil {
		return false
	}
	slices, err := client.DiscoveryV1().EndpointSlices("").List(ctx, now)
	if err != nil {
		return false
	}
	known := readyAddresses(slices.Items)
	for i := range services.Items {
		s := &services.Items[i]
		if len(s.Spec.Selector) == 0 {
			continue
		}
		chosen := labels.SelectorFromSet(s.Spec.Selector)
		for j := range pods.Items {
			p := &pods.Items[j]
			if p.Namespace == s.Namespace && chosen.Matches(labels.Set(p.Labels)) && isReady(p) && !known[endpoint{s.Namespace, s.Name, p.Status.PodIP}] {
				return false
			}
		}
	}
	return true
}

// An endpoint is an address that a Service sends to.
type endpoint struct{ namespace, service, address string }

func readyAddresses(slices []discoveryv1.EndpointSlice) map[endpoint]bool {
	known := map[endpoint]bool{}
	for _, s := range slices {
		for _, e := range s.Endpoints {
			if e.Conditions.Ready != nil && !*e.Conditions.Ready {
				continue
			}
			for _, a := range e.Addresses {
				known[endpoint{s.Namespace, s.Labels[discoveryv1.LabelServiceName], a}] = true
			}
		}
	}
	return known
}

func isReady(p *corev1.Pod) bool {
	if p.DeletionTimestamp != nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
