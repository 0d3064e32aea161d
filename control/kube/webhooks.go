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
	"k8s.io/client-go/tools/cache"
)

// injectorSuffix ends the names of the webhooks that inject.
const injectorSuffix = "sidecar-injector.istio.io"

const webhooksName = "MutatingWebhookConfiguration"

// Webhooks keep a certificate in the MutatingWebhookConfigurations by which the API calls
// this control plane: without it the API would not believe who answers. Other control
// planes' certificates stay beside it, for there may be several of one name. Its methods may
// be called from any goroutine.
type Webhooks struct {
	source    *Source
	bundle    []byte // PEM of one certificate
	namespace string
	revision  string
	wake      chan struct{}
	ready     chan struct{}

	mu     sync.Mutex
	listed bool
	all    map[string]*admissionv1.MutatingWebhookConfiguration
}

// Webhooks returns what keeps the PEM bundle in the webhooks that inject, whose Service is
// in the Source's root namespace and which are of a revision. Run it beside the Source.
func (s *Source) Webhooks(bundle []byte, revision string) *Webhooks {
	return &Webhooks{
		source: s, bundle: bundle, namespace: s.options.RootNamespace, revision: revision, wake: make(chan struct{}, 1), ready: make(chan struct{}),
		all: map[string]*admissionv1.MutatingWebhookConfiguration{},
	}
}

// Ready is closed when the API can call all webhooks that there are for the first time, or
// does not let them be changed: a Deployment that is made then gets its sidecars at once.
func (w *Webhooks) Ready() <-chan struct{} { return w.ready }

// Run keeps the certificate where it belongs until ctx ends, which is no error.
func (w *Webhooks) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(quietly(ctx, w.source.log))
	defer cancel()
	r := reading{version: admissionv1.SchemeGroupVersion, resource: "mutatingwebhookconfigurations", example: &admissionv1.MutatingWebhookConfiguration{}}
	client, err := w.source.client.rest(r)
	if err != nil {
		return err
	}
	all := cache.NewFilteredListWatchFromClient(client, r.resource, metav1.NamespaceAll, func(*metav1.ListOptions) {})
	lists := &cache.ListWatch{WatchFuncWithContext: all.WatchWithContext, ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		list, err := all.ListWithContext(ctx, o)
		if apierrors.IsForbidden(err) { // somebody else sees to them
			_ = w.Replace(nil, "") // never fails
		}
		return list, err
	}}
	var running sync.WaitGroup
	running.Go(func() { w.source.reflect(ctx, webhooksName, lists, r.example, w) })
	defer running.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.wake:
		}
		if err := w.patchAll(ctx, func(ctx context.Context, name string, patch []byte) error {
			return client.Patch(types.JSONPatchType).Resource(r.resource).Name(name).Body(patch).Do(ctx).Error()
		}); err != nil && !sleep(ctx, time.Second) {
			return nil
		}
	}
}

// patchAll puts the certificate where it is missing. An error is worth another try, for which
// it wakes Run; a refusal is not, until somebody changes the object.
func (w *Webhooks) patchAll(ctx context.Context, send func(ctx context.Context, name string, patch []byte) error) error {
	var again error
	for name, patch := range w.due() {
		switch err := send(ctx, name, patch); {
		case err == nil, apierrors.IsNotFound(err), ctx.Err() != nil:
		case apierrors.IsForbidden(err), apierrors.IsInvalid(err):
			w.source.log.Warn("the webhook cannot be given our certificate: pods get no sidecar unless it has it", "object", webhooksName+" "+name, "error", err,
				"hint", "the account needs get, list, watch and patch for mutatingwebhookconfigurations")
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
	if !w.listed {
		return
	}
	select {
	case <-w.ready:
	default:
		close(w.ready)
	}
}

// due are the patches that are missing, by name of the object.
func (w *Webhooks) due() map[string][]byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	patches := map[string][]byte{}
	for _, name := range slices.Sorted(maps.Keys(w.all)) {
		if patch := w.patch(w.all[name]); patch != nil {
			patches[name] = patch
		}
	}
	return patches
}

// patch is what an object lacks, nil where that is nothing. It holds for the version of the
// object that was seen.
func (w *Webhooks) patch(o *admissionv1.MutatingWebhookConfiguration) []byte {
	operations := []map[string]any{{"op": "test", "path": "/metadata/resourceVersion", "value": o.ResourceVersion}}
	for i := range o.Webhooks {
		hook := &o.Webhooks[i]
		service := hook.ClientConfig.Service
		if !strings.HasSuffix(hook.Name, injectorSuffix) || service == nil || service.Namespace != w.namespace {
			continue
		}
		if want := w.joined(hook.ClientConfig.CABundle); !bytes.Equal(want, hook.ClientConfig.CABundle) {
			operations = append(operations, map[string]any{"op": "add", "path": fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), "value": want})
		}
	}
	if revision := o.Labels["istio.io/rev"]; len(operations) == 1 || revision != "" && revision != w.revision {
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

// The rest is what a Reflector asks of where it puts what it reads.

// Add takes an object that is new.
func (w *Webhooks) Add(object any) error { return w.Update(object) }

// Update takes an object that has changed.
func (w *Webhooks) Update(object any) error {
	if o, ok := object.(*admissionv1.MutatingWebhookConfiguration); ok {
		w.mu.Lock()
		w.all[o.Name] = o
		w.mu.Unlock()
		signal(w.wake)
	}
	return nil
}

// Delete takes note that an object is gone.
func (w *Webhooks) Delete(object any) error {
	if o, ok := object.(*admissionv1.MutatingWebhookConfiguration); ok {
		w.mu.Lock()
		delete(w.all, o.Name)
		w.mu.Unlock()
	}
	return nil
}

// Replace takes all objects that there are.
func (w *Webhooks) Replace(objects []any, _ string) error {
	w.mu.Lock()
	w.all, w.listed = map[string]*admissionv1.MutatingWebhookConfiguration{}, true
	for _, object := range objects {
		if o, ok := object.(*admissionv1.MutatingWebhookConfiguration); ok {
			w.all[o.Name] = o
		}
	}
	w.mu.Unlock()
	signal(w.wake)
	return nil
}

// Resync has nothing to do.
func (w *Webhooks) Resync() error { return nil }
