package control_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregv1 "k8s.io/api/admissionregistration/v1"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
)

const hookConfig = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-sidecar-injector, labels: {app: sidecar-injector}}
webhooks:
- name: namespace.sidecar-injector.istio.io
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /inject, port: 443}}
- name: somebody.else.example.com
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /else, port: 443}}
`

const injectorMap = `
apiVersion: v1
kind: ConfigMap
metadata: {name: istio-sidecar-injector, namespace: istio-system}
data:
  values: '{"global": {"hub": "example.com/%s"}}'
  config: |
    templates:
      sidecar: |
        spec:
          containers:
          - {name: istio-proxy, image: {{ .ProxyImage | quote }}, env: [{name: CLUSTERS, value: {{ .MeshConfig.TrustDomain }}}]}
`

// A caller is the API's side of the webhook.
type caller struct {
	t      *testing.T
	client *http.Client
}

// newCaller trusts what the API is told to trust.
func newCaller(t *testing.T, socket string, bundle []byte) *caller {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(bundle) {
		t.Fatalf("no certificates in %q", bundle)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "istiod.istio-system.svc"},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &caller{t, &http.Client{Transport: transport}}
}

func (c *caller) post(path, kind, body string) (int, string) {
	c.t.Helper()
	answer, err := c.client.Post("https://istiod.istio-system.svc:443"+path, kind, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

// reviewOf is what the API asks about a pod.
func reviewOf(namespace, pod string) string {
	return fmt.Sprintf(`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"7","namespace":%q,"kind":{"version":"v1","kind":"Pod"},"object":%s}}`, namespace, pod)
}

// inject is what becomes of a pod: the patch, or why there is none.
func (c *caller) inject(path, namespace, pod string) (patch, message string) {
	c.t.Helper()
	code, text := c.post(path, "application/json; charset=utf-8", reviewOf(namespace, pod))
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal([]byte(text), &review); err != nil || code != http.StatusOK || review.Response == nil || review.Response.UID != "7" {
		c.t.Fatalf("%d %s", code, text)
	}
	if review.Response.Result != nil {
		message = review.Response.Result.Message
	}
	return string(review.Response.Patch), message
}

const somePod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p"},"spec":{"containers":[{"name":"c","image":"x"}]}}`

// hookBundle is the certificate that the API has for its first webhook; the other one has none.
func hookBundle(t *testing.T, api *kubetest.API) []byte {
	t.Helper()
	var o admissionregv1.MutatingWebhookConfiguration
	if err := json.Unmarshal([]byte(api.Get("MutatingWebhookConfiguration", "istio-sidecar-injector")), &o); err != nil {
		t.Fatal(err)
	}
	if other := o.Webhooks[1].ClientConfig.CABundle; other != nil {
		t.Fatalf("a webhook that does not inject has got %s", other)
	}
	return o.Webhooks[0].ClientConfig.CABundle
}

func startHooks(t *testing.T, api *kubetest.API, state string) (p *plane, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hook")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket = filepath.Join(dir, "https")
	return startOn(t, api, nil, func(o *control.Options) { o.HTTPS, o.State = "unix:"+socket, state }), socket
}

