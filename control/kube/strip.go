package kube

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lateen-mesh/lateen/control/config"
)

// certificateKeys are the entries of Secrets and ConfigMaps that hold certificates.
func certificateKeys() []string {
	return []string{"tls.crt", "tls.key", "tls.ocsp-staple", "ca.crt", "ca.crl", "cert", "key", "cacert", "crl"}
}

// strip leaves of an object what the mesh reads. Objects that it has no part in yield
// false.
func (r reading) strip(object metav1.Object) bool {
	annotations := object.GetAnnotations()
	delete(annotations, corev1.LastAppliedConfigAnnotation)
	object.SetManagedFields(nil)
	object.SetFinalizers(nil)
	object.SetUID("")
	object.SetResourceVersion("")
	object.SetGeneration(0)
	object.SetGenerateName("")
	if _, isPod := object.(*corev1.Pod); !isPod {
		object.SetOwnerReferences(nil)
	}
	if typed, ok := object.(runtime.Object); ok {
		typed.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	}
	switch o := object.(type) {
	case *corev1.Namespace:
		o.Spec, o.Status, o.Annotations = corev1.NamespaceSpec{}, corev1.NamespaceStatus{}, istioAnnotations(annotations)
	case *corev1.Node:
		version := corev1.NodeSystemInfo{KubeletVersion: o.Status.NodeInfo.KubeletVersion} // what sidecars its pods can have
		o.Spec, o.Status, o.Annotations = corev1.NodeSpec{}, corev1.NodeStatus{NodeInfo: version}, nil
	case *corev1.Service:
		o.Status.Conditions = nil
	case *discoveryv1.EndpointSlice:
		o.Annotations = nil // the time of the last change among them
		for i := range o.Endpoints {
			o.Endpoints[i].Hints, o.Endpoints[i].DeprecatedTopology = nil, nil
			if ref := o.Endpoints[i].TargetRef; ref != nil {
				*ref = corev1.ObjectReference{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}
			}
		}
	case *corev1.Pod:
		return stripPod(o)
	case *corev1.Secret:
		if o.Namespace == r.root && (o.Name == PluggedAuthority || o.Name == OwnAuthority) {
			return false // their keys are for the authority alone
		}
		o.Annotations = nil
		maps.DeleteFunc(o.Data, func(k string, _ []byte) bool { return !slices.Contains(certificateKeys(), k) })
	case *corev1.ConfigMap:
		o.Annotations, o.BinaryData = nil, nil
		if o.Namespace != r.root || o.Name != config.MeshConfigMap && !strings.HasPrefix(o.Name, config.InjectorConfigMap) {
			maps.DeleteFunc(o.Data, func(k, _ string) bool { return !slices.Contains(certificateKeys(), k) })
		}
	}
	return true
}

// stripPod leaves who a Pod is, where it can be reached and whether it is to end; without
// an address it is nobody's endpoint.
func stripPod(o *corev1.Pod) bool {
	o.Annotations = istioAnnotations(o.Annotations)
	o.Spec = corev1.PodSpec{NodeName: o.Spec.NodeName, ServiceAccountName: o.Spec.ServiceAccountName, HostNetwork: o.Spec.HostNetwork}
	ready := slices.ContainsFunc(o.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
	o.Status = corev1.PodStatus{PodIP: o.Status.PodIP, PodIPs: o.Status.PodIPs}
	if ready {
		o.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	}
	o.DeletionGracePeriodSeconds = nil
	for i := range o.OwnerReferences {
		o.OwnerReferences[i].UID = ""
	}
	return o.Status.PodIP != "" || len(o.Status.PodIPs) > 0
}

// istioAnnotations are those that speak to the mesh; what the injector has written about
// its own work is long and of no use.
func istioAnnotations(all map[string]string) map[string]string {
	var kept map[string]string
	for k, v := range all {
		domain, _, _ := strings.Cut(k, "/")
		if (domain == "istio.io" || strings.HasSuffix(domain, ".istio.io")) && k != "sidecar.istio.io/status" {
			if kept == nil {
				kept = map[string]string{}
			}
			kept[k] = v
		}
	}
	return kept
}

// config judges an object as it came and keeps what is needed of it: nil and no problem
// where that is nothing.
func (r reading) config(object metav1.Object) (*config.Config, []config.Problem) {
	if d, custom := object.(*document); custom {
		delete(d.Annotations, corev1.LastAppliedConfigAnnotation)
		return config.FromSpec(r.kind, r.version.String(), d, d.Spec)
	}
	if !r.strip(object) {
		return nil, nil
	}
	return config.FromObject(r.kind, object)
}
