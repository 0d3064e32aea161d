package server

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/google/uuid"
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apiserver/pkg/storage"

	"github.com/lateen-mesh/lateen/local/apiserver/store"
)

// seedDefinitions puts the definitions of the options into a store that was never given
// any, as they are once they are established. Applying them one by one to a running
// server takes seconds of work, since each of their steps has every part look at all of
// them again. What is seeded are our own definitions, which the tests of package crds hold
// against this server; those that somebody applies go the usual way.
func seedDefinitions(ctx context.Context, objects *store.Store, o Options) error {
	record := filepath.Join(o.State, appliedFile)
	if _, err := os.Stat(record); err == nil || o.Definitions == "" {
		return nil // applyDefinitions sees to what has changed
	}
	text, err := readDefinitions(o.Definitions)
	if err != nil {
		return err
	}
	definitions, err := decodeDefinitions(text)
	if err != nil || len(definitions) == 0 {
		return err
	}
	into, prefix, done, err := definitionStorage(objects)
	if err != nil {
		return err
	}
	defer done()
	applied := appliedRecord{Sum: hash(string(text))}
	for _, d := range definitions {
		applied.Names = append(applied.Names, d.Name)
		establish(d)
		var internal apiextensions.CustomResourceDefinition
		if err := apiextensionsapiserver.Scheme.Convert(d, &internal, nil); err != nil {
			return fmt.Errorf("CustomResourceDefinition %s: %w", d.Name, err)
		}
		err := into.Create(ctx, prefix+d.Name, &internal, &apiextensions.CustomResourceDefinition{}, 0)
		if err != nil && !storage.IsExist(err) {
			return fmt.Errorf("CustomResourceDefinition %s: %w", d.Name, err)
		}
	}
	return applied.write(record)
}

// definitionStorage is where the server of definitions keeps them.
func definitionStorage(objects *store.Store) (into storage.Interface, prefix string, done func(), err error) {
	resource := schema.GroupResource{Group: apiextensions.GroupName, Resource: "customresourcedefinitions"}
	options, err := builtIn{objects}.GetRESTOptions(resource, nil)
	if err != nil {
		return nil, "", nil, err
	}
	prefix = "/" + options.ResourcePrefix
	into, destroy, err := options.Decorator(options.StorageConfig, prefix, nil,
		func() runtime.Object { return &apiextensions.CustomResourceDefinition{} },
		func() runtime.Object { return &apiextensions.CustomResourceDefinitionList{} }, nil, nil, nil)
	return into, prefix + "/", destroy, err
}

// establish fills in what the server and its controllers would.
func establish(d *apiextensionsv1.CustomResourceDefinition) {
	apiextensionsapiserver.Scheme.Default(d)
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	d.UID, d.CreationTimestamp, d.Generation = types.UID(uuid.NewString()), now, 1
	d.Status.AcceptedNames = d.Spec.Names
	for _, v := range d.Spec.Versions {
		if v.Storage {
			d.Status.StoredVersions = []string{v.Name}
		}
	}
	d.Status.Conditions = []apiextensionsv1.CustomResourceDefinitionCondition{
		{Type: apiextensionsv1.NamesAccepted, Status: apiextensionsv1.ConditionTrue, LastTransitionTime: now, Reason: "NoConflicts", Message: "no conflicts found"},
		{Type: apiextensionsv1.Established, Status: apiextensionsv1.ConditionTrue, LastTransitionTime: now, Reason: "InitialNamesAccepted", Message: "the initial names have been accepted"},
	}
}