func TestWebhook(t *testing.T) {
	api := kubetest.New(t).Start()
	api.Apply(hookConfig)
	api.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: quiet, labels: {istio-injection: disabled}}\n")
	state := t.TempDir()
	p, socket := startHooks(t, api, state)

	t.Run("EN-011 ready means that the API can call the webhook", func(t *testing.T) {
		wait(t, func() bool { code, _ := p.get("/ready"); return code == http.StatusOK })
		if hookBundle(t, api) == nil {
			t.Error("ready, but the webhook has no certificate")
		}
	})
	bundle := hookBundle(t, api)
	c := newCaller(t, socket, bundle)
	t.Run("EN-010 EN-024 a pod gets its sidecar over HTTPS", func(t *testing.T) {
		if patch, message := c.inject("/inject", "default", somePod); !strings.Contains(patch, `"lateen/proxyv2:`) {
			t.Errorf("patch %s, message %q", patch, message)
		}
		patch, _ := c.inject("/inject/cluster/c--slash--2/net/n1", "default", somePod)
		for _, want := range []string{`{"name":"ISTIO_META_CLUSTER_ID","value":"c/2"}`, `{"name":"ISTIO_META_NETWORK","value":"n1"}`, `"topology.istio.io/network":"n1"`} {
			if !strings.Contains(patch, want) {
				t.Errorf("%s is not in %s", want, patch)
			}
		}
	})
	t.Run("EX-028 EX-029 a ProxyConfig of the pod's namespace", func(t *testing.T) {
		api.Apply("apiVersion: networking.istio.io/v1beta1\nkind: ProxyConfig\nmetadata: {name: few, namespace: default}\nspec: {concurrency: 7}\n")
		wait(t, func() bool {
			patch, _ := c.inject("/inject", "default", somePod)
			return strings.Contains(patch, `\"concurrency\":7`)
		})
	})
	t.Run("AN-046 none in a namespace that is labelled so, whatever the pod says", func(t *testing.T) {
		patch, _ := c.inject("/inject", "quiet", strings.Replace(somePod, `"name":"p"`, `"name":"p","labels":{"sidecar.istio.io/inject":"true"}`, 1))
		if patch != "" {
			t.Errorf("patch %s", patch)
		}
	})
	t.Run("a pod that asks for what cannot be done is refused with the reason", func(t *testing.T) {
		_, message := c.inject("/inject", "default", strings.Replace(somePod, `"name":"p"`, `"name":"p","annotations":{"status.sidecar.istio.io/port":"x"}`, 1))
		if !strings.Contains(message, "annotation status.sidecar.istio.io/port") {
			t.Errorf("message %q", message)
		}
	})
	t.Run("a hundred pods at once get theirs", func(t *testing.T) {
		var all sync.WaitGroup
		for range 100 {
			all.Go(func() {
				answer, err := c.client.Post("https://istiod.istio-system.svc/inject", "application/json", strings.NewReader(reviewOf("default", somePod)))
				if err != nil {
					t.Error(err)
					return
				}
				defer answer.Body.Close()
				if text, err := io.ReadAll(answer.Body); err != nil || !bytes.Contains(text, []byte(`"patch":`)) {
					t.Errorf("%v: %s", err, text)
				}
			})
		}
		all.Wait()
	})
	t.Run("what is no review is refused", func(t *testing.T) {
		for _, r := range []struct {
			path, kind, body string
			want             int
		}{
			{"/inject", "application/json", "{", http.StatusBadRequest},
			{"/inject", "application/json", `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v2"}`, http.StatusBadRequest},
			{"/inject", "application/json", `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}`, http.StatusBadRequest},
			{"/inject", "text/plain", "{}", http.StatusUnsupportedMediaType},
			{"/inject", "application/json", `"` + strings.Repeat("x", 9<<20) + `"`, http.StatusRequestEntityTooLarge},
			{"/inject/planet/mars", "application/json", "{}", http.StatusNotFound},
			{"/other", "application/json", "{}", http.StatusNotFound},
		} {
			if code, text := c.post(r.path, r.kind, r.body); code != r.want {
				t.Errorf("%s %.40s: %d %s, want %d", r.path, r.body, code, text, r.want)
			}
		}
	})
	t.Run("IN-015 ConfigMap istio-sidecar-injector says what is put in; a broken one changes nothing", func(t *testing.T) {
		has := func(what string) func() bool {
			return func() bool { patch, _ := c.inject("/inject", "default", somePod); return strings.Contains(patch, what) }
		}
		api.Apply(fmt.Sprintf(injectorMap, "one"))
		wait(t, has(`"example.com/one/proxyv2:`))
		api.Apply(webMap + "    trustDomain: td.example\n")
		wait(t, has(`"td.example"`))
		api.Apply(strings.Replace(fmt.Sprintf(injectorMap, "two"), "{{ .ProxyImage", "{{ if", 1))
		wait(t, func() bool {
			_, text := p.get("/debug/status")
			return strings.Contains(text, "the last good state is in force")
		})
		if _, text := p.get("/debug/inject"); !strings.Contains(text, "CLUSTERS") {
			t.Errorf("the page with the templates: %s", text)
		}
		if !has(`"example.com/one/proxyv2:`)() {
			t.Error("the broken ConfigMap has taken the last good one away")
		}
		api.Delete("ConfigMap", "istio-system/istio-sidecar-injector")
		wait(t, has(`"lateen/proxyv2:`))
	})
	t.Run("AN-014 EN-044 the proxy is a native sidecar unless a node is too old for that", func(t *testing.T) {
		const node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {nodeInfo: {kubeletVersion: %s}}\n"
		isNative := func() bool {
			patch, _ := c.inject("/inject", "default", somePod)
			return strings.Contains(patch, `"restartPolicy":"Always"`)
		}
		if !isNative() {
			t.Error("not native before any node is known")
		}
		api.Apply(fmt.Sprintf(node, "v1.32.9"))
		wait(t, func() bool { return !isNative() })
		api.Apply(fmt.Sprintf(node, "v1.33.0+k3s1"))
		wait(t, isNative)
	})
	t.Run("a certificate that somebody takes away comes back", func(t *testing.T) {
		api.Apply(hookConfig)
		wait(t, func() bool { return bytes.Equal(hookBundle(t, api), bundle) })
	})
	t.Run("the certificate outlives the process, its key is the owner's alone", func(t *testing.T) {
		file, err := os.Stat(filepath.Join(state, "webhook.pem"))
		if err != nil || file.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", file, err)
		}
		p.stop()
		again, socket := startHooks(t, api, state)
		wait(t, func() bool { code, _ := again.get("/ready"); return code == http.StatusOK })
		newCaller(t, socket, bundle).inject("/inject", "default", somePod)
		if !bytes.Equal(hookBundle(t, api), bundle) {
			t.Error("the webhook has got another certificate")
		}
	})
	t.Run("two control planes keep each other's certificates", func(t *testing.T) {
		second, socket := startHooks(t, api, t.TempDir())
		wait(t, func() bool { code, _ := second.get("/ready"); return code == http.StatusOK })
		if both := hookBundle(t, api); !bytes.HasPrefix(both, bundle) || len(both) <= len(bundle) {
			t.Errorf("bundle %s", both)
		}
		newCaller(t, socket, hookBundle(t, api)).inject("/inject", "default", somePod)
	})
}

func TestWebhookMayNotBeChanged(t *testing.T) {
	api := kubetest.New(t)
	api.Refuse("MutatingWebhookConfiguration", true)
	p, _ := startHooks(t, api.Start(), "")
	t.Run("without the right to see the webhooks istiod is ready, and says so", func(t *testing.T) {
		wait(t, func() bool { code, _ := p.get("/ready"); return code == http.StatusOK })
		wait(t, func() bool {
			_, text := p.get("/debug/status")
			return strings.Contains(text, "MutatingWebhookConfiguration: ")
		})
	})
}
