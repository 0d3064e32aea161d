package inject

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
)

func reviewOf(version, namespace, object string) []byte {
	return []byte(fmt.Sprintf(`{"apiVersion":"admission.k8s.io/%s","kind":"AdmissionReview","request":{"uid":"u-1","namespace":%q,"operation":"CREATE",
		"kind":{"group":"","version":"v1","kind":"Pod"},"object":%s}}`, version, namespace, object))
}

func TestReview(t *testing.T) {
	const plainPod = `{"metadata":{"generateName":"web-"},"spec":{"containers":[{"name":"web","image":"nginx"}]}}`
	for _, version := range []string{"v1", "v1beta1"} {
		t.Run("EN-010 a review of "+version+" is answered in its version", func(t *testing.T) {
			answer, verdict, err := Default().Review(reviewOf(version, "shop", plainPod), Request{NativeSidecars: true}, nil)
			if err != nil {
				t.Fatal(err)
			}
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal(answer, &review); err != nil {
				t.Fatal(err)
			}
			if review.APIVersion != "admission.k8s.io/"+version || review.Request != nil || review.Response.UID != "u-1" || *review.Response.PatchType != admissionv1.PatchTypeJSONPatch {
				t.Errorf("%s", answer)
			}
			if !verdict.Result.Injected || verdict.Namespace != "shop" || verdict.Pod != "web-" {
				t.Errorf("verdict %+v", verdict)
			}
			if !strings.Contains(string(applied(t, []byte(plainPod), answer)), "kubernetes://apis/v1/namespaces/shop/pods/web") {
				t.Errorf("the namespace of the request is not the pod's: %s", review.Response.Patch)
			}
		})
	}
	t.Run("a pod that wants a sidecar and cannot have one is allowed with a warning", func(t *testing.T) {
		object := `{"metadata":{"labels":{"sidecar.istio.io/inject":"true"}},"spec":{"hostNetwork":true}}`
		answer, _, err := Default().Review(reviewOf("v1", "shop", object), Request{}, nil)
		if err != nil || !strings.Contains(string(answer), `"allowed":true`) || !strings.Contains(string(answer), "hostNetwork") || strings.Contains(string(answer), "patch") {
			t.Errorf("%v %s", err, answer)
		}
	})
	t.Run("what is no pod is allowed as it is", func(t *testing.T) {
		body := strings.Replace(string(reviewOf("v1", "shop", "{}")), `"kind":"Pod"`, `"kind":"Service"`, 1)
		answer, verdict, err := Default().Review([]byte(body), Request{}, nil)
		if err != nil || !strings.Contains(string(answer), `"allowed":true`) || verdict.Result.Reason != "not a pod" {
			t.Errorf("%v %s", err, answer)
		}
	})
	for name, object := range map[string]string{"that is none": `{"spec":{"containers":{}}}`, "with a bad annotation": `{"metadata":{"annotations":{"sidecar.istio.io/interceptionMode":"x"}}}`} {
		t.Run("a pod "+name+" is refused", func(t *testing.T) {
			answer, verdict, err := Default().Review(reviewOf("v1", "shop", object), Request{}, nil)
			if err != nil || verdict.Err == nil || !strings.Contains(string(answer), `"allowed":false`) || !strings.Contains(string(answer), "sidecar injection: ") {
				t.Errorf("%v %v %s", err, verdict.Err, answer)
			}
		})
	}
	for _, body := range []string{"", "[]", `{"kind":"Pod"}`, `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, strings.Repeat(" ", MaxReview+1)} {
		t.Run(fmt.Sprintf("no review: %.30q", body), func(t *testing.T) {
			if _, _, err := Default().Review([]byte(body), Request{}, nil); err == nil {
				t.Error("answered")
			}
		})
	}
}

func TestPatch(t *testing.T) {
	for _, c := range []struct{ name, raw, after, want string }{
		{"nothing", `{"metadata":{},"spec":{"containers":[]}}`, `{"metadata":{},"spec":{"containers":[]}}`, `[]`},
		{"a name with a slash", `{"metadata":{"annotations":{"a":"b"}}}`, `{"metadata":{"annotations":{"a":"b","x/y~z":"1"}}}`, `[{"op":"add","path":"/metadata/annotations/x~1y~0z","value":"1"}]`},
		{"what goes away", `{"metadata":{"annotations":{"a":"b","c":"d"}}}`, `{"metadata":{"annotations":{"c":"d"}}}`, `[{"op":"remove","path":"/metadata/annotations/a"}]`},
		{"containers before and after", `{"spec":{"containers":[{"name":"a"}]}}`, `{"spec":{"containers":[{"name":"x"},{"name":"a","image":"i"},{"name":"y"}]}}`,
			`[{"op":"add","path":"/spec/containers/0","value":{"name":"x","resources":{}}},{"op":"add","path":"/spec/containers/1/image","value":"i"},{"op":"add","path":"/spec/containers/2","value":{"name":"y","resources":{}}}]`},
		{"another order", `{"spec":{"containers":[{"name":"a"},{"name":"b"}]}}`, `{"spec":{"containers":[{"name":"b"},{"name":"a"}]}}`,
			`[{"op":"add","path":"/spec/containers","value":[{"name":"b","resources":{}},{"name":"a","resources":{}}]}]`},
		{"what is below something that was not written out", `{"spec":{"containers":[{"name":"a"}]}}`, `{"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":"1"}}}]}}`,
			`[{"op":"add","path":"/spec/containers/0/resources","value":{"limits":{"cpu":"1"}}}]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			before, after := &corev1.Pod{}, &corev1.Pod{}
			for text, into := range map[string]*corev1.Pod{c.raw: before, c.after: after} {
				if err := json.Unmarshal([]byte(text), into); err != nil {
					t.Fatal(err)
				}
			}
			if c.raw == c.after {
				after = before
			}
			patch, err := Patch([]byte(c.raw), before, after)
			if err != nil || string(patch) != c.want {
				t.Errorf("%v\ngot  %s\nwant %s", err, patch, c.want)
			}
		})
	}
	t.Run("fields of a newer API stay", func(t *testing.T) {
		raw := []byte(`{"metadata":{"name":"p","later":{"a":1}},"spec":{"containers":[{"name":"web","image":"nginx","later":true,"livenessProbe":{"httpGet":{"port":80},"later":2}}]}}`)
		answer, _, err := Default().Review(reviewOf("v1", "", string(raw)), Request{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		after := string(applied(t, raw, answer))
		for _, want := range []string{`"later":{"a":1}`, `"later":true`, `"later":2`, `"path":"/app-health/web/livez"`} {
			if !strings.Contains(after, want) {
				t.Errorf("%s is not in %s", want, after)
			}
		}
	})
}

// FuzzReview has any bytes answered or refused, and every patch be one that can be applied
// and gives the pod that was meant.
func FuzzReview(f *testing.F) {
	for _, object := range []string{
		`{"metadata":{"name":"p","annotations":{"sidecar.istio.io/status":"{\"containers\":[\"a\"]}"}},"spec":{"containers":[{"name":"a"},{"name":"istio-proxy","image":"auto"}]}}`,
		`{"metadata":{"annotations":{"proxy.istio.io/config":"concurrency: 2","inject.istio.io/templates":"gateway"}},"spec":{"initContainers":[{"name":"i","restartPolicy":"Always","startupProbe":{"grpc":{"port":1}}}]}}`,
		`{"spec":{"containers":[{"name":"a","ports":[{"name":"h","containerPort":1}],"livenessProbe":{"httpGet":{"port":"h"}},"lifecycle":{"preStop":{"tcpSocket":{"port":2}}}}],"volumes":[{"name":"istio-envoy"}]}}`,
	} {
		f.Add(reviewOf("v1", "default", object))
	}
	s := Default()
	f.Fuzz(func(t *testing.T, body []byte) {
		answer, verdict, err := s.Review(body, Request{NativeSidecars: len(body)%2 == 0}, nil)
		if err != nil || !verdict.Result.Injected {
			return
		}
		var asked, answered admissionv1.AdmissionReview
		if json.Unmarshal(body, &asked) != nil || json.Unmarshal(answer, &answered) != nil {
			t.Fatalf("answered what cannot be read: %s", answer)
		}
		patch, err := jsonpatch.DecodePatch(answered.Response.Patch)
		if err != nil {
			t.Fatal(err)
		}
		after, err := patch.Apply(asked.Request.Object.Raw)
		if err != nil {
			t.Fatalf("%v: %s on %s", err, answered.Response.Patch, asked.Request.Object.Raw)
		}
		got := &corev1.Pod{}
		if err := json.Unmarshal(after, got); err != nil {
			t.Fatal(err)
		}
		gotForm, err := plain(got)
		if err != nil {
			t.Fatal(err)
		}
		wantForm, err := plain(verdict.Result.Pod)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(wantForm, gotForm); diff != "" {
			t.Errorf("- meant + patched\n%s", diff)
		}
	})
}

// FuzzDocuments has any text injected or refused, and what is injected be injected again to
// the same.
func FuzzDocuments(f *testing.F) {
	f.Add([]byte("kind: Pod\napiVersion: v1\nspec: {containers: [{name: a, livenessProbe: {tcpSocket: {port: 1}}}]}\n---\n# a comment\n---\nkind: Service\n"))
	f.Add([]byte("kind: List\nitems:\n- kind: CronJob\n  spec: {jobTemplate: {spec: {template: {spec: {initContainers: [{name: istio-proxy}]}}}}}\n"))
	f.Add([]byte(`{"kind":"Deployment","metadata":{"name":"d"},"spec":{"template":{"metadata":{"annotations":{"sidecar.istio.io/status":""}}}}}`))
	s := Default()
	f.Fuzz(func(t *testing.T, text []byte) {
		once, err := s.Documents(text, Request{NativeSidecars: len(text)%2 == 0}, nil)
		if err != nil {
			return
		}
		twice, err := s.Documents(once, Request{NativeSidecars: len(text)%2 == 0}, nil)
		if err != nil {
			t.Fatalf("%v\n%s", err, once)
		}
		if diff := cmp.Diff(string(once), string(twice)); diff != "" {
			t.Errorf("- once + twice\n%s", diff)
		}
	})
}
