package kubelet

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
)

type serviceLister = corelisters.ServiceLister

// source reads the objects that pods are made of, fresh from the API: a pod that is applied
// right after its ConfigMap must not see an older one.
type source struct{ *Kubelet }

func (s source) ConfigMap(ctx context.Context, namespace, name string) (*corev1.ConfigMap, error) {
	return s.client.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (s source) Secret(ctx context.Context, namespace, name string) (*corev1.Secret, error) {
	return s.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (s source) Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	claims := s.client.CoreV1().PersistentVolumeClaims(namespace)
	claim, err := claims.Get(ctx, name, metav1.GetOptions{})
	if err != nil || claim.Status.Phase == corev1.ClaimBound {
		return claim, err
	}
	// There is no storage class to wait for: a claim is a directory of this machine.
	bound := claim.DeepCopy()
	bound.Status.Phase, bound.Status.AccessModes, bound.Status.Capacity = corev1.ClaimBound, claim.Spec.AccessModes, claim.Spec.Resources.Requests
	if _, err := claims.UpdateStatus(ctx, bound, metav1.UpdateOptions{}); err != nil {
		s.log.Warn("persistent volume claim cannot be said to be bound", "claim", namespace+"/"+name, "error", err)
	}
	return claim, nil
}

func (s source) Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (string, time.Time, error) {
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default"
	}
	ask := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{ExpirationSeconds: &seconds,
		BoundObjectRef: &authv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}}}
	if audience != "" {
		ask.Spec.Audiences = []string{audience}
	}
	got, err := s.client.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, account, ask, metav1.CreateOptions{})
	if err != nil {
		return "", time.Time{}, err
	}
	return got.Status.Token, got.Status.ExpirationTimestamp.Time, nil
}

// watch follows pods, and what pods are made of, until the context ends; stop waits for the
// end of that.
func (k *Kubelet) watch(ctx context.Context) (stop func(), err error) {
	mine := informers.NewSharedInformerFactoryWithOptions(k.client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", k.o.Node).String()
	}))
	all := informers.NewSharedInformerFactoryWithOptions(k.client, 0, informers.WithTransform(slim))
	pods := mine.Core().V1().Pods().Informer()
	services, slices := all.Core().V1().Services(), all.Discovery().V1().EndpointSlices()
	k.services = services.Lister()
	k.balancer = newBalancer(k, services.Lister())
	m := k.newServiceMap(ctx, services.Lister(), slices.Lister())
	_, e1 := services.Informer().AddEventHandler(each(func(any) { m.change(); k.balancer.change() }))
	_, e2 := slices.Informer().AddEventHandler(each(func(any) { m.change() }))
	_, e3 := all.Core().V1().ConfigMaps().Informer().AddEventHandler(each(func(o any) { k.touched("ConfigMap", o) }))
	_, e4 := all.Core().V1().Secrets().Informer().AddEventHandler(each(func(o any) { k.touched("Secret", o) }))
	if err := errors.Join(e1, e2, e3, e4); err != nil {
		return nil, err
	}
	all.StartWithContext(ctx)
	all.WaitForCacheSyncWithContext(ctx)
	_, err = pods.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { k.update(ctx, o.(*corev1.Pod)) },
		UpdateFunc: func(_, o any) { k.update(ctx, o.(*corev1.Pod)) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			if pod, ok := o.(*corev1.Pod); ok {
				k.removed(pod.UID)
			}
		},
	})
	if err != nil {
		return nil, err
	}
	mine.StartWithContext(ctx)
	mine.WaitForCacheSyncWithContext(ctx)
	if ctx.Err() == nil {
		k.sweep(ctx, pods.GetStore().List())
	}
	k.running.Go(m.run)
	k.running.Go(func() { k.balancer.run(ctx) })
	return func() { mine.Shutdown(); all.Shutdown() }, nil
}

// each is a function for all that happens to objects.
func each(f func(object any)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: f, UpdateFunc: func(_, o any) { f(o) },
		DeleteFunc: func(o any) {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			f(o)
		},
	}
}

// slim keeps of ConfigMaps and Secrets only that they changed.
func slim(o any) (any, error) {
	switch o := o.(type) {
	case *corev1.ConfigMap:
		return &corev1.ConfigMap{ObjectMeta: slimMeta(o.ObjectMeta)}, nil
	case *corev1.Secret:
		return &corev1.Secret{ObjectMeta: slimMeta(o.ObjectMeta)}, nil
	case metav1.Object:
		o.SetManagedFields(nil)
	}
	return o, nil
}

func slimMeta(m metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: m.Namespace, Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion}
}

// touched tells the pods that are made of an object.
func (k *Kubelet) touched(kind string, o any) {
	object, ok := o.(metav1.Object)
	if !ok {
		return
	}
	k.each(func(w *worker) {
		if w.pod().Namespace == object.GetNamespace() {
			w.touched(kind, object.GetName())
		}
	})
}

// sweep removes what is left of pods and claims that are gone.
func (k *Kubelet) sweep(ctx context.Context, pods []any) {
	live := map[types.UID]bool{}
	for _, o := range pods {
		live[o.(*corev1.Pod).UID] = true
	}
	removeOthers(filepath.Join(k.o.Dir, "pods"), func(name string) bool { return live[types.UID(name)] })
	removeOthers(k.memDir, func(name string) bool { return live[types.UID(name)] })
	removeOthers(filepath.Join(k.o.Dir, "logs"), func(name string) bool {
		return slices.ContainsFunc(pods, func(o any) bool { return logName(o.(*corev1.Pod)) == name })
	})
	claims, err := k.client.CoreV1().PersistentVolumeClaims("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return // they are kept
	}
	removeOthers(filepath.Join(k.o.Dir, "claims"), func(name string) bool {
		return slices.ContainsFunc(claims.Items, func(c corev1.PersistentVolumeClaim) bool { return string(c.UID) == name })
	})
}

func removeOthers(dir string, keep func(name string) bool) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !keep(e.Name()) {
			_ = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}
