package server

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle"
	webhookinit "k8s.io/apiserver/pkg/admission/plugin/webhook/initializer"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/mutating"
	"k8s.io/apiserver/pkg/admission/plugin/webhook/validating"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/util/compatibility"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/kubernetes/plugin/pkg/admission/serviceaccount"
)

// admissionPlugins lists what every write passes, in this order: those that change
// objects before those that only judge.
func admissionPlugins(custom *rules) ([]admission.Interface, error) {
	namespaces, err := lifecycle.NewLifecycle(sets.New(metav1.NamespaceDefault, metav1.NamespaceSystem, metav1.NamespacePublic))
	if err != nil {
		return nil, err
	}
	mutatingWebhooks, err := mutating.NewMutatingWebhook(nil)
	if err != nil {
		return nil, err
	}
	validatingWebhooks, err := validating.NewValidatingAdmissionWebhook(nil)
	if err != nil {
		return nil, err
	}
	return []admission.Interface{
		namespaces,
		serviceaccount.NewServiceAccount(),
		mutatingWebhooks,
		custom,
		validatingWebhooks,
	}, nil
}

// newAdmission readies the plugins. informers are started by the caller.
func newAdmission(client kubernetes.Interface, informers informers.SharedInformerFactory, authz authorizer.Authorizer, custom *rules, hooks webhooks, stop <-chan struct{}) (admission.Interface, error) {
	plugins, err := admissionPlugins(custom)
	if err != nil {
		return nil, fmt.Errorf("admission: %w", err)
	}
	common := initializer.New(client, nil, informers, authz, utilfeature.DefaultFeatureGate,
		compatibility.DefaultBuildEffectiveVersion(), stop, nil)
	resolvers := webhookinit.NewPluginInitializer(hooks.resolver, hooks)
	for _, plugin := range plugins {
		common.Initialize(plugin)
		resolvers.Initialize(plugin)
		if valid, ok := plugin.(admission.InitializationValidator); ok {
			if err := valid.ValidateInitialization(); err != nil {
				return nil, fmt.Errorf("admission: %T: %w", plugin, err)
			}
		}
	}
	return admission.NewChainHandler(plugins...), nil
}
