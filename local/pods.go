package local

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// A Pod is one pod as `status` shows it.
type Pod struct {
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	Phase     corev1.PodPhase `json:"phase"`
	Status    string          `json:"status"` // as kubectl has it: the phase, or why it is not what it should be
	Ready     bool            `json:"ready"`
	Up        int             `json:"readyContainers"`
	Of        int             `json:"containers"`
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
		Of: len(p.Spec.Containers), Status: statusOf(p)}
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			d.Ready = c.Status == corev1.ConditionTrue
		}
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		d.Restarts += int(c.RestartCount)
		if w := c.State.Waiting; w != nil && (faulty(w.Reason) || unmade(*w)) && !d.leaves() {
			d.Problem = fmt.Sprintf("container %s: %s", c.Name, cmp.Or(w.Message, w.Reason))
		}
	}
	for _, c := range p.Spec.InitContainers { // a sidecar counts as a container, as in kubectl
		if keepsRunning(p, c.Name) {
			d.Of++
		}
	}
	for _, c := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		init := slices.ContainsFunc(p.Spec.InitContainers, func(i corev1.Container) bool { return i.Name == c.Name })
		if c.Ready && (!init || keepsRunning(p, c.Name)) {
			d.Up++
		}
	}
	return d
}

// leaves reports that the pod is about to end.
func (p Pod) leaves() bool { return p.Status == terminating }

// settled reports that waiting changes nothing: the pod is ready, has ended, or has a fault.
func (p Pod) settled() bool {
	return p.Ready || p.Problem != "" || p.Phase == corev1.PodSucceeded || p.Phase == corev1.PodFailed
}

// countPods says how many pods are ready, or done, and how many there are beside those
// that leave.
func countPods(pods []Pod) (ready, all int) {
	for _, p := range pods {
		if p.leaves() {
			continue
		}
		all++
		if p.Ready || p.Phase == corev1.PodSucceeded {
			ready++
		}
	}
	return ready, all
}

// faulty are the reasons for waiting that name a fault.
func faulty(reason string) bool {
	switch reason {
	case "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CrashLoopBackOff", "CreateContainerConfigError", "CreateContainerError", "RunContainerError", "StartError":
		return true
	}
	return false
}

// unmade reports that what a pod needs could not be made: its network, a port, a volume.
// While it is being made there is nothing to say.
func unmade(w corev1.ContainerStateWaiting) bool {
	return w.Message != "" && (w.Reason == "ContainerCreating" || w.Reason == "PodInitializing")
}

const terminating = "Terminating"

// statusOf is kubectl's word for how a pod is.
func statusOf(p *corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return terminating
	}
	for i, c := range p.Status.InitContainerStatuses {
		done := c.State.Terminated != nil && c.State.Terminated.ExitCode == 0
		sidecar := c.State.Running != nil && c.Started != nil && *c.Started && keepsRunning(p, c.Name)
		if done || sidecar {
			continue
		}
		if why := trouble(c.State); why != "" && why != "PodInitializing" {
			return "Init:" + why
		}
		return fmt.Sprintf("Init:%d/%d", i, len(p.Spec.InitContainers))
	}
	status, running := cmp.Or(p.Status.Reason, string(p.Status.Phase)), false
	for _, c := range slices.Backward(p.Status.ContainerStatuses) {
		status = cmp.Or(trouble(c.State), status)
		running = running || c.State.Running != nil
	}
	if status == "Completed" && running {
		return string(corev1.PodRunning)
	}
	return status
}

// keepsRunning reports whether an init container is one that stays beside the others.
func keepsRunning(p *corev1.Pod, name string) bool {
	return slices.ContainsFunc(p.Spec.InitContainers, func(c corev1.Container) bool {
		return c.Name == name && c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
	})
}

// trouble is why a container does not run, "" when it does.
func trouble(s corev1.ContainerState) string {
	switch {
	case s.Waiting != nil:
		return s.Waiting.Reason
	case s.Terminated != nil:
		return cmp.Or(s.Terminated.Reason, fmt.Sprintf("ExitCode:%d", s.Terminated.ExitCode))
	}
	return ""
}

// deployed reports whether the controllers have done what Deployments ask for: there are
// the pods that they want, and none of what was deleted.
func deployed(ctx context.Context, client kubernetes.Interface) bool {
	now := metav1.ListOptions{ResourceVersion: "0"} // from the server's memory
	deployments, err := client.AppsV1().Deployments("").List(ctx, now)
	if err != nil {
		return false
	}
	sets, err := client.AppsV1().ReplicaSets("").List(ctx, now)
	if err != nil {
		return false
	}
	pods, err := client.CoreV1().Pods("").List(ctx, now)
	if err != nil {
		return false
	}
	owners := map[types.UID]bool{}
	for _, d := range deployments.Items {
		owners[d.UID] = true
		if d.Status.ObservedGeneration < d.Generation || d.Spec.Replicas != nil && d.Status.Replicas < *d.Spec.Replicas {
			return false
		}
	}
	for _, set := range sets.Items {
		owners[set.UID] = true
		if orphaned(&set, "Deployment", owners) {
			return false
		}
	}
	return !slices.ContainsFunc(pods.Items, func(p corev1.Pod) bool {
		return p.DeletionTimestamp == nil && orphaned(&p, "ReplicaSet", owners)
	})
}

// orphaned reports that the owner of an object has gone, so that it will go too.
func orphaned(o metav1.Object, kind string, owners map[types.UID]bool) bool {
	owner := metav1.GetControllerOf(o)
	return owner != nil && owner.Kind == kind && !owners[owner.UID]
}
