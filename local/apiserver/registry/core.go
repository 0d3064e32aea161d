package registry

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	api "k8s.io/kubernetes/pkg/apis/core"
	"k8s.io/kubernetes/pkg/kubelet/client"
	configmap "k8s.io/kubernetes/pkg/registry/core/configmap/storage"
	endpoint "k8s.io/kubernetes/pkg/registry/core/endpoint/storage"
	event "k8s.io/kubernetes/pkg/registry/core/event/storage"
	limitrange "k8s.io/kubernetes/pkg/registry/core/limitrange/storage"
	namespace "k8s.io/kubernetes/pkg/registry/core/namespace/storage"
	node "k8s.io/kubernetes/pkg/registry/core/node/storage"
	volume "k8s.io/kubernetes/pkg/registry/core/persistentvolume/storage"
	claim "k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim/storage"
	pod "k8s.io/kubernetes/pkg/registry/core/pod/storage"
	podtemplate "k8s.io/kubernetes/pkg/registry/core/podtemplate/storage"
	replicationcontroller "k8s.io/kubernetes/pkg/registry/core/replicationcontroller/storage"
	resourcequota "k8s.io/kubernetes/pkg/registry/core/resourcequota/storage"
	secret "k8s.io/kubernetes/pkg/registry/core/secret/storage"
	service "k8s.io/kubernetes/pkg/registry/core/service/storage"
	serviceaccount "k8s.io/kubernetes/pkg/registry/core/serviceaccount/storage"
)

const (
	// eventLifetime is how long an Event is kept, as in a cluster.
	eventLifetime = time.Hour
	// longestToken bounds what a TokenRequest may ask for.
	longestToken = 365 * 24 * time.Hour
)

type storages = map[string]rest.Storage

// Core returns the kinds of /api/v1. It reads the stored Services to reserve their
// addresses and ports.
func Core(ctx context.Context, o Options) (*genericapiserver.APIGroupInfo, error) {
	group := &genericapiserver.APIGroupInfo{
		PrioritizedVersions:          legacyscheme.Scheme.PrioritizedVersionsForGroup(""),
		VersionedResourcesStorageMap: map[string]map[string]rest.Storage{},
		Scheme:                       legacyscheme.Scheme,
		ParameterCodec:               legacyscheme.ParameterCodec,
		NegotiatedSerializer:         legacyscheme.Codecs,
	}
	all := storages{}
	for _, part := range []func(context.Context, Options) (storages, error){workloads, plain, volumes} {
		some, err := part(ctx, o)
		if err != nil {
			return nil, fmt.Errorf("core kinds: %w", err)
		}
		maps.Copy(all, some)
	}
	group.VersionedResourcesStorageMap[corev1.SchemeGroupVersion.Version] = all
	return group, nil
}

// workloads are the kinds that know of each other: nodes, pods, what runs them and
// what leads to them.
func workloads(ctx context.Context, o Options) (storages, error) {
	nodes, err := node.NewStorage(o.Storage, client.KubeletClientConfig{}, nil)
	if err != nil {
		return nil, err
	}
	pods, err := pod.NewStorage(o.Storage, o.Kubelet, nil, o.Client.PolicyV1(), o.Authorizer)
	if err != nil {
		return nil, err
	}
	secrets, err := secret.NewREST(o.Storage)
	if err != nil {
		return nil, err
	}
	accounts, err := serviceaccount.NewREST(o.Storage, o.Issuer, o.Audiences, longestToken,
		pods.Pod.Store, secrets.Store, nodes.Node.Store, false, longestToken)
	if err != nil {
		return nil, err
	}
	endpoints, err := endpoint.NewREST(o.Storage)
	if err != nil {
		return nil, err
	}
	addresses, ports, err := newAllocators(o.ServiceCIDR)
	if err != nil {
		return nil, err
	}
	services, serviceStatus, _, err := service.NewREST(o.Storage, api.IPv4Protocol, addresses, ports, endpoints, pods.Pod, nil)
	if err != nil {
		return nil, err
	}
	if err := reserve(ctx, services.Store, addresses[api.IPv4Protocol], ports); err != nil {
		return nil, err
	}
	return storages{
		"nodes": nodes.Node, "nodes/status": nodes.Status,
		"pods": pods.Pod, "pods/status": pods.Status, "pods/binding": pods.Binding, "pods/eviction": pods.Eviction,
		"pods/ephemeralcontainers": pods.EphemeralContainers, "pods/resize": pods.Resize,
		"pods/exec": pods.Exec, "pods/attach": pods.Attach, "pods/log": pods.Log, "pods/portforward": pods.PortForward,
		"bindings": pods.LegacyBinding,
		"secrets":  secrets, "serviceaccounts": accounts, "serviceaccounts/token": accounts.Token,
		"services": services, "services/status": serviceStatus, "endpoints": endpoints,
	}, nil
}

// plain are the kinds that stand alone.
func plain(_ context.Context, o Options) (storages, error) {
	namespaces, namespaceStatus, namespaceFinalize, err := namespace.NewREST(o.Storage)
	if err != nil {
		return nil, err
	}
	configMaps, err := configmap.NewREST(o.Storage)
	if err != nil {
		return nil, err
	}
	occurrences, err := event.NewREST(o.Storage, uint64(eventLifetime.Seconds()))
	if err != nil {
		return nil, err
	}
	limits, err := limitrange.NewREST(o.Storage)
	if err != nil {
		return nil, err
	}
	quotas, quotaStatus, err := resourcequota.NewREST(o.Storage)
	if err != nil {
		return nil, err
	}
	templates, err := podtemplate.NewREST(o.Storage)
	if err != nil {
		return nil, err
	}
	replication, err := replicationcontroller.NewStorage(o.Storage)
	if err != nil {
		return nil, err
	}
	return storages{
		"namespaces": namespaces, "namespaces/status": namespaceStatus, "namespaces/finalize": namespaceFinalize,
		"configmaps": configMaps, "events": occurrences, "limitranges": limits,
		"resourcequotas": quotas, "resourcequotas/status": quotaStatus, "podtemplates": templates,
		"replicationcontrollers": replication.Controller, "replicationcontrollers/status": replication.Status,
		"replicationcontrollers/scale": replication.Scale,
	}, nil
}

func volumes(_ context.Context, o Options) (storages, error) {
	persistent, persistentStatus, err := volume.NewREST(o.Storage)
	if err != nil {
		return nil, err
	}
	claims, claimStatus, err := claim.NewREST(o.Storage)
	if err != nil {
		return nil, err
	}
	return storages{
		"persistentvolumes": persistent, "persistentvolumes/status": persistentStatus,
		"persistentvolumeclaims": claims, "persistentvolumeclaims/status": claimStatus,
	}, nil
}
