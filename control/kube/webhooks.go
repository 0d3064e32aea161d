package kube

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// A hookKind is a kind of objects by which the API is told whom to ask.
type hookKind struct {
	name, resource string
	example        runtime.Object
	suffix         string // of the names of the webhooks that are ours
	without        string // what the API does while it cannot ask
}

func hookKinds() []hookKind {
	return []hookKind{
		{"MutatingWebhookConfiguration", "mutatingwebhookconfigurations", &admissionv1.MutatingWebhookConfiguration{},
			"sidecar-injector.istio.io", "pods get no sidecar"},
		{"ValidatingWebhookConfiguration", "validatingwebhookconfigurations", &admissionv1.ValidatingWebhookConfiguration{},
			"validation.istio.io", "objects are stored whatever they say"},
	}
}

// A hookObject is an object of either kind, as far as it concerns us.
type hookObject struct {
	kind          hookKind
	name, version string // metadata.name and metadata.resourceVersion
	revision      string // of the control planes that it is for, "" any
	hooks         []hook
}

// A hook is one webhook.
type hook struct {
	name   string
	config admissionv1.WebhookClientConfig
	lax    bool // what is judged is stored where nobody answers
}

// hooksOf reads an object of a kind.
func hooksOf(kind hookKind, object any) (hookObject, bool) {
	o := hookObject{kind: kind}
	switch whole := object.(type) {
	case *admissionv1.MutatingWebhookConfiguration:
		o.name, o.version, o.revision = whole.Name, whole.ResourceVersion, whole.Labels[revisionLabel]
		for _, h := range whole.Webhooks {
			o.hooks = append(o.hooks, hook{name: h.Name, config: h.ClientConfig})
		}
	case *admissionv1.ValidatingWebhookConfiguration:
		o.name, o.version, o.revision = whole.Name, whole.ResourceVersion, whole.Labels[revisionLabel]
		for _, h := range whole.Webhooks {
			o.hooks = append(o.hooks, hook{h.Name, h.ClientConfig, h.FailurePolicy != nil && *h.FailurePolicy == admissionv1.Ignore})
		}
	default:
		return o, false
	}
	return o, true
}

const revisionLabel = "istio.io/rev"

// Webhooks keep a certificate in the objects by which the API calls this control plane:
// without it the API would not believe who answers. Other control planes' certificates stay
// beside it, for there may be several of one name. Once the control plane answers, what
// judges objects is made strict: until then objects are stored without it. Its methods may
// be called from any goroutine.
type Webhooks struct {
	source    *Source
	bundle    []byte // PEM of one certificate
	namespace string
	revision  string
	wake      chan struct{}
	ready     chan struct{}

	mu        sync.Mutex
	listed    map[string]bool // kinds of which all objects are known
	all       map[string]hookObject
	answering bool
}

// Webhooks returns what keeps the PEM bundle in the webhooks whose Service is in the
// Source's root namespace and which are of a revision. Run it beside the Source.
func (s *Source) Webhooks(bundle []byte, revision string) *Webhooks {
	return &Webhooks{
		source: s, bundle: bundle, namespace: s.options.RootNamespace, revision: revision, wake: make(chan struct{}, 1), ready: make(chan struct{}),
		listed: map[string]bool{}, all: map[string]hookObject{},
	}
}

// Ready is closed when the API can call all webhooks that there are for the first time, or
// does not let them be changed: a Deployment that is made then gets its sidecars at once.
func (w *Webhooks) Ready() <-chan struct{} { return w.ready }

// Answering says that the control plane answers the API from now on.
func (w *Webhooks) Answering() {
	w.mu.Lock()
	w.answering = true
	w.mu.Unlock()
	signal(w.wake)
}

// Run keeps the certificate where it belongs until ctx ends, which is no error.
func (w *Webhooks) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(quietly(ctx, w.source.log))
	defer cancel()
	clients := map[string]*rest.RESTClient{}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	for _, kind := range hookKinds() {
		r := reading{version: admissionv1.SchemeGroupVersion, resource: kind.resource, example: kind.example}
		client, err := w.source.client.rest(r)
		if err != nil {
			return err
		}
		clients[kind.resource] = client
		into := &hookShelf{w, kind}
		all := cache.NewFilteredListWatchFromClient(client, r.resource, metav1.NamespaceAll, func(*metav1.ListOptions) {})
		lists := &cache.ListWatch{WatchFuncWithContext: all.WatchWithContext, ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			list, err := all.ListWithContext(ctx, o)
			if apierrors.IsForbidden(err) { // somebody else sees to them
				_ = into.Replace(nil, "") // never fails
			}
			return list, err
		}}
		running.Go(func() { w.source.reflect(ctx, kind.name, lists, r.example, into) })
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		if err := w.patchAll(ctx, func(ctx context.Context, resource, name string, patch []byte) error {
			return clients[resource].Patch(types.JSONPatchType).Resource(resource).Name(name).Body(patch).Do(ctx).Error()
		}); err != nil && !sleep(ctx, time.Second) {
			return nil
		}
	}
}

