package server

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"

	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	typedv1 "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	informersv1 "k8s.io/apiextensions-apiserver/pkg/client/informers/externalversions/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/version"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
	genericapiserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	"k8s.io/apiserver/pkg/server/healthz"
	"k8s.io/apiserver/pkg/util/compatibility"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	componentcompatibility "k8s.io/component-base/compatibility"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/serviceaccount"

	"github.com/lateen-mesh/lateen/local/apiserver/controllers"
	"github.com/lateen-mesh/lateen/local/apiserver/pki"
	"github.com/lateen-mesh/lateen/local/apiserver/registry"
	"github.com/lateen-mesh/lateen/local/apiserver/store"
)

// An api is the assembled server.
type api struct {
	handler     http.Handler
	run         func(context.Context) error // starts upstream's hooks
	config      *rest.Config                // of clients in this process
	informers   informers.SharedInformerFactory
	tokens      serviceaccount.TokenGenerator
	definitions informersv1.CustomResourceDefinitionInformer
	serviceCIDR *net.IPNet
	webhooks    webhooks

	rules              rules
	definitionsApplied atomic.Bool
}

func assemble(ctx context.Context, o Options, cidr *net.IPNet, objects *store.Store, keys *pki.Keys, loop *loopback, address string) (*api, error) {
	a := &api{config: loop.config(), serviceCIDR: cidr}
	client, err := kubernetes.NewForConfig(a.config)
	if err != nil {
		return nil, err
	}
	a.informers = controllers.NewInformers(client)
	a.webhooks = webhooks{o.Kubelet, a.informers.Core().V1().Services().Lister()}
	if a.tokens, err = serviceaccount.JWTTokenGenerator(issuer, keys.ServiceAccount); err != nil {
		return nil, fmt.Errorf("service accounts: %w", err)
	}
	config, err := a.configuration(o, objects, keys, client, address)
	if err != nil {
		return nil, err
	}
	extensions, err := (&apiserver.Config{
		GenericConfig: &genericapiserver.RecommendedConfig{Config: *config, SharedInformerFactory: a.informers},
		ExtraConfig: apiserver.ExtraConfig{
			CRDRESTOptionsGetter: custom{objects}, MasterCount: 1, ServiceResolver: a.webhooks,
			AuthResolverWrapper: a.webhooks.resolver,
		},
	}).Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, err
	}
	server := extensions.GenericAPIServer
	if err := a.install(ctx, server, registry.Options{
		Storage: builtIn{objects}, ServiceCIDR: cidr, Kubelet: registry.KubeletAt(o.Kubelet),
		Issuer: a.tokens, Audiences: authenticator.Audiences{issuer},
		Authenticator: config.Authentication.Authenticator, Authorizer: config.Authorization.Authorizer, Rules: config.RuleResolver,
		Client: client, Discovery: client.Discovery(),
	}); err != nil {
		return nil, err
	}
	a.definitions = extensions.Informers.Apiextensions().V1().CustomResourceDefinitions()
	if err := a.definitions.Informer().SetTransform(slim); err != nil {
		return nil, err
	}
	definitions, err := typedv1.NewForConfig(a.config)
	if err != nil {
		return nil, err
	}
	a.rules.definitions, a.rules.client = a.definitions.Lister(), definitions.CustomResourceDefinitions()
	if err := listGroups(a.definitions, server.DiscoveryGroupManager); err != nil {
		return nil, err
	}
	config.OpenAPIV3Config.Definitions = nil // needed while kinds are installed; documents make their own
	installOpenAPI(server, config.OpenAPIV3Config, a.definitions.Lister(), a.rules.client, o.Version)
	prepared := server.PrepareRun()
	a.handler = prepared.Handler
	a.run = func(ctx context.Context) error {
		_, _, err := prepared.NonBlockingRunWithContext(ctx, slowestStart)
		return err
	}
	return a, nil
}

// configuration is upstream's generic server, set for one machine.
func (a *api) configuration(o Options, objects *store.Store, keys *pki.Keys, client kubernetes.Interface, address string) (*genericapiserver.Config, error) {
	config := genericapiserver.NewConfig(legacyscheme.Codecs)
	config.ExternalAddress = address
	config.EffectiveVersion = versioned{compatibility.DefaultBuildEffectiveVersion(), o.Version}
	config.LoopbackClientConfig = a.config
	config.MergedResourceConfig = registry.Served()
	config.RESTOptionsGetter = builtIn{objects}
	config.LongRunningFunc = genericfilters.BasicLongRunningRequestCheck(
		sets.NewString("watch"), sets.NewString("attach", "exec", "log", "portforward"))
	config.OpenAPIV3Config = openAPIConfig()
	config.SkipOpenAPIInstallation = true // openapi.go does it on demand
	config.EnableProfiling = false
	allow := authorizerfactory.NewAlwaysAllowAuthorizer()
	config.Authorization.Authorizer = allow
	config.RuleResolver = allow
	config.Authentication.APIAudiences = authenticator.Audiences{issuer}
	config.AddReadyzChecks(healthz.NamedCheck("definitions", func(*http.Request) error {
		if !a.definitionsApplied.Load() {
			return fmt.Errorf("definitions of custom resources are being applied")
		}
		return nil
	}))
	var err error
	if config.Authentication.Authenticator, err = newAuthenticator(keys, client); err != nil {
		return nil, err
	}
	config.AdmissionControl, err = newAdmission(client, a.informers, allow, &a.rules, a.webhooks, config.DrainedNotify())
	return config, err
}

// install adds the built-in kinds and the list of groups.
func (a *api) install(ctx context.Context, server *genericapiserver.GenericAPIServer, o registry.Options) error {
	core, err := registry.Core(ctx, o)
	if err != nil {
		return err
	}
	if err := server.InstallLegacyAPIGroup(genericapiserver.DefaultLegacyAPIPrefix, core); err != nil {
		return err
	}
	groups, err := registry.Groups(o)
	if err != nil {
		return err
	}
	if err := server.InstallAPIGroups(groups...); err != nil {
		return err
	}
	// The server of custom resources expects another one before it to list the groups.
	list := aggregated.WrapAggregatedDiscoveryToHandler(server.DiscoveryGroupManager, server.AggregatedDiscoveryGroupManager, nil)
	server.Handler.GoRestfulContainer.Add(list.GenerateWebService("/apis", metav1.APIGroupList{}))
	return nil
}

// versioned shows a version of ours to clients, while what is served and enabled
// follows the libraries' own.
type versioned struct {
	componentcompatibility.EffectiveVersion
	gitVersion string
}

func (v versioned) Info() *version.Info {
	info := version.Info{}
	if known := v.EffectiveVersion.Info(); known != nil {
		info = *known
	}
	binary := v.BinaryVersion()
	info.Major, info.Minor = fmt.Sprint(binary.Major()), fmt.Sprint(binary.Minor())
	info.GitVersion = v.gitVersion
	return &info
}
