package kube

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
)

func TestReviewToken(t *testing.T) {
	api := kubetest.New(t).Start()
	s := of(t, api)
	api.Know("mine", kubetest.Token{User: "system:serviceaccount:default:sleep", Audience: "istio-ca"})
	api.Know("api's", kubetest.Token{User: "system:serviceaccount:default:sleep", Audience: "https://kubernetes.default.svc"})
	for token, want := range map[string]string{"mine": "system:serviceaccount:default:sleep", "api's": "", "nobody's": ""} {
		if got, err := s.ReviewToken(t.Context(), token, []string{"istio-ca"}); err != nil || got != want {
			t.Errorf("SX-020 token %s is of %q, %v; want %q", token, got, err, want)
		}
	}
	api.Stop()
	if _, err := s.ReviewToken(t.Context(), "mine", []string{"istio-ca"}); err == nil {
		t.Error("an API that is away knows a token")
	}
}

func TestKeepSecret(t *testing.T) {
	api := kubetest.New(t).Start()
	s := of(t, api)
	keep := func(text string) (string, error) {
		data, err := s.KeepSecret(t.Context(), "istio-ca-secret", "istio.io/ca-root", func() (map[string][]byte, error) {
			if text == "" {
				return nil, errors.New("nothing is made")
			}
			return map[string][]byte{"ca-key.pem": []byte(text)}, nil
		})
		return string(data["ca-key.pem"]), err
	}
	if data, err := s.ReadSecret(t.Context(), "istio-ca-secret"); data != nil || err != nil {
		t.Errorf("a Secret that is not there: %v, %v", data, err)
	}
	if _, err := keep(""); err == nil {
		t.Error("what cannot be made is kept")
	}
	for _, made := range []string{"first", "second"} {
		if got, err := keep(made); got != "first" || err != nil {
			t.Errorf("SX-004 kept is %q, %v", got, err)
		}
	}
	if text := api.Get("Secret", "istio-system/istio-ca-secret"); !strings.Contains(text, `"type":"istio.io/ca-root"`) {
		t.Error(text)
	}
	api.Apply("apiVersion: v1\nkind: Secret\nmetadata: {name: cacerts, namespace: istio-system}\ndata: {tls.key: Zmlyc3Q=}\n")
	api.Apply("apiVersion: v1\nkind: Secret\nmetadata: {name: other, namespace: istio-system}\n")
	s.until("a later Secret", func(set *config.Set) bool { return set.Get(config.Secret, "istio-system", "other") != nil })
	if all := s.store.Current().List(config.Secret); len(all) != 1 {
		t.Errorf("keys of authorities are among the mesh's objects: %v", all)
	}
	t.Run("of two that are first one counts", func(t *testing.T) {
		api.Delete("Secret", "istio-system/istio-ca-secret")
		var got [2]string
		var both, tasks sync.WaitGroup
		both.Add(2)
		for i, made := range []string{"a", "b"} {
			tasks.Go(func() {
				data, err := s.KeepSecret(t.Context(), "istio-ca-secret", "", func() (map[string][]byte, error) {
					both.Done()
					both.Wait()
					return map[string][]byte{"ca-key.pem": []byte(made)}, nil
				})
				if err != nil {
					t.Error(err)
				}
				got[i] = string(data["ca-key.pem"])
			})
		}
		tasks.Wait()
		if got[0] != got[1] || got[0] == "" {
			t.Errorf("kept are %q", got)
		}
	})
}

func TestRoots(t *testing.T) {
	api := kubetest.New(t).Start()
	for _, n := range []string{"default", "istio-system", "kube-system"} {
		api.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: " + n + "}\n")
	}
	s := of(t, api)
	var bundle atomic.Pointer[string]
	roots := s.Roots(func() []byte {
		if b := bundle.Load(); b != nil {
			return []byte(*b)
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- roots.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	has := func(namespace, text string) bool {
		return strings.Contains(api.Get("ConfigMap", namespace+"/istio-ca-root-cert"), `"root-cert.pem":"`+text+`"`)
	}
	say := func(text string) {
		bundle.Store(&text)
		roots.Changed()
	}
	say("one")
	eventually(t, "SX-006 every namespace has the roots", func() bool { return has("default", "one") && has("istio-system", "one") })
	api.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n")
	eventually(t, "SX-006 a new namespace has the roots", func() bool { return has("web", "one") })
	api.Delete("ConfigMap", "web/istio-ca-root-cert")
	eventually(t, "what somebody deletes comes back", func() bool { return has("web", "one") })
	api.Apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio-ca-root-cert, namespace: web}\ndata: {root-cert.pem: forged}\n")
	eventually(t, "what somebody changes does, too", func() bool { return has("web", "one") })
	say("two")
	eventually(t, "other roots are in every namespace", func() bool { return has("default", "two") && has("web", "two") })
	if has("kube-system", "one") || has("kube-system", "two") {
		t.Error("a namespace of the cluster's own machinery has the roots")
	}
}

// The API of this tree answers as Kubernetes does.
func TestAuthorityOnTheRealAPI(t *testing.T) {
	api := realAPI(t, false)
	s := run(t, Options{Connection: Connection{Socket: api.Socket}})
	api.apply(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"istio-system"}}`)
	api.apply(`{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"sleep","namespace":"istio-system"}}`)
	var made struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	request := map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": map[string]any{"audiences": []string{"istio-ca"}}}
	eventually(t, "a token is made", func() bool {
		return s.client.do(t.Context(), "POST", "/api/v1/namespaces/istio-system/serviceaccounts/sleep/token", request, &made) == nil
	})
	for audience, want := range map[string]string{"istio-ca": "system:serviceaccount:istio-system:sleep", "vault": ""} {
		if got, err := s.ReviewToken(t.Context(), made.Status.Token, []string{audience}); err != nil || got != want {
			t.Errorf("SX-020 for %s the token is of %q, %v; want %q", audience, got, err, want)
		}
	}
	if refusal, err := s.MayReadSecrets(t.Context(), "system:serviceaccount:istio-system:sleep", "istio-system"); refusal != "" || err != nil { // this API allows everything
		t.Errorf("SX-023 it may not read Secrets: %q, %v", refusal, err)
	}
	for _, text := range []string{"first", "second"} {
		data, err := s.KeepSecret(t.Context(), "istio-ca-secret", "istio.io/ca-root", func() (map[string][]byte, error) {
			return map[string][]byte{"ca-key.pem": []byte(text)}, nil
		})
		if err != nil || string(data["ca-key.pem"]) != "first" {
			t.Errorf("SX-004 kept is %q, %v", data, err)
		}
	}
	roots := s.Roots(func() []byte { return []byte(t.Name()) })
	for range 2 {
		if err := roots.write(t.Context(), "istio-system"); err != nil {
			t.Errorf("SX-006 the roots are not written: %v", err)
		}
	}
	if err := roots.write(t.Context(), "gone"); !apierrors.IsNotFound(err) {
		t.Errorf("the roots of a namespace that is not there: %v", err)
	}
}
