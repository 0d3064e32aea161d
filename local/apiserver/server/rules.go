package server

import (
	"context"
	"fmt"
	"sync"
	"time"

	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	typedv1 "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apiextensionslisters "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/admission"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
)

// slim is how the server of custom resources sees a definition: without descriptions
// and validation rules. Upstream compiles the rules of all versions as soon as one
// object is read, which is most of what a mesh's definitions weigh and a second of
// work at each start; rules checks them instead. Who reads definitions or documents
// sees them whole.
func slim(object any) (any, error) {
	if m, err := meta.Accessor(object); err == nil {
		m.SetManagedFields(nil)
		delete(m.GetAnnotations(), "kubectl.kubernetes.io/last-applied-configuration")
	}
	if definition, ok := object.(*apiextensionsv1.CustomResourceDefinition); ok {
		for i := range definition.Spec.Versions {
			if s := definition.Spec.Versions[i].Schema; s != nil {
				slimSchema(s.OpenAPIV3Schema)
			}
		}
		// Upstream lets the first writers of a new kind wait two seconds, until other servers know it, too.
		for i := range definition.Status.Conditions {
			if c := &definition.Status.Conditions[i]; c.Type == apiextensionsv1.Established {
				c.LastTransitionTime.Time = c.LastTransitionTime.Add(-time.Minute)
			}
		}
	}
	return object, nil
}

func slimSchema(s *apiextensionsv1.JSONSchemaProps) {
	if s == nil {
		return
	}
	s.Description, s.XValidations = "", nil
	for name, property := range s.Properties {
		slimSchema(&property)
		s.Properties[name] = property
	}
	if s.Items != nil {
		slimSchema(s.Items.Schema)
	}
	if s.AdditionalProperties != nil {
		slimSchema(s.AdditionalProperties.Schema)
	}
	for _, nested := range [][]apiextensionsv1.JSONSchemaProps{s.AllOf, s.AnyOf, s.OneOf} {
		for i := range nested {
			slimSchema(&nested[i])
		}
	}
	slimSchema(s.Not)
}

// rules is the admission plugin that checks the validation rules (CEL) of custom
// resources as upstream does, but compiles those of a kind and version when the
// first object of it is written. The one write it does not see is that of a custom
// resource's scale, which carries a Scale.
type rules struct {
	definitions apiextensionslisters.CustomResourceDefinitionLister
	client      typedv1.CustomResourceDefinitionInterface

	mu       sync.Mutex
	compiled map[ruleKey]*ruleSet
}

type ruleKey struct{ definition, version string }

// A ruleSet are the rules of one version of one state of a definition.
type ruleSet struct {
	uid        types.UID
	generation int64
	structural *schema.Structural
	validator  *cel.Validator // nil when there are no rules
}

func (*rules) Handles(operation admission.Operation) bool {
	return operation == admission.Create || operation == admission.Update
}

func (r *rules) Validate(ctx context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	object, ok := a.GetObject().(*unstructured.Unstructured)
	if !ok {
		return nil // not a custom resource
	}
	set, err := r.of(ctx, a.GetResource().GroupResource().String(), a.GetKind().Version)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	if set == nil || set.validator == nil {
		return nil
	}
	var before map[string]any
	var options []cel.Option
	if old, ok := a.GetOldObject().(*unstructured.Unstructured); ok && old != nil {
		before = old.Object
		options = append(options, cel.WithRatcheting(common.NewCorrelatedObject(object.Object, before, &model.Structural{Structural: set.structural})))
	}
	problems, _ := set.validator.Validate(ctx, nil, set.structural, object.Object, oldValue(before), celconfig.RuntimeCELCostBudget, options...)
	if len(problems) == 0 {
		return nil
	}
	return apierrors.NewInvalid(a.GetKind().GroupKind(), object.GetName(), problems)
}

// oldValue is nil, not an empty map in an interface, when there was no object before.
func oldValue(before map[string]any) any {
	if before == nil {
		return nil
	}
	return before
}

// of returns the rules for a definition's present state, nil when there is no such
// definition or version.
func (r *rules) of(ctx context.Context, name, version string) (*ruleSet, error) {
	present, err := r.definitions.Get(name)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	key := ruleKey{name, version}
	if set := r.compiled[key]; set != nil && set.uid == present.UID && set.generation == present.Generation {
		return set, nil
	}
	whole, err := r.client.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("validation rules: CustomResourceDefinition %s: %w", name, err)
	}
	set, err := compile(whole, version)
	if err != nil {
		return nil, fmt.Errorf("validation rules: CustomResourceDefinition %s: version %s: %w", name, version, err)
	}
	if r.compiled == nil {
		r.compiled = map[ruleKey]*ruleSet{}
	}
	r.compiled[key] = set
	return set, nil
}

func compile(definition *apiextensionsv1.CustomResourceDefinition, version string) (*ruleSet, error) {
	set := &ruleSet{uid: definition.UID, generation: definition.Generation}
	for _, v := range definition.Spec.Versions {
		if v.Name != version || v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		var internal apiextensions.JSONSchemaProps
		if err := apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, &internal, nil); err != nil {
			return nil, err
		}
		structural, err := schema.NewStructural(&internal)
		if err != nil {
			return nil, err
		}
		if set.validator = cel.NewValidator(structural, true, celconfig.PerCallLimit); set.validator != nil {
			set.structural = structural
		}
	}
	return set, nil
}
