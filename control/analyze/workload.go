package analyze

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/control/config"
)

// pods are the workloads that selectors choose from. Of files they are those, too, that
// Deployments and the like will make. The caller must not change the slice.
func (m *Mesh) pods() []item[*corev1.Pod] {
	if m.workloads == nil {
		m.workloads = of[*corev1.Pod](m, pod)
		if m.options.Files {
			m.workloads = append(m.workloads, m.templates()...)
		}
	}
	return m.workloads
}

// templates are the pods that are to be made.
func (m *Mesh) templates() (all []item[*corev1.Pod]) {
	for _, o := range of[*appsv1.Deployment](m, deployment) {
		all = append(all, made(o.object, o.spec.Spec.Template))
	}
	for _, o := range of[*appsv1.StatefulSet](m, statefulSet) {
		all = append(all, made(o.object, o.spec.Spec.Template))
	}
	for _, o := range of[*appsv1.DaemonSet](m, daemonSet) {
		all = append(all, made(o.object, o.spec.Spec.Template))
	}
	return all
}

// made is the pod of a template.
func made(by *object, t corev1.PodTemplateSpec) item[*corev1.Pod] {
	o := &object{Key: config.Key{Kind: config.Pod, Namespace: by.Namespace, Name: by.Name}, kind: pod,
		labels: t.Labels, annotations: t.Annotations, source: by.source, line: by.line}
	return item[*corev1.Pod]{o, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: by.Namespace, Name: by.Name, Labels: t.Labels, Annotations: t.Annotations}, Spec: t.Spec}}
}
