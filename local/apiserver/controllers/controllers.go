// Package controllers makes the API live: upstream's controllers that turn
// Deployments into ReplicaSets, ReplicaSets into Pods, Jobs into Pods, Services into
// EndpointSlices, and clear up behind deleted owners and namespaces; a scheduler of
// ours that binds every Pod to the one node; and the objects that every cluster has.
//
// All of them watch and write through the API's own loopback, so what they do is
// checked, stored and seen like anybody's writes. They keep no state: after a
// restart they go on from what is stored.
//
// EnsureObjects is to be called first, then Run, which returns when its context
// ends. NewInformers makes the caches that admission shares with them.
package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/util/flowcontrol"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/certificates/rootcacertpublisher"
	"k8s.io/kubernetes/pkg/controller/cronjob"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/deployment"
	"k8s.io/kubernetes/pkg/controller/endpoint"
	"k8s.io/kubernetes/pkg/controller/endpointslice"
	"k8s.io/kubernetes/pkg/controller/endpointslicemirroring"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	"k8s.io/kubernetes/pkg/controller/job"
	"k8s.io/kubernetes/pkg/controller/replicaset"
	"k8s.io/kubernetes/pkg/controller/replication"
	serviceaccountcontroller "k8s.io/kubernetes/pkg/controller/serviceaccount"
	"k8s.io/kubernetes/pkg/controller/statefulset"
	"k8s.io/kubernetes/pkg/controller/ttlafterfinished"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// Options are what the controllers work with.
type Options struct {
	Config       *rest.Config // of clients of the API
	Client       kubernetes.Interface
	Informers    informers.SharedInformerFactory // of NewInformers
	Node         Node
	AuthorityPEM []byte // certificate that pods trust
	Tokens       serviceaccount.TokenGenerator
	Log          *slog.Logger
}

const (
	workers = 4
	// resync is how often caches hand out everything again; nothing here relies on it.
	resync = 12 * time.Hour
	// patience is how long controllers may take to stop.
	patience = 300 * time.Millisecond
	// collectAfter is when the garbage collector begins: what lost its owner before is found then.
	collectAfter = 2 * time.Second
	// collected is how often the garbage collector looks for new kinds.
	collected = 5 * time.Second
	// endpointsPerSlice and endpointsPerSubset are a cluster's defaults.
	endpointsPerSlice  = 100
	endpointsPerSubset = 1000
)

// NewInformers returns caches without the fields that no controller reads.
func NewInformers(client kubernetes.Interface) informers.SharedInformerFactory {
	return informers.NewSharedInformerFactoryWithOptions(client, resync, informers.WithTransform(trim))
}

// trim drops the record of who owns which field: it is as large as the rest, and an
// update without it leaves the stored one as it is.
func trim(object any) (any, error) {
	if m, err := meta.Accessor(object); err == nil && m.GetManagedFields() != nil {
		m.SetManagedFields(nil)
	}
	return object, nil
}

// A part is one controller, ready to run.
type part struct {
	name string
	run  func(context.Context)
}

// Run runs all controllers until ctx ends.
func Run(ctx context.Context, o Options) error {
	ctx = klog.NewContext(ctx, klog.Background())
	if err := utilfeature.DefaultMutableFeatureGate.SetFromMap(withoutWaiting()); err != nil {
		return fmt.Errorf("controllers: %w", err)
	}
	var parts []part
	for _, group := range []func(context.Context, Options) ([]part, error){workloads, services, accounts, cleanup} {
		some, err := group(ctx, o)
		if err != nil {
			return fmt.Errorf("controllers: %w", err)
		}
		parts = append(parts, some...)
	}
	parts = append(parts, part{"scheduler", newScheduler(o).run})
	o.Informers.Start(ctx.Done())
	var running sync.WaitGroup
	for _, p := range parts {
		running.Go(func() { p.run(ctx) })
	}
	stopped := make(chan struct{})
	go func() {
		running.Wait()
		o.Informers.Shutdown()
		close(stopped)
	}()
	<-ctx.Done()
	// Recorders of Events try for seconds to reach a server that has gone: they are not waited for.
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-stopped:
	case <-timer.C:
	}
	return nil
}

// withoutWaiting turns off a guard of big clusters: with it a controller whose cache
// has not seen its own last write yet fails, and waits longer each time. The caches
// here are milliseconds behind, and what a controller expects to see it remembers.
func withoutWaiting() map[string]bool {
	return map[string]bool{
		string(features.StaleControllerConsistencyDaemonSet):   false,
		string(features.StaleControllerConsistencyJob):         false,
		string(features.StaleControllerConsistencyReplicaSet):  false,
		string(features.StaleControllerConsistencyStatefulSet): false,
	}
}

