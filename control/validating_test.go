package control_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/lateen-mesh/lateen/control/kube/kubetest"
)

// TestValidatingWebhook is the API's side: it asks before it stores.
func TestValidatingWebhook(t *testing.T) {
	api := kubetest.New(t).Start()
	api.Apply(hookConfig)
	p, socket := startHooks(t, api, t.TempDir())
	wait(t, func() bool { code, _ := p.get("/ready"); return code == http.StatusOK })
	c := newCaller(t, socket, hookBundle(t, api))
	const gateway = `{"apiVersion":"networking.istio.io/v1","kind":"Gateway","metadata":{"name":"front","namespace":"one","managedFields":[]},"spec":%s,"status":{"conditions":[]}}`
	const good = `{"selector":{"istio":"ingressgateway"},"servers":[{"port":{"number":80,"name":"http","protocol":"HTTP"},"hosts":["shop.example.com"]}]}`
	const filter = `{"apiVersion":"networking.istio.io/v1alpha3","kind":"EnvoyFilter","metadata":{"name":"front","namespace":"one"},"spec":{}}`
	short := strings.Replace(good, "shop.example.com", "shop", 1)
	for _, tt := range []struct {
		name, version, kind, operation, object string
		denied, warned                         string // parts; "" is none
	}{
		{"EN-010 a good object", "v1", "Gateway", "CREATE", fmt.Sprintf(gateway, good), "", ""},
		{"IN-017 one with a mistake", "v1", "Gateway", "CREATE", fmt.Sprintf(gateway, short),
			`configuration is invalid: servers[0].hosts[0]: `, ""},
		{"one that is changed for the worse", "v1", "Gateway", "UPDATE", fmt.Sprintf(gateway, short), "configuration is invalid: ", ""},
		{"several mistakes are told together", "v1", "Gateway", "CREATE", fmt.Sprintf(gateway, strings.Replace(short, `"number":80`, `"number":0`, 1)), "configuration is invalid: 2 errors occurred:\n\t* ", ""},
		{"a field that there is not", "v1", "Gateway", "CREATE", fmt.Sprintf(gateway, strings.Replace(good, `"hosts"`, `"hots":[],"hosts"`, 1)), "hots", ""},
		{"EF-001 a warning", "v1alpha3", "EnvoyFilter", "CREATE", filter, "", "patches what proxies get"},
		{"one that goes", "v1", "Gateway", "DELETE", "null", "", ""},
		{"what the API itself judges", "v1", "Pod", "CREATE", somePod, "", ""},
		{"a version that the mesh does not have", "v9", "Gateway", "CREATE", fmt.Sprintf(gateway, short), "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, text := c.post("/validate", "application/json", fmt.Sprintf(
				`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"9","dryRun":true,"namespace":"one","operation":%q,"kind":{"group":"networking.istio.io","version":%q,"kind":%q},"object":%s}}`,
				tt.operation, tt.version, tt.kind, tt.object))
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal([]byte(text), &review); err != nil || code != http.StatusOK || review.Response == nil || review.Response.UID != "9" || review.Kind != "AdmissionReview" {
				t.Fatalf("%d %s", code, text)
			}
			var denied string
			if review.Response.Result != nil {
				denied = review.Response.Result.Message
			}
			if review.Response.Allowed != (tt.denied == "") || !strings.Contains(denied, tt.denied) || tt.denied == "" && denied != "" {
				t.Errorf("allowed %v, %q, want %q", review.Response.Allowed, denied, tt.denied)
			}
			if warned := strings.Join(review.Response.Warnings, "\n"); !strings.Contains(warned, tt.warned) || tt.warned == "" && warned != "" {
				t.Errorf("warnings %q, want %q", warned, tt.warned)
			}
		})
	}
	t.Run("the field is told to programs", func(t *testing.T) {
		_, text := c.post("/validate", "application/json", fmt.Sprintf(
			`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"9","operation":"CREATE","kind":{"group":"networking.istio.io","version":"v1","kind":"Gateway"},"object":%s}}`,
			fmt.Sprintf(gateway, short)))
		if !strings.Contains(text, `"field":"spec.servers[0].hosts[0]"`) {
			t.Error(text)
		}
	})
	for _, body := range []string{"", "{}", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, "[]"} {
		if code, text := c.post("/validate", "application/json", body); code != http.StatusBadRequest {
			t.Errorf("%q is answered %d %s", body, code, text)
		}
	}
	t.Run("OB-047 they are counted", func(t *testing.T) {
		if _, text := p.get("/metrics"); !strings.Contains(text, `galley_validation_failed{group="networking.istio.io",kind="Gateway",version="v1"} 5`) {
			t.Errorf("metrics:\n%s", text)
		}
	})
}
