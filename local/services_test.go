package local

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
)

func TestServed(t *testing.T) {
	yes, no := true, false
	service := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "web"}}}
	pod := func(status corev1.ConditionStatus) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{"app": "web"}},
			Status: corev1.PodStatus{PodIP: "10.244.0.7", Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}}}
	}
	slice := func(ready *bool, address string) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-x", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ready}}}}
	}
	for _, c := range []struct {
		name    string
		objects []runtime.Object
		want    bool
	}{
		{"nothing", nil, true},
		{"a Service without pods", []runtime.Object{service}, true},
		{"a pod that is not ready", []runtime.Object{service, pod(corev1.ConditionFalse)}, true},
		{"a ready pod that the Service does not know", []runtime.Object{service, pod(corev1.ConditionTrue)}, false},
		{"one that it knows as not ready", []runtime.Object{service, pod(corev1.ConditionTrue), slice(&no, "10.244.0.7")}, false},
		{"one by another address", []runtime.Object{service, pod(corev1.ConditionTrue), slice(&yes, "10.244.0.8")}, false},
		{"one that it knows", []runtime.Object{service, pod(corev1.ConditionTrue), slice(&yes, "10.244.0.7")}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := served(t.Context(), fake.NewClientset(c.objects...)); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
}
