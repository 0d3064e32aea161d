package local

import (
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
)

// The word for a pod is the one that kubectl shows.
func TestPodStatus(t *testing.T) {
	always, yes := corev1.ContainerRestartPolicyAlways, true
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waits := func(why string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: why}}
	}
	ended := func(code int32, why string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ExitCode: code, Reason: why}}
	}
	containers := func(all ...corev1.ContainerState) (list []corev1.ContainerStatus) {
		for _, s := range all {
			list = append(list, corev1.ContainerStatus{State: s, Name: "c", Started: &yes})
		}
		return list
	}
	for want, p := range map[string]corev1.Pod{
		"Running":           {Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: containers(running)}},
		"Pending":           {Status: corev1.PodStatus{Phase: corev1.PodPending}},
		"Terminating":       {ObjectMeta: metav1.ObjectMeta{DeletionTimestamp: &metav1.Time{}}, Status: corev1.PodStatus{Phase: corev1.PodRunning}},
		"CrashLoopBackOff":  {Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: containers(running, waits("CrashLoopBackOff"))}},
		"Completed":         {Status: corev1.PodStatus{Phase: corev1.PodSucceeded, ContainerStatuses: containers(ended(0, "Completed"))}},
		"Error":             {Status: corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: containers(ended(1, "Error"), ended(0, "Completed"))}},
		"ExitCode:3":        {Status: corev1.PodStatus{Phase: corev1.PodFailed, ContainerStatuses: containers(ended(3, ""))}},
		"Evicted":           {Status: corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted"}},
		"Init:1/2":          {Spec: corev1.PodSpec{InitContainers: make([]corev1.Container, 2)}, Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: containers(ended(0, "Completed"), waits("PodInitializing"))}},
		"Init:Error":        {Spec: corev1.PodSpec{InitContainers: make([]corev1.Container, 1)}, Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: containers(ended(1, "Error"))}},
		"ContainerCreating": {Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "c", RestartPolicy: &always}}}, Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: containers(running), ContainerStatuses: containers(waits("ContainerCreating"))}},
	} {
		if got := statusOf(&p); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Containers are counted as kubectl does: a sidecar among the init containers is one.
func TestContainersOfPod(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	p := &corev1.Pod{
		Spec: corev1.PodSpec{InitContainers: []corev1.Container{{Name: "istio-init"}, {Name: "istio-proxy", RestartPolicy: &always}}, Containers: []corev1.Container{{Name: "app"}}},
		Status: corev1.PodStatus{
			InitContainerStatuses: []corev1.ContainerStatus{{Name: "istio-init", Ready: true}, {Name: "istio-proxy", Ready: true}},
			ContainerStatuses:     []corev1.ContainerStatus{{Name: "app"}},
		},
	}
	if d := describe(p); d.Up != 1 || d.Of != 2 {
		t.Errorf("%d/%d, want 1/2", d.Up, d.Of)
	}
	p.Status.ContainerStatuses[0].Ready = true
	if d := describe(p); d.Up != 2 || d.Of != 2 {
		t.Errorf("%d/%d, want 2/2", d.Up, d.Of)
	}
}

// A start is over when controllers have made what Deployments want, and taken away what
// was deleted while nothing ran.
func TestDeployed(t *testing.T) {
	one := int32(1)
	meta := func(name, ownerKind, owner string) metav1.ObjectMeta {
		m := metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID(name)}
		if owner != "" {
			yes := true
			m.OwnerReferences = []metav1.OwnerReference{{Kind: ownerKind, Name: owner, UID: types.UID(owner), Controller: &yes}}
		}
		return m
	}
	wanted := func(generation, observed int64, replicas int32) *appsv1.Deployment {
		d := &appsv1.Deployment{ObjectMeta: meta("web", "", ""), Spec: appsv1.DeploymentSpec{Replicas: &one},
			Status: appsv1.DeploymentStatus{ObservedGeneration: observed, Replicas: replicas}}
		d.Generation = generation
		return d
	}
	set := &appsv1.ReplicaSet{ObjectMeta: meta("web-1", "Deployment", "web")}
	pod := &corev1.Pod{ObjectMeta: meta("web-1-a", "ReplicaSet", "web-1")}
	leaving := pod.DeepCopy()
	leaving.DeletionTimestamp = &metav1.Time{}
	for name, c := range map[string]struct {
		objects []runtime.Object
		want    bool
	}{
		"nothing":                         {nil, true},
		"all is there":                    {[]runtime.Object{wanted(1, 1, 1), set, pod}, true},
		"not looked at yet":               {[]runtime.Object{wanted(2, 1, 1), set, pod}, false},
		"a pod is missing":                {[]runtime.Object{wanted(1, 1, 0), set}, false},
		"a set of a Deployment gone":      {[]runtime.Object{set}, false},
		"a pod of a set gone":             {[]runtime.Object{pod}, false},
		"the same, on its way out":        {[]runtime.Object{leaving}, true},
		"a pod of somebody who is no set": {[]runtime.Object{&corev1.Pod{ObjectMeta: meta("job-a", "Job", "job")}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := deployed(t.Context(), fake.NewClientset(c.objects...)); got != c.want {
				t.Errorf("deployed: %v", got)
			}
		})
	}
}

func TestCountPods(t *testing.T) {
	ready, all := countPods([]Pod{{Ready: true}, {Phase: corev1.PodSucceeded}, {Phase: corev1.PodPending}, {Ready: true, Status: terminating}})
	if ready != 2 || all != 3 {
		t.Errorf("%d of %d", ready, all)
	}
}
