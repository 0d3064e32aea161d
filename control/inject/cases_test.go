package inject

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/test/material"
)

// A sharedCase is an entry of data/inject/cases.yaml.
type sharedCase struct {
	Input, Output, ErrorContains, IstioOperator string
	InstallFlags                                []string
	MeshConfig                                  map[string]any
	KubeInjectOnly                              bool
}

func (c sharedCase) settings(t *testing.T, dir string) (*Settings, Request) {
	t.Helper()
	values := map[string]any{}
	if c.IstioOperator != "" {
		var operator struct {
			Spec struct{ Values map[string]any }
		}
		readYAML(t, filepath.Join(dir, c.IstioOperator), &operator)
		values = operator.Spec.Values
	}
	for _, flag := range c.InstallFlags {
		path, text, _ := strings.Cut(strings.TrimPrefix(flag, "values."), "=")
		var value any
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			t.Fatal(err)
		}
		keys := strings.Split(path, ".")
		setting := map[string]any{keys[len(keys)-1]: value}
		for i := len(keys) - 2; i >= 0; i-- {
			setting = map[string]any{keys[i]: setting}
		}
		values = overlay(values, setting)
	}
	configText, valuesText, err := Render(values)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Parse(configText, valuesText)
	if err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(c.MeshConfig)
	if err != nil {
		t.Fatal(err)
	}
	mesh, problems := config.DecodeMeshConfig("", text)
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	return s, Request{Mesh: mesh, NativeSidecars: true}
}

func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// TestSharedCases injects what Istio's own tests inject, through kube-inject and, where a
// pod can come that way, through the webhook.
func TestSharedCases(t *testing.T) {
	dir := material.Path(t, "data/inject")
	var cases []sharedCase
	readYAML(t, filepath.Join(dir, "cases.yaml"), &cases)
	for _, c := range cases {
		t.Run(filepath.Base(c.Input)+" "+filepath.Base(c.Output), func(t *testing.T) {
			s, base := c.settings(t, dir)
			input, err := os.ReadFile(filepath.Join(dir, c.Input))
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Documents(input, base, nil)
			if c.ErrorContains != "" {
				if err == nil || !strings.Contains(strings.ToLower(err.Error()), c.ErrorContains) {
					t.Errorf("error %v, want %q in it", err, c.ErrorContains)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(filepath.Join(dir, c.Output))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(podsOf(t, want), podsOf(t, got)); diff != "" {
				t.Errorf("kube-inject: - want + got\n%s", diff)
			}
			if !c.KubeInjectOnly {
				if diff := cmp.Diff(podsOf(t, want), throughWebhook(t, s, base, input)); diff != "" {
					t.Errorf("webhook: - want + got\n%s", diff)
				}
			}
		})
	}
}

// podsOf are the pods and the forms of pods in a text, in the form in which they are compared.
func podsOf(t *testing.T, text []byte) (pods []any) {
	t.Helper()
	for _, w := range workloads(t, text) {
		pods = append(pods, comparable(t, w.pod))
	}
	return pods
}

type workload struct {
	kind metav1.TypeMeta
	meta metav1.ObjectMeta
	pod  *corev1.Pod
}

func workloads(t *testing.T, text []byte) (all []workload) {
	t.Helper()
	var visit func(object map[string]any)
	visit = func(object map[string]any) {
		kind, _ := object["kind"].(string)
		for _, item := range asList(object["items"]) {
			visit(item.(map[string]any))
		}
		path, ok := templatePaths()[kind]
		if !ok {
			return
		}
		in := object
		for _, key := range path {
			in = in[key].(map[string]any)
		}
		w := workload{pod: &corev1.Pod{}}
		if err := convert(in, w.pod); err != nil {
			t.Fatal(err)
		}
		if kind == "CronJob" && len(w.pod.Annotations)+len(w.pod.Labels) == 0 {
			// Istio's kube-inject leaves these with the Job, where they do not reach the pod. Ours
			// are the pod's.
			if err := convert(object["spec"].(map[string]any)["jobTemplate"].(map[string]any)["metadata"], &w.pod.ObjectMeta); err != nil {
				t.Fatal(err)
			}
		}
		if err := convert(object["metadata"], &w.meta); err != nil {
			t.Fatal(err)
		}
		w.kind.APIVersion, _ = object["apiVersion"].(string)
		w.kind.Kind, w.pod.TypeMeta = kind, metav1.TypeMeta{}
		all = append(all, w)
	}
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all
		}
		var object map[string]any
		if err := yaml.Unmarshal(document, &object); err != nil {
			t.Fatal(err)
		}
		visit(object)
	}
}