// patchAll puts the certificate where it is missing. An error is worth another try, for which
// it wakes Run; a refusal is not, until somebody changes the object.
func (w *Webhooks) patchAll(ctx context.Context, send func(ctx context.Context, resource, name string, patch []byte) error) error {
	var again error
	objects, patches := w.due()
	for i, o := range objects {
		switch err := send(ctx, o.kind.resource, o.name, patches[i]); {
		case err == nil, apierrors.IsNotFound(err), ctx.Err() != nil:
		case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
			w.source.log.Warn("the webhook cannot be given our certificate: without it "+o.kind.without, "object", o.kind.name+" "+o.name, "error", err,
				"hint", "the account needs get, list, watch and patch for "+o.kind.resource)
		default: // changed meanwhile, or the API is away
			again = err
		}
	}
	if again != nil {
		signal(w.wake)
		return again
	}
	w.announce()
	return nil
}

func (w *Webhooks) announce() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.listed) < len(hookKinds()) {
		return
	}
	select {
	case <-w.ready:
	default:
		close(w.ready)
	}
}

// due are the objects that lack something, by name, each with its patch.
func (w *Webhooks) due() (objects []hookObject, patches [][]byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(w.all)) {
		if patch := w.patch(w.all[name]); patch != nil {
			objects, patches = append(objects, w.all[name]), append(patches, patch)
		}
	}
	return objects, patches
}

// patch is what an object lacks, nil where that is nothing. It holds for the version of the
// object that was seen. The caller holds mu.
func (w *Webhooks) patch(o hookObject) []byte {
	operations := []map[string]any{{"op": "test", "path": "/metadata/resourceVersion", "value": o.version}}
	for i, h := range o.hooks {
		service := h.config.Service
		if !strings.HasSuffix(h.name, o.kind.suffix) || service == nil || service.Namespace != w.namespace {
			continue
		}
		if want := w.joined(h.config.CABundle); !bytes.Equal(want, h.config.CABundle) {
			operations = append(operations, map[string]any{"op": "add", "path": fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), "value": want})
		}
		if h.lax && w.answering {
			operations = append(operations, map[string]any{"op": "replace", "path": fmt.Sprintf("/webhooks/%d/failurePolicy", i), "value": admissionv1.Fail})
		}
	}
	if len(operations) == 1 || o.revision != "" && o.revision != w.revision {
		return nil
	}
	text, err := json.Marshal(operations)
	if err != nil {
		return nil // of values that can be written
	}
	return text
}

// maxBundle bounds the certificates that are kept beside our own: of control planes that
// have gone there is no other trace.
const maxBundle = 8

// joined is a bundle with our certificate last, without those that have ended and the oldest
// of too many.
func (w *Webhooks) joined(bundle []byte) []byte {
	if bytes.Contains(bundle, w.bundle) {
		return bundle
	}
	var kept [][]byte
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		certificate, err := x509.ParseCertificate(block.Bytes)
		if err == nil && time.Now().Before(certificate.NotAfter) {
			kept = append(kept, pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes}))
		}
	}
	kept = append(kept[max(0, len(kept)-maxBundle+1):], w.bundle)
	return bytes.Join(kept, nil)
}

// A hookShelf is where a Reflector puts the objects of one kind.
type hookShelf struct {
	to   *Webhooks
	kind hookKind
}

// Add takes an object that is new.
func (s *hookShelf) Add(object any) error { return s.Update(object) }

// Update takes an object that has changed.
func (s *hookShelf) Update(object any) error {
	if o, ok := hooksOf(s.kind, object); ok {
		s.to.mu.Lock()
		s.to.all[s.kind.resource+" "+o.name] = o
		s.to.mu.Unlock()
		signal(s.to.wake)
	}
	return nil
}

// Delete takes note that an object is gone.
func (s *hookShelf) Delete(object any) error {
	if o, ok := hooksOf(s.kind, object); ok {
		s.to.mu.Lock()
		delete(s.to.all, s.kind.resource+" "+o.name)
		s.to.mu.Unlock()
	}
	return nil
}

// Replace takes all objects that there are.
func (s *hookShelf) Replace(objects []any, _ string) error {
	s.to.mu.Lock()
	s.to.listed[s.kind.resource] = true
	maps.DeleteFunc(s.to.all, func(_ string, o hookObject) bool { return o.kind.resource == s.kind.resource })
	for _, object := range objects {
		if o, ok := hooksOf(s.kind, object); ok {
			s.to.all[s.kind.resource+" "+o.name] = o
		}
	}
	s.to.mu.Unlock()
	signal(s.to.wake)
	return nil
}

// Resync has nothing to do.
func (s *hookShelf) Resync() error { return nil }
