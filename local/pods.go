package local

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// A Pod is one pod as `status` shows it.
type Pod struct {
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Phase     corev1.PodPhase `json:"phase"`
	Ready     bool            `json:"ready"`
	Up, Of    int             `json:"-"` // containers that are ready, and all
	Restarts  int             `json:"restarts"`
	Address   string          `json:"address,omitempty"`
	Since     time.Time       `json:"since"`
	Problem   string          `json:"problem,omitempty"` // what waiting will not mend
}

func listPods(ctx context.Context, client kubernetes.Interface) ([]Pod, error) {
	// From the server's memory: what it has now is what is asked for.
	list, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	pods := make([]Pod, 0, len(list.Items))
	for i := range list.Items {
		pods = append(pods, describe(&list.Items[i]))
	}
	slices.SortFunc(pods, func(a, b Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return pods, nil
}

func describe(p *corev1.Pod) Pod {
	d := Pod{Namespace: p.Namespace, Name: p.Name, Phase: p.Status.Phase, Address: p.Status.PodIP, Since: p.CreationTimestamp.Time,
		Of: len(p.Spec.Containers)}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			d.Ready = c.Status == corev1.ConditionTrue
		}
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		d.Restarts += int(c.RestartCount)
		if w := c.State.Waiting; w != nil && faulty(w.Reason) {
			d.Problem = fmt.Sprintf("container %s: %s", c.Name, cmp.Or(w.Message, w.Reason))
		}
	}
	for _, c := range p.Status.ContainerStatuses {
		if c.Ready {
			d.Up++
		}
	}
	return d
}

// faulty are the reasons for waiting that name a fault.
func faulty(reason string) bool {
	switch reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError":
		return true
	}
	return false
}
