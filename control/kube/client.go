package kube

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/go-logr/logr"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"github.com/lateen-mesh/lateen/control/config"
)

// A document is a custom object whose spec is not decoded yet.
type document struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              json.RawMessage `json:"spec,omitempty"`
	Status            documentStatus  `json:"status,omitzero"`
}

// A documentList is what the API answers to a request for many.
type documentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []document `json:"items"`
}

// DeepCopyObject is asked for by the machinery of clients.
func (d *document) DeepCopyObject() runtime.Object {
	out := *d
	out.ObjectMeta, out.Spec = *d.ObjectMeta.DeepCopy(), slices.Clone(d.Spec)
	out.Status.Conditions = slices.Clone(d.Status.Conditions)
	return &out
}

// DeepCopyObject is asked for by the machinery of clients.
func (l *documentList) DeepCopyObject() runtime.Object {
	out := *l
	out.ListMeta, out.Items = *l.ListMeta.DeepCopy(), make([]document, len(l.Items))
	for i := range l.Items {
		out.Items[i] = *l.Items[i].DeepCopyObject().(*document)
	}
	return &out
}

// A reading is one kind in one version, and what is asked for of it.
type reading struct {
	kind     config.Kind
	version  schema.GroupVersion
	resource string
	fields   string         // a field selector
	example  runtime.Object // of the type that is decoded into
	root     string         // namespace of the ConfigMap "istio"
}

// builtin are the readings of Kubernetes' own kinds. Secrets that belong to Helm or hold
// tokens are none of the mesh's business.
func builtin(root string) []reading {
	all := []reading{
		{kind: config.Namespace, resource: "namespaces", example: &corev1.Namespace{}},
		{kind: config.Node, resource: "nodes", example: &corev1.Node{}},
		{kind: config.Service, resource: "services", example: &corev1.Service{}},
		{kind: config.EndpointSlice, version: discoveryv1.SchemeGroupVersion, resource: "endpointslices", example: &discoveryv1.EndpointSlice{}},
		{kind: config.Pod, resource: "pods", example: &corev1.Pod{}, fields: "status.phase!=Succeeded,status.phase!=Failed"},
		{kind: config.Secret, resource: "secrets", example: &corev1.Secret{}, fields: "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"},
		{kind: config.ConfigMap, resource: "configmaps", example: &corev1.ConfigMap{}, fields: "metadata.name!=" + rootsName},
		{kind: config.Ingress, version: networkingv1.SchemeGroupVersion, resource: "ingresses", example: &networkingv1.Ingress{}},
		{kind: config.IngressClass, version: networkingv1.SchemeGroupVersion, resource: "ingressclasses", example: &networkingv1.IngressClass{}},
	}
	for i := range all {
		if all[i].version.Empty() {
			all[i].version = corev1.SchemeGroupVersion
		}
		all[i].root = root
	}
	return all
}

// scheme says what answers in one version are decoded into.
func (r reading) scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, r.version)
	switch r.example.(type) {
	case *document:
		s.AddKnownTypeWithName(r.version.WithKind(string(r.kind)), &document{})
		s.AddKnownTypeWithName(r.version.WithKind(string(r.kind)+"List"), &documentList{})
	case *discoveryv1.EndpointSlice:
		s.AddKnownTypes(r.version, &discoveryv1.EndpointSlice{}, &discoveryv1.EndpointSliceList{})
	case *networkingv1.Ingress:
		s.AddKnownTypes(r.version, &networkingv1.Ingress{}, &networkingv1.IngressList{})
	case *networkingv1.IngressClass:
		s.AddKnownTypes(r.version, &networkingv1.IngressClass{}, &networkingv1.IngressClassList{})
	case *admissionv1.MutatingWebhookConfiguration:
		s.AddKnownTypes(r.version, &admissionv1.MutatingWebhookConfiguration{}, &admissionv1.MutatingWebhookConfigurationList{})
	case *admissionv1.ValidatingWebhookConfiguration:
		s.AddKnownTypes(r.version, &admissionv1.ValidatingWebhookConfiguration{}, &admissionv1.ValidatingWebhookConfigurationList{})
	default:
		s.AddKnownTypes(r.version, &corev1.Namespace{}, &corev1.NamespaceList{}, &corev1.Node{}, &corev1.NodeList{},
			&corev1.Service{}, &corev1.ServiceList{}, &corev1.Pod{}, &corev1.PodList{},
			&corev1.Secret{}, &corev1.SecretList{}, &corev1.ConfigMap{}, &corev1.ConfigMapList{})
	}
	s.AddUnversionedTypes(schema.GroupVersion{Version: "v1"}, &metav1.Status{})
	return s
}

// rest is the client for a reading.
func (c *client) rest(r reading) (*rest.RESTClient, error) {
	conf := rest.CopyConfig(c.config)
	conf.GroupVersion, conf.APIPath = &r.version, "/apis"
	if r.version.Group == "" {
		conf.APIPath = "/api"
	}
	if _, custom := r.example.(*document); !custom {
		conf.ContentType = runtime.ContentTypeProtobuf
		conf.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	}
	conf.NegotiatedSerializer = serializer.NewCodecFactory(r.scheme()).WithoutConversion()
	return rest.RESTClientForConfigAndClient(conf, c.http)
}

