package kube

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/lateen-mesh/lateen/control/config"
)

// The roots that the mesh trusts, for pods to mount, as the original has it: a ConfigMap of
// each namespace.
const (
	rootsName = "istio-ca-root-cert"
	rootsKey  = "root-cert.pem"
)

// unmeshed are the namespaces of a cluster's own machinery: no mesh has a part in them.
var unmeshed = []string{"kube-system", "kube-public", "kube-node-lease", "local-path-storage"}

// Roots keep the ConfigMap istio-ca-root-cert in every namespace. All control planes of a mesh
// write the same, so that none of them need be the one that writes. The methods may be called
// from any goroutine.
type Roots struct {
	source *Source
	bundle func() []byte
	wake   chan struct{}

	mu     sync.Mutex
	listed bool
	there  map[string]string // what the ConfigMap of a namespace says
}

// Roots returns what keeps the PEM that bundle returns, nil for not yet. Run it beside the
// Source.
func (s *Source) Roots(bundle func() []byte) *Roots {
	return &Roots{source: s, bundle: bundle, wake: make(chan struct{}, 1), there: map[string]string{}}
}

// Changed says that bundle returns something else now. It does not block.
func (r *Roots) Changed() { signal(r.wake) }

// Run keeps the ConfigMaps until ctx ends, which is no error.
func (r *Roots) Run(ctx context.Context) error {
	s := r.source
	ctx, cancel := context.WithCancel(quietly(ctx, s.log))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	configMaps := reading{kind: config.ConfigMap, version: corev1.SchemeGroupVersion, resource: "configmaps", example: &corev1.ConfigMap{}}
	client, err := s.client.rest(configMaps)
	if err != nil {
		return err
	}
	lists := cache.NewFilteredListWatchFromClient(client, configMaps.resource, metav1.NamespaceAll, func(o *metav1.ListOptions) { o.FieldSelector = "metadata.name=" + rootsName })
	running.Go(func() { s.reflect(ctx, "ConfigMap "+rootsName, lists, configMaps.example, &rootsShelf{r}) })
	changes, stop := s.store.Watch()
	defer stop()
	said := map[string]bool{}
	retry := time.NewTimer(tellAgain)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
		case <-changes:
		case <-retry.C:
		}
		for _, namespace := range r.Behind() {
			err := r.write(ctx, namespace)
			if err == nil || ctx.Err() != nil || apierrors.IsNotFound(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				continue
			}
			if !said[namespace] && len(said) < maxProblems {
				said[namespace] = true
				s.log.Warn("a namespace lacks the roots of the mesh: its pods cannot verify the control plane", "namespace", namespace, "error", err)
			}
			retry.Reset(tellAgain)
		}
	}
}

// Behind are the namespaces whose ConfigMap says something else.
func (r *Roots) Behind() []string {
	want := string(r.bundle())
	r.mu.Lock()
	defer r.mu.Unlock()
	if want == "" || !r.listed {
		return nil
	}
	var all []string
	for _, o := range r.source.store.Current().List(config.Namespace) {
		if r.there[o.Name] != want && !slices.Contains(unmeshed, o.Name) {
			all = append(all, o.Name)
		}
	}
	return all
}

// write makes the ConfigMap of a namespace, or replaces it.
func (r *Roots) write(ctx context.Context, namespace string) error {
	o := corev1.ConfigMap{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: rootsName, Labels: map[string]string{"istio.io/config": "true"}},
		Data:       map[string]string{rootsKey: string(r.bundle())},
	}
	path := "/api/v1/namespaces/" + namespace + "/configmaps"
	r.note(namespace, o.Data[rootsKey]) // before it is there: what becomes of it then counts
	err := r.source.client.do(ctx, "POST", path, o, nil)
	if apierrors.IsAlreadyExists(err) {
		err = r.source.client.do(ctx, "PUT", path+"/"+rootsName, o, nil)
	}
	if err != nil {
		r.note(namespace, "")
	}
	return err
}

// note takes down what the ConfigMap of a namespace says.
func (r *Roots) note(namespace, text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if text == "" {
		delete(r.there, namespace)
	} else {
		r.there[namespace] = text
	}
}

// A rootsShelf is where a Reflector puts the ConfigMaps.
type rootsShelf struct{ to *Roots }

// Add takes an object that is new.
func (s *rootsShelf) Add(object any) error { return s.Update(object) }

// Update takes an object that has changed.
func (s *rootsShelf) Update(object any) error {
	if o, ok := object.(*corev1.ConfigMap); ok && o.Name == rootsName {
		s.to.note(o.Namespace, o.Data[rootsKey])
		signal(s.to.wake)
	}
	return nil
}

// Delete takes note that an object is gone.
func (s *rootsShelf) Delete(object any) error {
	if o, ok := object.(*corev1.ConfigMap); ok && o.Name == rootsName {
		s.to.note(o.Namespace, "")
		signal(s.to.wake)
	}
	return nil
}

// Replace takes all objects that there are.
func (s *rootsShelf) Replace(objects []any, _ string) error {
	all := map[string]string{}
	for _, object := range objects {
		if o, ok := object.(*corev1.ConfigMap); ok && o.Name == rootsName {
			all[o.Namespace] = o.Data[rootsKey]
		}
	}
	s.to.mu.Lock()
	s.to.listed = true
	clear(s.to.there)
	maps.Copy(s.to.there, all)
	s.to.mu.Unlock()
	signal(s.to.wake)
	return nil
}

// Resync has nothing to do.
func (s *rootsShelf) Resync() error { return nil }
