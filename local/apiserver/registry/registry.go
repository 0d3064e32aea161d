// Package registry holds the kinds that the API serves: upstream's own registries
// (validation, defaults, columns, subresources), each over the storage handed in.
//
// Core returns the kinds of /api/v1, Groups those of /apis. Which groups are served
// is the list in Groups; a group's versions are those of served. Service addresses
// and node ports are given out from memory, and reserved anew from the stored
// Services by Core, so nothing but the Services themselves is stored.
//
// exec, attach, logs and port-forward are upstream's too: they are relayed to the
// kubelet by the connection of KubeletAt. The subresources named proxy are left
// out: the server does not live in the pods' network.
package registry

import (
	"net"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/apiserver/pkg/registry/rest"
	genericapiserver "k8s.io/apiserver/pkg/server"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/kubelet/client"
	admissionregistration "k8s.io/kubernetes/pkg/registry/admissionregistration/rest"
	apps "k8s.io/kubernetes/pkg/registry/apps/rest"
	authentication "k8s.io/kubernetes/pkg/registry/authentication/rest"
	authorization "k8s.io/kubernetes/pkg/registry/authorization/rest"
	autoscaling "k8s.io/kubernetes/pkg/registry/autoscaling/rest"
	batch "k8s.io/kubernetes/pkg/registry/batch/rest"
	coordination "k8s.io/kubernetes/pkg/registry/coordination/rest"
	discoveryrest "k8s.io/kubernetes/pkg/registry/discovery/rest"
	events "k8s.io/kubernetes/pkg/registry/events/rest"
	networking "k8s.io/kubernetes/pkg/registry/networking/rest"
	policy "k8s.io/kubernetes/pkg/registry/policy/rest"
	clusterrole "k8s.io/kubernetes/pkg/registry/rbac/clusterrole/storage"
	clusterrolebinding "k8s.io/kubernetes/pkg/registry/rbac/clusterrolebinding/storage"
	role "k8s.io/kubernetes/pkg/registry/rbac/role/storage"
	rolebinding "k8s.io/kubernetes/pkg/registry/rbac/rolebinding/storage"
	"k8s.io/kubernetes/pkg/serviceaccount"
)

// Options are what the registries need from the server around them.
type Options struct {
	// Storage says where objects are kept and how they are encoded.
	Storage generic.RESTOptionsGetter
	// ServiceCIDR is the range of Service addresses.
	ServiceCIDR *net.IPNet
	// Kubelet is how to reach the node that runs the pods.
	Kubelet client.ConnectionInfoGetter
	// Issuer signs tokens of service accounts; Audiences are those the API accepts.
	Issuer    serviceaccount.TokenGenerator
	Audiences authenticator.Audiences
	// Authenticator answers TokenReviews, Authorizer and Rules access reviews.
	Authenticator authenticator.Request
	Authorizer    authorizer.Authorizer
	Rules         authorizer.RuleResolver
	// Client and Discovery speak to this very server.
	Client    kubernetes.Interface
	Discovery discovery.DiscoveryInterface
}

// Served lists the group versions of the API, for the server's configuration.
func Served() *serverstorage.ResourceConfig {
	served := serverstorage.NewResourceConfig()
	served.EnableVersions(
		corev1.SchemeGroupVersion, appsv1.SchemeGroupVersion, batchv1.SchemeGroupVersion,
		discoveryv1.SchemeGroupVersion, rbacv1.SchemeGroupVersion, coordinationv1.SchemeGroupVersion,
		networkingv1.SchemeGroupVersion, autoscalingv1.SchemeGroupVersion, autoscalingv2.SchemeGroupVersion,
		policyv1.SchemeGroupVersion, authorizationv1.SchemeGroupVersion, authenticationv1.SchemeGroupVersion,
		admissionregistrationv1.SchemeGroupVersion, eventsv1.SchemeGroupVersion, apiextensionsv1.SchemeGroupVersion,
	)
	served.DisableResources(
		// Of use to an allocator that several servers share; ours is in memory.
		networkingv1.SchemeGroupVersion.WithResource("servicecidrs"),
		networkingv1.SchemeGroupVersion.WithResource("ipaddresses"),
	)
	return served
}

// A provider makes the storages of one group.
type provider interface {
	NewRESTStorage(serverstorage.APIResourceConfigSource, generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error)
}

// Groups returns the kinds served below /apis, in the order of discovery.
func Groups(o Options) ([]*genericapiserver.APIGroupInfo, error) {
	served := Served()
	var groups []*genericapiserver.APIGroupInfo
	for _, p := range []provider{
		apps.StorageProvider{},
		batch.RESTStorageProvider{},
		autoscaling.RESTStorageProvider{},
		policy.RESTStorageProvider{},
		networking.RESTStorageProvider{},
		discoveryrest.StorageProvider{},
		coordination.RESTStorageProvider{},
		events.RESTStorageProvider{TTL: eventLifetime},
		accessRules{},
		admissionregistration.RESTStorageProvider{Authorizer: o.Authorizer, DiscoveryClient: o.Discovery},
		authentication.RESTStorageProvider{Authenticator: o.Authenticator, APIAudiences: o.Audiences},
		authorization.RESTStorageProvider{Authorizer: o.Authorizer, RuleResolver: o.Rules},
	} {
		group, err := p.NewRESTStorage(served, o.Storage)
		if err != nil {
			return nil, err
		}
		groups = append(groups, &group)
	}
	return groups, nil
}

// accessRules makes the plain storages of rbac.authorization.k8s.io. Upstream's own
// provider adds checks against escalation and the roles of a cluster's parts; here
// nothing is enforced, and a role is an object like any other.
type accessRules struct{}

func (accessRules) NewRESTStorage(_ serverstorage.APIResourceConfigSource, storage generic.RESTOptionsGetter) (genericapiserver.APIGroupInfo, error) {
	group := genericapiserver.NewDefaultAPIGroupInfo(rbacv1.GroupName, legacyscheme.Scheme, legacyscheme.ParameterCodec, legacyscheme.Codecs)
	roles, err := role.NewREST(storage)
	if err != nil {
		return group, err
	}
	roleBindings, err := rolebinding.NewREST(storage)
	if err != nil {
		return group, err
	}
	clusterRoles, err := clusterrole.NewREST(storage)
	if err != nil {
		return group, err
	}
	clusterRoleBindings, err := clusterrolebinding.NewREST(storage)
	if err != nil {
		return group, err
	}
	group.VersionedResourcesStorageMap[rbacv1.SchemeGroupVersion.Version] = map[string]rest.Storage{
		"roles": roles, "rolebindings": roleBindings,
		"clusterroles": clusterRoles, "clusterrolebindings": clusterRoleBindings,
	}
	return group, nil
}
