package main_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestWebhooks: a webhook of a user, by its URL, changes what matches its
// configuration and refuses what it dislikes.
func TestWebhooks(t *testing.T) {
	s := start(t, os.Geteuid())
	web := httptest.NewTLSServer(http.HandlerFunc(review))
	defer web.Close()
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: web.Certificate().Raw})
	for _, kind := range []string{"Mutating", "Validating"} {
		s.must(fmt.Sprintf(`{
			"apiVersion": "admissionregistration.k8s.io/v1", "kind": "%sWebhookConfiguration", "metadata": {"name": "test"},
			"webhooks": [{
				"name": "test.example.test", "sideEffects": "None", "admissionReviewVersions": ["v1"],
				"clientConfig": {"url": "%s", "caBundle": "%s"},
				"rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["CREATE"]}],
				"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}
			}]}`, kind, web.URL, base64.StdEncoding.EncodeToString(authority)), "apply", "-f", "-")
	}
	eventually(t, "the webhook is called", func() bool {
		s.kubectl("", "delete", "configmap", "seen", "--ignore-not-found")
		return s.must("", "create", "configmap", "seen", "-o=jsonpath={.metadata.labels.changed}") == "yes"
	})
	step{args: "create configmap bad", want: []string{`admission webhook "test.example.test" denied the request: no bad ones`}, fail: true}.run(t, s)
	step{args: "create configmap bad -n kube-public", want: []string{"created"}}.run(t, s)
	step{args: "create secret generic bad", want: []string{"created"}}.run(t, s)
}

func review(w http.ResponseWriter, r *http.Request) {
	var asked admissionv1.AdmissionReview
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	answer := &admissionv1.AdmissionResponse{UID: asked.Request.UID, Allowed: true}
	switch {
	case asked.Request.Name == "bad":
		answer.Allowed = false
		answer.Result = &metav1.Status{Message: "no bad ones"}
	case !strings.Contains(string(asked.Request.Object.Raw), `"changed"`):
		patch, json := `[{"op":"add","path":"/metadata/labels","value":{"changed":"yes"}}]`, admissionv1.PatchTypeJSONPatch
		answer.Patch, answer.PatchType = []byte(patch), &json
	}
	asked.Request, asked.Response = nil, answer
	json.NewEncoder(w).Encode(asked)
}

// TestSharedDefinitions applies the definitions of a mesh as its users do, and
// objects that are right and wrong by their schemas and rules.
func TestSharedDefinitions(t *testing.T) {
	files := sharedDefinitions(t)
	if len(files) == 0 {
		t.Skip("shared acceptance material not present: data/crds")
	}
	s := start(t, os.Geteuid(), "--crds", files[0])
	eventually(t, "ready", func() bool { out, err := s.kubectl("", "get", "--raw", "/readyz"); return err == nil && out == "ok" })
	gateways := filepath.Join(filepath.Dir(files[0]), "../gateway-api/standard")
	s.must("", "apply", "--server-side", "-f", gateways)
	s.must("", "wait", "--for=condition=established", "crd", "--all", "--timeout=60s")
	for _, st := range []step{
		{args: "apply -f -", in: meshObjects, want: []string{"virtualservice.networking.istio.io/a created", "destinationrule.networking.istio.io/a created"}},
		{args: "get vs", want: []string{"NAME +GATEWAYS +HOSTS +AGE", `a +\["a"\]`}},
		{args: "get virtualservices.v1alpha3.networking.istio.io a -o yaml", want: []string{"apiVersion: networking.istio.io/v1alpha3"}},
		{args: "get dr", want: []string{"NAME +HOST +AGE", "a +b"}},
		{args: "explain virtualservice.spec.http.route.weight", want: []string{"Weight specifies the relative proportion"}},
		{
			args: "apply -f -", in: `{"apiVersion":"security.istio.io/v1","kind":"AuthorizationPolicy","metadata":{"name":"p"},"spec":{"selector":{"matchLabels":{"a":"b"}},"targetRef":{"kind":"Service","name":"x","group":""}}}`,
			want: []string{`The AuthorizationPolicy "p" is invalid|AuthorizationPolicy.security.istio.io "p" is invalid`, "only one of targetRefs or selector can be set"}, fail: true,
		},
		{
			args: "apply -f -", in: `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"Gateway","metadata":{"name":"g"},"spec":{"gatewayClassName":"istio","listeners":[{"name":"a","port":80,"protocol":"HTTP"},{"name":"b","port":80,"protocol":"HTTP"}]}}`,
			want: []string{"Combination of port, protocol and hostname must be unique for each listener"}, fail: true,
		},
		{args: "get validatingadmissionpolicies", want: []string{"safe-upgrades.gateway.networking.k8s.io"}},
	} {
		st.run(t, s)
	}
}

const meshObjects = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: a}
spec:
  hosts: [a]
  http: [{route: [{destination: {host: b}}]}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: a}
spec: {host: b}
`
