package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"github.com/lateen-mesh/lateen/install/cluster"
)

// pod finds what POD[.NAMESPACE] or TYPE/NAME[.NAMESPACE] says; of a type, the first ready
// one of its pods.
func (c *connection) pod(ctx context.Context, name string) (*cluster.Cluster, *corev1.Pod, error) {
	api, _, err := c.open(ctx)
	if err != nil {
		return nil, nil, err
	}
	namespace, err := c.namespaceInForce()
	if err != nil {
		return nil, nil, err
	}
	pod, err := findPod(ctx, api.API(), name, namespace)
	return api, pod, err
}

// findPod finds a pod by its name; without a namespace in it, in that one.
func findPod(ctx context.Context, api kubernetes.Interface, name, namespace string) (*corev1.Pod, error) {
	kind, plain, typed := strings.Cut(name, "/")
	if !typed {
		kind, plain = "pod", name
	}
	if dot := strings.LastIndexByte(plain, '.'); dot > 0 {
		plain, namespace = plain[:dot], plain[dot+1:]
	}
	if slices.Contains([]string{"pod", "pods", "po"}, kind) {
		pod, err := api.CoreV1().Pods(namespace).Get(ctx, plain, metav1.GetOptions{})
		if err != nil {
			return nil, withHint(fmt.Errorf("unable to retrieve Pod: %w", err), "see: kubectl get pods -n "+namespace)
		}
		return pod, nil
	}
	selector, err := podsOf(ctx, api, kind, namespace, plain)
	if apierrors.IsNotFound(err) || err == nil && selector == "" {
		refers := fmt.Errorf("%q does not refer to a pod", name)
		if err != nil {
			refers = fmt.Errorf("%w: %w", refers, err)
		}
		return nil, withHint(refers, "name a pod, or a workload or service that has pods: deploy/NAME, service/NAME; see -n")
	}
	if err != nil {
		return nil, err
	}
	return firstPod(ctx, api, namespace, selector, name)
}

// podsOf is the selector of the pods of a workload or service, "" where it has none.
func podsOf(ctx context.Context, api kubernetes.Interface, kind, namespace, name string) (string, error) {
	var selector *metav1.LabelSelector
	var get metav1.GetOptions
	switch strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(kind), ".apps"), "s") {
	case "deployment", "deploy":
		o, err := api.AppsV1().Deployments(namespace).Get(ctx, name, get)
		if err != nil {
			return "", err
		}
		selector = o.Spec.Selector
	case "statefulset", "st": // sts, without its s
		o, err := api.AppsV1().StatefulSets(namespace).Get(ctx, name, get)
		if err != nil {
			return "", err
		}
		selector = o.Spec.Selector
	case "daemonset", "d": // ds
		o, err := api.AppsV1().DaemonSets(namespace).Get(ctx, name, get)
		if err != nil {
			return "", err
		}
		selector = o.Spec.Selector
	case "replicaset", "r": // rs
		o, err := api.AppsV1().ReplicaSets(namespace).Get(ctx, name, get)
		if err != nil {
			return "", err
		}
		selector = o.Spec.Selector
	case "job":
		o, err := api.BatchV1().Jobs(namespace).Get(ctx, name, get)
		if err != nil {
			return "", err
		}
		selector = o.Spec.Selector
	case "service", "svc":
		o, err := api.CoreV1().Services(namespace).Get(ctx, name, get)
		if err != nil {
			return "", err
		}
		return labels.SelectorFromSet(o.Spec.Selector).String(), nil
	}
	if selector == nil {
		return "", nil
	}
	s, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return "", err
	}
	return s.String(), nil
}

// firstPod is the first ready pod of a selector, else the first that runs.
func firstPod(ctx context.Context, api kubernetes.Interface, namespace, selector, name string) (*corev1.Pod, error) {
	list, err := api.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return nil, err
	}
	pods := slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp != nil || p.Status.Phase != corev1.PodRunning
	})
	if len(pods) == 0 {
		return nil, withHint(fmt.Errorf("%q has no pod that runs", name), "see: kubectl get pods -n "+namespace)
	}
	slices.SortFunc(pods, func(a, b corev1.Pod) int { return strings.Compare(a.Name, b.Name) })
	if ready := slices.IndexFunc(pods, isReady); ready >= 0 {
		return &pods[ready], nil
	}
	return &pods[0], nil
}

func isReady(p corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}
