package inject

import (
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// scheduledJob is the name of a Job that a CronJob made: the CronJob's, and a time in seconds
// or minutes.
var scheduledJob = regexp.MustCompile(`^(.+)-\d{8,10}$`)

// ownerOf is the workload that a pod is of, as its users know it: the Deployment of a
// ReplicaSet, the CronJob of a Job, the pod itself where it is nobody's.
func ownerOf(pod *corev1.Pod) (metav1.TypeMeta, metav1.ObjectMeta) {
	kind := metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}
	meta := metav1.ObjectMeta{Name: pod.Name, Namespace: pod.Namespace, Labels: pod.Labels, Annotations: pod.Annotations, OwnerReferences: pod.OwnerReferences}
	if owner := metav1.GetControllerOfNoCopy(pod); owner != nil {
		kind.APIVersion, kind.Kind, meta.Name = owner.APIVersion, owner.Kind, owner.Name
		switch hash := "-" + pod.Labels["pod-template-hash"]; {
		case kind.Kind == "ReplicaSet" && hash != "-" && strings.HasSuffix(owner.Name, hash):
			kind.Kind, meta.Name = "Deployment", strings.TrimSuffix(owner.Name, hash)
		case kind.Kind == "ReplicationController" && pod.Labels["deploymentconfig"] != "":
			kind.APIVersion, kind.Kind, meta.Name = "apps.openshift.io/v1", "DeploymentConfig", pod.Labels["deploymentconfig"]
		case kind.Kind == "Job" && scheduledJob.MatchString(owner.Name):
			kind.Kind, meta.Name = "CronJob", scheduledJob.FindStringSubmatch(owner.Name)[1]
		}
	}
	if meta.Name == "" {
		meta.Name = strings.TrimSuffix(pod.GenerateName, "-")
	}
	return kind, meta
}
