package install

import (
	"github.com/lateen-mesh/lateen/control/inject"
)

// A webhook is one entry of the MutatingWebhookConfiguration: which pods of which namespaces.
type webhook struct {
	Name                string
	Namespaces, Objects map[string]any // selectors
}

const (
	injectionLabel = "istio-injection"         // of namespaces
	injectLabel    = "sidecar.istio.io/inject" // of pods
)

// webhooks are those of a revision. A namespace or pod that names a revision is that one's;
// what only says that it wants a sidecar is the default revision's. No two match one pod.
func webhooks(revision string, byDefault bool) []webhook {
	ofRevision := is(revisionLabel, revision)
	all := []webhook{
		{"rev.namespace.sidecar-injector.istio.io", selector(ofRevision, absent(injectionLabel)), selector(isNot(injectLabel, "false"))},
		{"rev.object.sidecar-injector.istio.io", selector(absent(revisionLabel), absent(injectionLabel)), selector(isNot(injectLabel, "false"), ofRevision)},
	}
	if revision != defaultRevision {
		return all
	}
	all = append(all,
		webhook{"namespace.sidecar-injector.istio.io", selector(is(injectionLabel, "enabled")), selector(isNot(injectLabel, "false"))},
		webhook{"object.sidecar-injector.istio.io", selector(absent(injectionLabel), absent(revisionLabel)), selector(is(injectLabel, "true"), absent(revisionLabel))},
	)
	if byDefault {
		system := isNot("kubernetes.io/metadata.name", "kube-system", "kube-public", "kube-node-lease", "local-path-storage")
		all = append(all, webhook{"auto.sidecar-injector.istio.io",
			selector(absent(injectionLabel), absent(revisionLabel), system), selector(absent(injectLabel), absent(revisionLabel))})
	}
	return all
}

// A validator is one ValidatingWebhookConfiguration: which objects.
type validator struct {
	Name, Webhook string
	Objects       map[string]any // selector
}

// validators are those of a revision: for objects that name it, and, of the default
// revision, for those that name none.
func (v *view) validators(enabled bool) (all []validator) {
	if !enabled {
		return nil
	}
	all = []validator{{"istio-validator" + v.Suffix + "-" + v.Namespace, "rev.validation.istio.io", selector(is(revisionLabel, v.Revision))}}
	if v.Revision == defaultRevision {
		all = append(all, validator{"istiod-default-validator", "validation.istio.io", selector(absent(revisionLabel))})
	}
	return all
}

func selector(requirements ...map[string]any) map[string]any {
	list := make([]any, len(requirements))
	for i := range requirements {
		list[i] = requirements[i]
	}
	return map[string]any{"matchExpressions": list}
}

func is(key string, values ...string) map[string]any {
	return map[string]any{"key": key, "operator": "In", "values": values}
}

func isNot(key string, values ...string) map[string]any {
	return map[string]any{"key": key, "operator": "NotIn", "values": values}
}

func absent(key string) map[string]any {
	return map[string]any{"key": key, "operator": "DoesNotExist"}
}

// injector is what ConfigMap istio-sidecar-injector has: templates and policy, and the
// values that templates read.
func (i *Installation) injector() (config, values string, err error) {
	c, v, err := inject.Render(map[string]any{
		"gateways": map[string]any{"securityContext": at(i.values, "gateways", "securityContext"), "seccompProfile": at(i.values, "gateways", "seccompProfile")},
		"global":   i.values["global"], "revision": i.values["revision"], "sidecarInjectorWebhook": i.values["sidecarInjectorWebhook"],
		"pilot": map[string]any{"cni": at(i.values, "pilot", "cni"), "env": at(i.values, "pilot", "env")},
	})
	return string(c), string(v), err
}