// plain is a client for JSON as it comes.
func (c *client) plain() (*rest.RESTClient, error) {
	conf := rest.CopyConfig(c.config)
	conf.NegotiatedSerializer = serializer.NewCodecFactory(runtime.NewScheme()).WithoutConversion()
	conf.GroupVersion = &schema.GroupVersion{Version: "v1"}
	return rest.UnversionedRESTClientForConfigAndClient(conf, c.http)
}

// get reads a small document of the API that is no object, such as what it serves.
func (c *client) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, "GET", path, nil, into)
}

// patience is how long the API is left alone when it does not answer: ever longer, up to a
// second, so that what changed meanwhile is soon known when it is back.
func patience() *wait.Backoff {
	return &wait.Backoff{Duration: 100 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 4, Cap: time.Second}
}

// assign says how a kind is read, before it is.
func (s *Source) assign(r reading) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shelves[r.kind].reading = r
}

// follow keeps the shelf of a kind up to date until ctx ends.
func (s *Source) follow(ctx context.Context, r reading) {
	client, err := s.client.rest(r)
	if err != nil { // the configuration was good enough for other kinds
		s.note(string(r.kind), err)
		return
	}
	lists := cache.NewFilteredListWatchFromClient(client, r.resource, metav1.NamespaceAll, func(o *metav1.ListOptions) { o.FieldSelector = r.fields })
	s.reflect(ctx, string(r.kind), lists, r.example, s.shelves[r.kind])
}

// reflect runs a Reflector and takes note of whether the API answers it.
func (s *Source) reflect(ctx context.Context, name string, from cache.ListerWatcherWithContext, example runtime.Object, into cache.ReflectorStore) {
	noted := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := from.ListWithContext(ctx, o)
			s.note(name, err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			w, err := from.WatchWithContext(ctx, o)
			s.note(name, err)
			return w, err
		},
	}
	cache.NewReflectorWithOptions(noted, example, into, cache.ReflectorOptions{Name: name, Backoff: patience()}).RunWithContext(ctx)
	s.forget(name)
}

// again is how often it is said that the API cannot be read.
const again = time.Minute

// note takes down how a request ended. That the API has no watches that begin with what
// there is, or none so far back, is no trouble: the Reflector asks otherwise.
func (s *Source) note(name string, err error) {
	if apierrors.IsInvalid(err) || apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || apierrors.IsTimeout(err) ||
		err != nil && strings.Contains(err.Error(), context.Canceled.Error()) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.troubles)
	switch err {
	case nil:
		delete(s.troubles, name)
		if before == 1 && len(s.troubles) == 0 {
			s.log.Info("the Kubernetes API is read again", "server", s.options.Connection)
			s.logged = time.Time{}
		}
	default:
		s.troubles[name] = err
		if time.Since(s.logged) > again {
			s.logged = time.Now()
			s.log.Warn("the Kubernetes API cannot be read: what is in force stays", "server", s.options.Connection, "kind", name, "error", err, "hint", advice(name, err))
		}
	}
}

func advice(name string, err error) string {
	switch {
	case apierrors.IsForbidden(err):
		return "the account needs get, list and watch for " + name
	case apierrors.IsUnauthorized(err):
		return "the credentials are not, or no longer, accepted"
	}
	return "it is tried again until it works"
}

// forget drops the trouble with a kind that is not read any more.
func (s *Source) forget(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.troubles, name)
}

// quietly has the machinery of clients log for debugging only: what matters of it is
// said by note.
func quietly(ctx context.Context, log *slog.Logger) context.Context {
	return klog.NewContext(ctx, logr.FromSlogHandler(quiet{log.Handler()}))
}

// quiet is a slog.Handler that takes every line for a debug line.
type quiet struct{ slog.Handler }

// chatty is the verbosity from which the machinery tells of requests, and in the end of
// what is in their bodies: Secrets among them.
const chatty = slog.Level(-3)

// Enabled is whether a line is wanted at all.
func (q quiet) Enabled(ctx context.Context, l slog.Level) bool {
	return l > chatty && q.Handler.Enabled(ctx, slog.LevelDebug)
}

// Handle logs for debugging. Errors come without having asked whether they are wanted.
func (q quiet) Handle(ctx context.Context, r slog.Record) error {
	if !q.Enabled(ctx, r.Level) {
		return nil
	}
	r.Level = slog.LevelDebug
	return q.Handler.Handle(ctx, r)
}

// WithAttrs keeps the lines quiet.
func (q quiet) WithAttrs(attrs []slog.Attr) slog.Handler { return quiet{q.Handler.WithAttrs(attrs)} }

// WithGroup keeps the lines quiet.
func (q quiet) WithGroup(name string) slog.Handler { return quiet{q.Handler.WithGroup(name)} }
