package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emicklei/go-restful/v3"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/apiserver"
	typedv1 "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset/typed/apiextensions/v1"
	apiextensionslisters "k8s.io/apiextensions-apiserver/pkg/client/listers/apiextensions/v1"
	"k8s.io/apiextensions-apiserver/pkg/controller/openapi/builder"
	extensionsopenapi "k8s.io/apiextensions-apiserver/pkg/generated/openapi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	apiopenapi "k8s.io/apiserver/pkg/endpoints/openapi"
	genericapiserver "k8s.io/apiserver/pkg/server"
	utilopenapi "k8s.io/apiserver/pkg/util/openapi"
	"k8s.io/kube-openapi/pkg/builder3"
	openapicommon "k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/common/restfuladapter"
	"k8s.io/kube-openapi/pkg/handler"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/generated/openapi"
)

const openAPIRoot = "/openapi/v3"

func openAPIConfig() *openapicommon.OpenAPIV3Config {
	definitions := utilopenapi.GetOpenAPIDefinitionsWithoutDisabledFeatures(func(ref openapicommon.ReferenceCallback) map[string]openapicommon.OpenAPIDefinition {
		all := openapi.GetOpenAPIDefinitions(ref)
		for name, definition := range extensionsopenapi.GetOpenAPIDefinitions(ref) {
			if _, known := all[name]; !known {
				all[name] = definition
			}
		}
		return all
	})
	config := genericapiserver.DefaultOpenAPIV3Config(definitions, apiopenapi.NewDefinitionNamer(legacyscheme.Scheme, apiserver.Scheme))
	config.Info.Title = "Kubernetes"
	return config
}

// documents serve OpenAPI v3, one document per group version. Upstream builds all
// of them at the start and keeps them; clients ask for few, once (they cache by the
// hash of the list), so each is built when asked for, and dropped.
type documents struct {
	config      *openapicommon.OpenAPIV3Config
	container   *restful.Container
	definitions apiextensionslisters.CustomResourceDefinitionLister
	client      typedv1.CustomResourceDefinitionInterface // has definitions whole
	build       string                                    // hash of what built-in documents depend on: this binary

	mu sync.Mutex // one document at a time: each takes megabytes to build
}

func installOpenAPI(server *genericapiserver.GenericAPIServer, config *openapicommon.OpenAPIV3Config, definitions apiextensionslisters.CustomResourceDefinitionLister, client typedv1.CustomResourceDefinitionInterface, version string) {
	built := version
	if info, ok := debug.ReadBuildInfo(); ok {
		built += info.String()
	}
	d := &documents{config: config, container: server.Handler.GoRestfulContainer, definitions: definitions, client: client, build: hash(built)}
	server.Handler.NonGoRestfulMux.Handle(openAPIRoot, http.HandlerFunc(d.list))
	server.Handler.NonGoRestfulMux.HandlePrefix(openAPIRoot+"/", http.HandlerFunc(d.document))
	handler.NewOpenAPIService(swagger(version)).RegisterOpenAPIVersionedService("/openapi/v2", server.Handler.NonGoRestfulMux)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// list names the documents, each with a hash of its contents' sources.
func (d *documents) list(w http.ResponseWriter, _ *http.Request) {
	index := handler3.OpenAPIV3Discovery{Paths: map[string]handler3.OpenAPIV3DiscoveryGroupVersion{}}
	add := func(path, hash string) {
		index.Paths[path] = handler3.OpenAPIV3DiscoveryGroupVersion{ServerRelativeURL: address(path, hash)}
	}
	for _, service := range d.container.RegisteredWebServices() {
		add(service.RootPath()[1:], d.build)
	}
	byPath, err := d.custom()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for path, definitions := range byPath {
		add(path, customHash(definitions))
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(index) // the client is gone
}

func address(path, hash string) string {
	u := url.URL{Path: openAPIRoot + "/" + path, RawQuery: url.Values{"hash": {hash}}.Encode()}
	return u.String()
}

// custom returns the established definitions by the path of their document.
func (d *documents) custom() (map[string][]*apiextensionsv1.CustomResourceDefinition, error) {
	all, err := d.definitions.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	slices.SortFunc(all, func(a, b *apiextensionsv1.CustomResourceDefinition) int { return strings.Compare(a.Name, b.Name) })
	byPath := map[string][]*apiextensionsv1.CustomResourceDefinition{}
	for _, definition := range all {
		if !established(definition) {
			continue
		}
		for _, version := range definition.Spec.Versions {
			if version.Served {
				path := "apis/" + definition.Spec.Group + "/" + version.Name
				byPath[path] = append(byPath[path], definition)
			}
		}
	}
	return byPath, nil
}

func established(definition *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(definition.Status.Conditions, func(c apiextensionsv1.CustomResourceDefinitionCondition) bool {
		return c.Type == apiextensionsv1.Established && c.Status == apiextensionsv1.ConditionTrue
	})
}

func customHash(definitions []*apiextensionsv1.CustomResourceDefinition) string {
	var text strings.Builder
	for _, definition := range definitions {
		fmt.Fprintln(&text, definition.Name, definition.UID, definition.Generation)
	}
	return hash(text.String())
}

// document builds and serves one document. A client that asks by an old hash is
// sent to the new one.
func (d *documents) document(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, openAPIRoot+"/")
	d.mu.Lock()
	defer d.mu.Unlock()
	document, current, err := d.find(r.Context(), path)
	switch {
	case err != nil:
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	case document == nil:
		http.NotFound(w, r)
		return
	}
	if asked := r.URL.Query().Get("hash"); asked != "" {
		if asked != current {
			http.Redirect(w, r, address(path, current), http.StatusMovedPermanently) //nolint:gosec // to a document of this server: path names one
			return
		}
		w.Header().Set("Cache-Control", "public, immutable")
		w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).Format(time.RFC1123))
	}
	built, err := document()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	// Upstream's service knows the forms that clients may want; its own hash is of no use here.
	once := handler3.NewOpenAPIService()
	once.UpdateGroupVersion(path, built)
	plain := r.Clone(r.Context())
	plain.URL.RawQuery = ""
	once.HandleGroupVersion(w, plain)
}

