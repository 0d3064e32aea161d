package controllers

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coreinformers "k8s.io/client-go/informers/core/v1"
	"k8s.io/client-go/kubernetes"
	listersv1 "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
	"k8s.io/kubernetes/pkg/controller/namespace/deletion"
)

// settling is how long a namespace that is to go is left alone: requests that passed
// admission before may still create something in it. Upstream's controller waits
// five seconds, for servers in several places; this is one process.
const settling = 100 * time.Millisecond

// A namespaceCleaner empties namespaces that are being deleted, by upstream's
// deleter, and lets them go.
type namespaceCleaner struct {
	deleter deletion.NamespacedResourcesDeleterInterface
	lister  listersv1.NamespaceLister
	synced  cache.InformerSynced
	queue   workqueue.TypedRateLimitingInterface[string]
	log     *slog.Logger
}

func newNamespaceCleaner(ctx context.Context, client kubernetes.Interface, byMetadata metadata.Interface,
	kinds func() ([]*metav1.APIResourceList, error), namespaces coreinformers.NamespaceInformer, log *slog.Logger,
) (*namespaceCleaner, error) {
	c := &namespaceCleaner{
		deleter: deletion.NewNamespacedResourcesDeleter(ctx, client.CoreV1().Namespaces(), byMetadata, client.CoreV1(), kinds, corev1.FinalizerKubernetes),
		lister:  namespaces.Lister(),
		queue:   workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[string](50*time.Millisecond, 10*time.Second)),
		log:     log,
	}
	consider := func(object any) {
		if namespace, ok := object.(*corev1.Namespace); ok && namespace.DeletionTimestamp != nil {
			c.queue.AddAfter(namespace.Name, settling)
		}
	}
	registration, err := namespaces.Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: consider, UpdateFunc: func(_, object any) { consider(object) },
	})
	if err != nil {
		return nil, err
	}
	c.synced = registration.HasSynced
	return c, nil
}

func (c *namespaceCleaner) run(ctx context.Context) {
	if !cache.WaitForCacheSync(ctx.Done(), c.synced) {
		return
	}
	stop := context.AfterFunc(ctx, c.queue.ShutDown)
	defer stop()
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for c.next(ctx) {
			}
		})
	}
	running.Wait()
}

func (c *namespaceCleaner) next(ctx context.Context) bool {
	name, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(name)
	if _, err := c.lister.Get(name); apierrors.IsNotFound(err) {
		c.queue.Forget(name)
		return true
	}
	err := c.deleter.Delete(ctx, name)
	if err == nil {
		c.queue.Forget(name)
		return true
	}
	if _, waiting := errors.AsType[*deletion.ResourcesRemainingError](err); !waiting {
		c.log.Debug("namespace not deleted yet", "namespace", name, "error", err)
	}
	c.queue.AddRateLimited(name)
	return true
}