func workloads(ctx context.Context, o Options) ([]part, error) {
	apps, core, batch := o.Informers.Apps().V1(), o.Informers.Core().V1(), o.Informers.Batch().V1()
	deployments, err := deployment.NewDeploymentController(ctx, apps.Deployments(), apps.ReplicaSets(), core.Pods(), o.Client)
	if err != nil {
		return nil, err
	}
	daemons, err := daemon.NewDaemonSetsController(ctx, apps.DaemonSets(), apps.ControllerRevisions(), core.Pods(), core.Nodes(),
		o.Client, flowcontrol.NewBackOff(time.Second, 15*time.Minute))
	if err != nil {
		return nil, err
	}
	jobs, err := job.NewController(ctx, o.Client, core.Pods(), batch.Jobs(), nil, nil)
	if err != nil {
		return nil, err
	}
	cronJobs, err := cronjob.NewControllerV2(ctx, batch.Jobs(), batch.CronJobs(), o.Client)
	if err != nil {
		return nil, err
	}
	replicaSets := replicaset.NewReplicaSetController(ctx, apps.ReplicaSets(), core.Pods(), o.Client, replicaset.BurstReplicas)
	replication := replication.NewReplicationManager(ctx, core.Pods(), core.ReplicationControllers(), o.Client, replicaset.BurstReplicas)
	statefulSets := statefulset.NewStatefulSetController(ctx, core.Pods(), apps.StatefulSets(), core.PersistentVolumeClaims(), apps.ControllerRevisions(), o.Client)
	finished := ttlafterfinished.New(ctx, batch.Jobs(), o.Client)
	return []part{
		{"deployment", several(deployments.Run)},
		{"replicaset", several(replicaSets.Run)},
		{"replicationcontroller", several(replication.Run)},
		{"statefulset", several(statefulSets.Run)},
		{"daemonset", several(daemons.Run)},
		{"job", several(jobs.Run)},
		{"cronjob", several(cronJobs.Run)},
		{"ttl-after-finished", several(finished.Run)},
	}, nil
}

func services(ctx context.Context, o Options) ([]part, error) {
	core := o.Informers.Core().V1()
	// No batching: a pod that is ready is to get traffic now, and one node changes little at a time.
	slices := endpointslice.NewController(ctx, core.Pods(), core.Services(), core.Nodes(),
		o.Informers.Discovery().V1().EndpointSlices(), endpointsPerSlice, o.Client, 0)
	endpoints := endpoint.NewEndpointController(ctx, core.Pods(), core.Services(), core.Endpoints(), o.Client, 0)
	// Endpoints that a user writes for a Service without a selector become slices, too.
	mirror := endpointslicemirroring.NewController(ctx, core.Endpoints(), o.Informers.Discovery().V1().EndpointSlices(), core.Services(),
		endpointsPerSubset, o.Client, 0)
	return []part{
		{"endpointslice", several(slices.Run)},
		{"endpoint", several(endpoints.Run)},
		{"endpointslicemirroring", several(mirror.Run)},
	}, nil
}

func accounts(ctx context.Context, o Options) ([]part, error) {
	log, core := klog.FromContext(ctx), o.Informers.Core().V1()
	defaults, err := serviceaccountcontroller.NewServiceAccountsController(log, core.ServiceAccounts(), core.Namespaces(), o.Client,
		serviceaccountcontroller.DefaultServiceAccountsControllerOptions())
	if err != nil {
		return nil, err
	}
	tokens, err := serviceaccountcontroller.NewTokensController(log, core.ServiceAccounts(), core.Secrets(), o.Client,
		serviceaccountcontroller.TokensControllerOptions{TokenGenerator: o.Tokens, RootCA: o.AuthorityPEM})
	if err != nil {
		return nil, err
	}
	roots, err := rootcacertpublisher.NewPublisher(core.ConfigMaps(), core.Namespaces(), o.Client, o.AuthorityPEM)
	if err != nil {
		return nil, err
	}
	return []part{
		{"serviceaccount", several(defaults.Run)},
		{"serviceaccount-token", several(tokens.Run)},
		{"root-ca", several(roots.Run)},
	}, nil
}

// cleanup are the controllers that delete what lost its namespace or its owners.
func cleanup(ctx context.Context, o Options) ([]part, error) {
	byMetadata, err := metadata.NewForConfig(o.Config)
	if err != nil {
		return nil, err
	}
	kinds, err := discovery.NewDiscoveryClientForConfig(o.Config)
	if err != nil {
		return nil, err
	}
	namespaces, err := newNamespaceCleaner(ctx, o.Client, byMetadata, kinds.ServerPreferredNamespacedResources,
		o.Informers.Core().V1().Namespaces(), o.Log)
	if err != nil {
		return nil, err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(kinds))
	metadataInformers := metadatainformer.NewSharedInformerFactoryWithOptions(byMetadata, resync, metadatainformer.WithTransform(trim))
	started := make(chan struct{})
	close(started)
	owners, err := garbagecollector.NewGarbageCollector(ctx, o.Client, byMetadata, mapper,
		garbagecollector.DefaultIgnoredResources(), informerfactory.NewInformerFactory(o.Informers, metadataInformers), started)
	if err != nil {
		return nil, err
	}
	return []part{
		{"namespace", namespaces.run},
		{"garbage-collector", func(ctx context.Context) {
			// It watches every kind there is: that can wait until what was waited for is done.
			timer := time.NewTimer(collectAfter)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return
			}
			go owners.Sync(ctx, kinds, collected)
			owners.Run(ctx, workers, collected)
		}},
	}, nil
}

func several(run func(context.Context, int)) func(context.Context) {
	return func(ctx context.Context) { run(ctx, workers) }
}