// find returns how to build the document at path, nil when there is none, and its hash.
func (d *documents) find(ctx context.Context, path string) (func() (*spec3.OpenAPI, error), string, error) {
	for _, service := range d.container.RegisteredWebServices() {
		if service.RootPath()[1:] == path {
			return func() (*spec3.OpenAPI, error) {
				config := *d.config // the builder fills in definitions, megabytes that are not to stay
				return builder3.BuildOpenAPISpecFromRoutes(restfuladapter.AdaptWebServices([]*restful.WebService{service}), &config)
			}, d.build, nil
		}
	}
	byPath, err := d.custom()
	if err != nil {
		return nil, "", err
	}
	definitions := byPath[path]
	if len(definitions) == 0 {
		return nil, "", nil
	}
	return func() (*spec3.OpenAPI, error) {
		version := path[strings.LastIndexByte(path, '/')+1:]
		var parts []*spec3.OpenAPI
		for _, definition := range definitions {
			whole, err := d.client.Get(ctx, definition.Name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			part, err := builder.BuildOpenAPIV3(whole, version, builder.Options{IncludeSelectableFields: true})
			if err != nil {
				return nil, fmt.Errorf("CustomResourceDefinition %s: %w", definition.Name, err)
			}
			parts = append(parts, part)
		}
		return builder.MergeSpecsV3(parts...)
	}, customHash(definitions), nil
}

// swagger is the whole of OpenAPI v2 that this server has. kubectl falls back to v2
// for the one kind that no v3 document holds, v1 List, only to ask whether writes of
// it know fieldValidation and dryRun; upstream's answer for it is that of any kind.
func swagger(version string) *spec.Swagger {
	parameter := func(name string) spec.Parameter {
		return spec.Parameter{
			ParamProps:   spec.ParamProps{Name: name, In: "query"},
			SimpleSchema: spec.SimpleSchema{Type: "string"},
		}
	}
	operation := func(action, kind string) *spec.Operation {
		o := &spec.Operation{OperationProps: spec.OperationProps{ID: action + kind}}
		o.Parameters = []spec.Parameter{parameter("dryRun"), parameter("fieldManager"), parameter("fieldValidation")}
		o.Responses = &spec.Responses{ResponsesProps: spec.ResponsesProps{StatusCodeResponses: map[int]spec.Response{
			http.StatusOK: {ResponseProps: spec.ResponseProps{Description: "OK"}},
		}}}
		o.AddExtension("x-kubernetes-action", action)
		o.AddExtension("x-kubernetes-group-version-kind", map[string]any{"group": "", "version": "v1", "kind": kind})
		return o
	}
	paths := map[string]spec.PathItem{
		"/api/v1/namespaces/{name}": {PathItemProps: spec.PathItemProps{Patch: operation("patch", "Namespace")}},
	}
	return &spec.Swagger{SwaggerProps: spec.SwaggerProps{
		Swagger: "2.0",
		Info:    &spec.Info{InfoProps: spec.InfoProps{Title: "Kubernetes", Version: version}},
		Paths:   &spec.Paths{Paths: paths},
	}}
}
