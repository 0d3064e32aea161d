package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// pollTime is between looks at what is waited for.
const pollTime = 100 * time.Millisecond

// Wait returns when all Deployments among the objects run as they are asked to, and all
// definitions are served. Before, it tells what it waits for whenever that changes, progress
// may be nil. At the end of the context the error says what was not ready, and why.
func (c *Cluster) Wait(ctx context.Context, objects []*unstructured.Unstructured, progress func(waitsFor string)) error {
	tick := time.NewTicker(pollTime)
	defer tick.Stop()
	told := ""
	for {
		waits, err := c.firstUnready(ctx, objects)
		if err == nil && waits == "" {
			return nil
		}
		if err == nil && waits != told { // while the API is away the last word holds
			told = waits
			if progress != nil {
				progress(waits)
			}
		}
		select {
		case <-ctx.Done():
			if told == "" {
				return fmt.Errorf("not known to be ready: %w", err)
			}
			return fmt.Errorf("%s is not ready%s", told, c.reason(context.WithoutCancel(ctx), objects))
		case <-tick.C:
		}
	}
}

// firstUnready is "Kind namespace/name" of the first object that is not ready, "" when all are.
func (c *Cluster) firstUnready(ctx context.Context, objects []*unstructured.Unstructured) (string, error) {
	for _, o := range objects {
		var ready bool
		var err error
		switch o.GetKind() {
		case "Deployment":
			var d *appsv1.Deployment
			if d, err = c.typed.AppsV1().Deployments(o.GetNamespace()).Get(ctx, o.GetName(), metav1.GetOptions{}); err == nil {
				ready = runs(d)
			}
		case "CustomResourceDefinition":
			ready, err = c.served(ctx, o)
		default:
			continue
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return "", err
		}
		if !ready {
			return strings.TrimPrefix(o.GetKind()+" "+o.GetNamespace()+"/"+o.GetName(), "CustomResourceDefinition /"), nil
		}
	}
	return "", nil
}

// runs reports whether the pods of a Deployment are those that it asks for now, and ready.
func runs(d *appsv1.Deployment) bool {
	want := int32(1)
	if d.Spec.Replicas != nil {
		want = *d.Spec.Replicas
	}
	s := d.Status
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas >= want && s.AvailableReplicas >= want && s.Replicas == s.UpdatedReplicas
}

func (c *Cluster) served(ctx context.Context, o *unstructured.Unstructured) (bool, error) {
	r, err := resourceOf(o.GetKind())
	if err != nil {
		return false, err
	}
	now, err := c.of(r, "").Get(ctx, o.GetName(), metav1.GetOptions{})
	if err != nil {
		return false, err
	}
	conditions, _, _ := unstructured.NestedSlice(now.Object, "status", "conditions")
	for _, element := range conditions {
		if m, ok := element.(map[string]any); ok && m["type"] == "Established" {
			return m["status"] == "True", nil
		}
	}
	return false, nil
}

// reason is what the pods of the first Deployment that does not run say, "" when they are silent.
func (c *Cluster) reason(ctx context.Context, objects []*unstructured.Unstructured) string {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, o := range objects {
		if o.GetKind() != "Deployment" {
			continue
		}
		d, err := c.typed.AppsV1().Deployments(o.GetNamespace()).Get(ctx, o.GetName(), metav1.GetOptions{})
		if err != nil || runs(d) {
			continue
		}
		pods, err := c.typed.CoreV1().Pods(o.GetNamespace()).List(ctx, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
		if err != nil {
			return ""
		}
		for i := range pods.Items {
			if why := trouble(&pods.Items[i]); why != "" {
				return ": " + why
			}
		}
		for _, condition := range d.Status.Conditions {
			if condition.Status == corev1.ConditionFalse && condition.Type == appsv1.DeploymentProgressing || condition.Type == appsv1.DeploymentReplicaFailure {
				return ": " + condition.Message
			}
		}
	}
	return ""
}

// trouble is what keeps a pod from being ready, "" for one that is.
func trouble(p *corev1.Pod) string {
	for _, s := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if w := s.State.Waiting; w != nil && w.Reason != "PodInitializing" {
			return strings.TrimSuffix(fmt.Sprintf("pod %s: container %s: %s: %s", p.Name, s.Name, w.Reason, w.Message), ": ")
		}
	}
	for _, condition := range p.Status.Conditions {
		if condition.Status == corev1.ConditionFalse && condition.Message != "" {
			return fmt.Sprintf("pod %s: %s", p.Name, condition.Message)
		}
	}
	if p.Status.Phase == corev1.PodPending && p.Spec.NodeName != "" && len(p.Status.ContainerStatuses) == 0 {
		return fmt.Sprintf("pod %s: node %s has not begun to run it", p.Name, p.Spec.NodeName)
	}
	return ""
}

// Unhealthy lists the objects that are not in the API, and the Deployments that do not run.
func (c *Cluster) Unhealthy(ctx context.Context, objects []*unstructured.Unstructured) (map[*unstructured.Unstructured]string, error) {
	bad := map[*unstructured.Unstructured]string{}
	for _, o := range objects {
		lacks, err := c.Lacks(ctx, o)
		if err != nil {
			return nil, err
		}
		if lacks {
			bad[o] = "there is none"
			continue
		}
		waits, err := c.firstUnready(ctx, []*unstructured.Unstructured{o})
		if err != nil {
			return nil, err
		}
		if waits != "" {
			bad[o] = "not ready" + c.reason(ctx, []*unstructured.Unstructured{o})
		}
	}
	return bad, nil
}

func gitVersion(body []byte) (string, error) {
	var v struct {
		GitVersion string `json:"gitVersion"`
	}
	if err := json.Unmarshal(body, &v); err != nil {
		return "", fmt.Errorf("version of the API: %w", err)
	}
	return v.GitVersion, nil
}
