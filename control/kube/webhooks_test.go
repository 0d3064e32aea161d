package kube

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
)

// bundleUntil is a certificate in PEM that holds until a time.
func bundleUntil(t *testing.T, number int64, until time.Time) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(number), NotAfter: until}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

func TestBundleOfSeveralControlPlanes(t *testing.T) {
	later := time.Now().Add(time.Hour)
	ours, other, ended := bundleUntil(t, 1, later), bundleUntil(t, 2, later), bundleUntil(t, 3, time.Now().Add(-time.Hour))
	w := &Webhooks{bundle: ours}
	var many []byte
	for i := range int64(maxBundle + 3) {
		many = append(many, bundleUntil(t, 10+i, later)...)
	}
	for _, c := range []struct {
		name         string
		before, want []byte
	}{
		{"none yet", nil, ours},
		{"ours already", bytes.Join([][]byte{ours, other}, nil), bytes.Join([][]byte{ours, other}, nil)},
		{"somebody else's stays", other, bytes.Join([][]byte{other, ours}, nil)},
		{"one that has ended goes", bytes.Join([][]byte{ended, other}, nil), bytes.Join([][]byte{other, ours}, nil)},
		{"what is no certificate goes", []byte("hello"), ours},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := w.joined(c.before); !bytes.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
	t.Run("of too many the oldest go", func(t *testing.T) {
		got := w.joined(many)
		if n := bytes.Count(got, []byte("BEGIN CERTIFICATE")); n != maxBundle || !bytes.HasSuffix(got, ours) {
			t.Errorf("%d certificates\n%s", n, got)
		}
	})
}

const realHooks = `
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: istio-sidecar-injector, labels: {istio.io/rev: default}}
webhooks:
- name: namespace.sidecar-injector.istio.io
  admissionReviewVersions: [v1]
  sideEffects: None
  namespaceSelector: {matchLabels: {istio-injection: enabled}}
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /inject, port: 443}}
- name: elsewhere.sidecar-injector.istio.io
  admissionReviewVersions: [v1]
  sideEffects: None
  namespaceSelector: {matchLabels: {istio-injection: enabled}}
  clientConfig: {service: {name: istiod, namespace: other-system, path: /inject, port: 443}}
`

const realValidator = `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: istio-validator-istio-system}
webhooks:
- name: rev.validation.istio.io
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Ignore
  clientConfig: {service: {name: istiod, namespace: istio-system, path: /validate, port: 443}}
  rules: [{apiGroups: [networking.istio.io], apiVersions: ["*"], operations: [CREATE], resources: ["*"]}]
`

func TestWebhooksOfTheRealAPIServer(t *testing.T) {
	s := realAPI(t, false)
	path := "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/istio-sidecar-injector"
	apply := func(text string) {
		t.Helper()
		if code, answer := s.do(http.MethodPatch, path+"?fieldManager=istioctl&force=true", []byte(text)); code != http.StatusOK && code != http.StatusCreated {
			t.Fatalf("%d %s", code, answer)
		}
	}
	has := func(i int) []byte {
		t.Helper()
		var o admissionv1.MutatingWebhookConfiguration
		_, text := s.do(http.MethodGet, path, nil)
		if err := json.Unmarshal([]byte(text), &o); err != nil || len(o.Webhooks) != 2 {
			t.Fatalf("%v %s", err, text)
		}
		return o.Webhooks[i].ClientConfig.CABundle
	}
	apply(realHooks)
	ours := bundleUntil(t, 1, time.Now().Add(time.Hour))
	r := run(t, Options{Connection: Connection{Socket: s.Socket}})
	w := r.Webhooks(ours, "default")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	t.Run("IN-016 the API learns whom to believe, for our Service alone", func(t *testing.T) {
		select {
		case <-w.Ready():
		case <-time.After(patient):
			t.Fatalf("never ready: %+v\n%s", r.Status(), r.log)
		}
		if !bytes.Equal(has(0), ours) || has(1) != nil {
			t.Errorf("%s and %s", has(0), has(1))
		}
	})
	t.Run("installing again leaves it there", func(t *testing.T) {
		apply(realHooks + "  timeoutSeconds: 7\n")
		if !bytes.Equal(has(0), ours) {
			t.Errorf("%s", has(0))
		}
	})
	t.Run("what is made anew gets it again, also after the API was away", func(t *testing.T) {
		s.delete(path)
		apply(realHooks)
		eventually(t, "the certificate", func() bool { return bytes.Equal(has(0), ours) })
		s.kill()
		s.start()
		s.delete(path)
		apply(realHooks)
		eventually(t, "the certificate", func() bool { return bytes.Equal(has(0), ours) })
	})
	t.Run("IN-017 what judges is made strict, once it is answered", func(t *testing.T) {
		path = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/istio-validator-istio-system"
		validator := func() admissionv1.ValidatingWebhook {
			var o admissionv1.ValidatingWebhookConfiguration
			_, text := s.do(http.MethodGet, path, nil)
			if err := json.Unmarshal([]byte(text), &o); err != nil || len(o.Webhooks) != 1 {
				t.Fatalf("%v %s", err, text)
			}
			return o.Webhooks[0]
		}
		apply(realValidator)
		eventually(t, "the certificate", func() bool { return bytes.Equal(validator().ClientConfig.CABundle, ours) })
		if got := *validator().FailurePolicy; got != admissionv1.Ignore {
			t.Errorf("failure policy %s, and nobody answers", got)
		}
		w.Answering()
		eventually(t, "the failure policy", func() bool { return *validator().FailurePolicy == admissionv1.Fail })
		apply(realValidator) // an installation says so again
		eventually(t, "the failure policy", func() bool { return *validator().FailurePolicy == admissionv1.Fail })
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