func asList(v any) []any {
	list, _ := v.([]any)
	return list
}

// comparable is a pod by its meaning: images without registry and tag, JSON in variables
// decoded. One thing differs on purpose: our pods do not wait for ConfigMap
// istio-ca-root-cert, which only mutual TLS needs.
func comparable(t *testing.T, pod *corev1.Pod) any {
	t.Helper()
	pod = pod.DeepCopy()
	pod.Status = corev1.PodStatus{}
	for _, v := range pod.Spec.Volumes {
		if v.Name == "istiod-ca-cert" && v.ConfigMap != nil {
			v.ConfigMap.Optional = nil
		}
	}
	decoded := map[string]any{"metadata": pod.ObjectMeta}
	for _, all := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range all {
			c := &all[i]
			name := c.Image[strings.LastIndex(c.Image, "/")+1:]
			c.Image, _, _ = strings.Cut(name, ":")
			for j := range c.Env {
				var v any
				if e := &c.Env[j]; json.Unmarshal([]byte(e.Value), &v) == nil {
					decoded[c.Name+" "+e.Name], e.Value = v, "(decoded)"
				}
			}
		}
	}
	text, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	var form any
	if err := json.Unmarshal(text, &form); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"pod": form, "decoded": decoded}
}

// throughWebhook sends each pod of a text, as its controller would make it, through the
// webhook and patches it as the API does.
func throughWebhook(t *testing.T, s *Settings, base Request, text []byte) (pods []any) {
	t.Helper()
	for _, w := range workloads(t, text) {
		pod := w.pod.DeepCopy()
		namespace := w.meta.Namespace
		if w.kind.Kind != "Pod" {
			controller := true
			pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: w.kind.APIVersion, Kind: w.kind.Kind, Name: w.meta.Name, Controller: &controller}}
			pod.GenerateName = w.meta.Name + "-"
		}
		raw, err := json.Marshal(pod)
		if err != nil {
			t.Fatal(err)
		}
		review := admissionv1.AdmissionReview{
			TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
			Request: &admissionv1.AdmissionRequest{UID: "1", Namespace: namespace, Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
				Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw}},
		}
		body, err := json.Marshal(review)
		if err != nil {
			t.Fatal(err)
		}
		answer, _, err := s.Review(body, base, nil)
		if err != nil {
			t.Fatal(err)
		}
		got := &corev1.Pod{}
		if err := json.Unmarshal(applied(t, raw, answer), got); err != nil {
			t.Fatal(err)
		}
		if w.kind.Kind != "Pod" {
			got.OwnerReferences, got.GenerateName = nil, ""
		}
		pods = append(pods, comparable(t, got))
	}
	return pods
}

// applied is an object with the patch of a review's answer.
func applied(t *testing.T, raw, answer []byte) []byte {
	t.Helper()
	var review admissionv1.AdmissionReview
	if err := json.Unmarshal(answer, &review); err != nil {
		t.Fatal(err)
	}
	if r := review.Response; r == nil || !r.Allowed {
		t.Fatalf("refused: %s", answer)
	}
	if review.Response.Patch == nil {
		return raw
	}
	patch, err := jsonpatch.DecodePatch(review.Response.Patch)
	if err != nil {
		t.Fatal(err)
	}
	after, err := patch.Apply(raw)
	if err != nil {
		t.Fatalf("%v\n%s", err, review.Response.Patch)
	}
	return after
}
