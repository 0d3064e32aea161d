package server

import (
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsapiserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apiserver/pkg/registry/generic"
	"k8s.io/kubernetes/pkg/api/legacyscheme"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

	"github.com/lateen-mesh/lateen/local/apiserver/store"
)

// builtIn keeps kinds of Kubernetes in the store: in protobuf, in the first version
// of their group; definitions of custom resources in JSON, which is what their
// schemas are.
type builtIn struct{ store *store.Store }

func (b builtIn) GetRESTOptions(resource schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	if resource.Group == apiextensions.GroupName {
		codec := apiextensionsapiserver.Codecs.LegacyCodec(apiextensionsv1.SchemeGroupVersion)
		return b.store.RESTOptions(resource, codec), nil
	}
	scheme := legacyscheme.Scheme
	codec := legacyscheme.Codecs.CodecForVersions(
		protobuf.NewSerializer(scheme, scheme),
		legacyscheme.Codecs.UniversalDeserializer(),
		scheme.PrioritizedVersionsForGroup(resource.Group)[0],
		schema.GroupVersion{Group: resource.Group, Version: runtime.APIVersionInternal},
	)
	return b.store.RESTOptions(resource, codec), nil
}

// custom keeps custom resources: the server of definitions converts, prunes and
// fills in defaults around this codec.
type custom struct{ store *store.Store }

func (c custom) GetRESTOptions(resource schema.GroupResource, _ runtime.Object) (generic.RESTOptions, error) {
	return c.store.RESTOptions(resource, unstructured.UnstructuredJSONScheme), nil
}
