package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/cli"
	"github.com/lateen-mesh/lateen/control/inject"
	"github.com/lateen-mesh/lateen/test/material"
)

// command runs a command of istioctl.
func command(t *testing.T, input string, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = cli.Run(t.Context(), append([]string{"istioctl"}, args...), cli.Streams{In: strings.NewReader(input), Out: &stdout, Err: &stderr})
	return code, stdout.String(), stderr.String()
}

func deployment(t *testing.T, text string) (d appsv1.Deployment) {
	t.Helper()
	document, end, _ := strings.Cut(text, "\n---\n")
	if err := yaml.UnmarshalStrict([]byte(document), &d); err != nil || strings.TrimSpace(end) != "" {
		t.Fatalf("%v\n%s", err, text)
	}
	return d
}

func TestKubeInjectCases(t *testing.T) {
	dir := material.Path(t, "data/inject/kube-inject-cli")
	for _, c := range []struct {
		name, input, want string
		flags             []string
	}{
		{"CL-045 templates, values and mesh configuration of files", "hello", "hello.injected",
			[]string{"--meshConfigFile", "mesh-config.yaml", "--injectConfigFile", "inject-config.yaml", "--valuesFile", "inject-values.yaml"}},
		{"CL-045 a file that is the template itself", "hello", "hello.injected",
			[]string{"--meshConfigFile", "mesh-config.yaml", "--injectConfigFile", "inject-config-inline.yaml", "--valuesFile", "inject-values.yaml"}},
		{"AN-024 an application that waits for its proxy", "hello-with-proxyconfig-anno", "hello-with-proxyconfig-anno.injected",
			[]string{"--meshConfigFile", "mesh-config.yaml", "--injectConfigFile", "inject-config.yaml", "--valuesFile", "inject-values.yaml"}},
		{"values and mesh configuration of an IstioOperator", "hello", "hello.iop.injected",
			[]string{"--operatorFileName", "istio-operator.yaml", "--injectConfigFile", "inject-config-iop.yaml"}},
		{"an IstioOperator, and a file that is the template itself", "hello", "hello.iop.injected",
			[]string{"--operatorFileName", "istio-operator.yaml", "--injectConfigFile", "inject-config-inline-iop.yaml"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := []string{"kube-inject", "-f", filepath.Join(dir, "deployment", c.input+".yaml")}
			for i := 0; i < len(c.flags); i += 2 {
				args = append(args, c.flags[i], filepath.Join(dir, c.flags[i+1]))
			}
			code, out, errs := command(t, "", args...)
			if code != 0 {
				t.Fatal(errs)
			}
			want, err := os.ReadFile(filepath.Join(dir, "deployment", c.want+".yaml"))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(deployment(t, string(want)), deployment(t, out)); diff != "" {
				t.Errorf("- want + got\n%s", diff)
			}
		})
	}
}

// meshAPI serves the ConfigMaps of a mesh in namespace istio-system, and returns the
// kubeconfig by which it is reached.
func meshAPI(t *testing.T, maps ...corev1.ConfigMap) (kubeconfig string) {
	t.Helper()
	mux := http.NewServeMux()
	for _, m := range maps {
		m.TypeMeta = metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}
		mux.HandleFunc("/api/v1/namespaces/istio-system/configmaps/"+m.Name, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(m)
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		name := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404,"message":"configmaps %q not found"}`, name)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c}}]\nclusters: [{name: c, cluster: {server: %q}}]\n", server.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

func injectorMap(t *testing.T, name, hub string) corev1.ConfigMap {
	t.Helper()
	configText, values, err := inject.Render(map[string]any{"global": map[string]any{"hub": hub}})
	if err != nil {
		t.Fatal(err)
	}
	return corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "istio-system"}, Data: map[string]string{"config": string(configText), "values": string(values)}}
}

const mixed = `apiVersion: v1
kind: Service # as it is written
metadata:   {name: web}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: nginx}]}
---
apiVersion: v1
kind: Pod
metadata: {name: quiet, annotations: {sidecar.istio.io/inject: "false"}}
spec: {containers: [{name: c, image: nginx}]}
`

func TestKubeInject(t *testing.T) {
	mesh := corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "istio"}, Data: map[string]string{"mesh": "trustDomain: td.example"}}
	canary := mesh
	canary.Name = "istio-canary"
	api := meshAPI(t, mesh, canary, injectorMap(t, "istio-sidecar-injector", "example.com/hub"), injectorMap(t, "istio-sidecar-injector-canary", "example.com/canary"))

	t.Run("CL-045 standard input is injected as the mesh does it; what has no pods stays as it is", func(t *testing.T) {
		code, out, errs := command(t, mixed, "kube-inject", "-f", "-", "--kubeconfig", api)
		documents := strings.Split(out, "\n---\n")
		if code != 0 || len(documents) != 4 {
			t.Fatalf("%d %s %s", code, out, errs)
		}
		if want, _, _ := strings.Cut(mixed, "\n---\n"); documents[0] != want {
			t.Errorf("the Service is now\n%s", documents[0])
		}
		d := deployment(t, documents[1]+"\n---\n")
		if inits := d.Spec.Template.Spec.InitContainers; len(inits) != 2 || !strings.HasPrefix(inits[1].Image, "example.com/hub/proxyv2:") {
			t.Errorf("init containers %+v", inits)
		}
		for _, want := range []string{"value: td.example", "kubernetes://apis/apps/v1/namespaces/shop/deployments/web"} {
			if !strings.Contains(documents[1], want) {
				t.Errorf("%q is not in\n%s", want, documents[1])
			}
		}
		if strings.Contains(documents[2], "istio-proxy") || !strings.Contains(errs, "Pod quiet") {
			t.Errorf("a pod that wants none: %s\n%s", documents[2], errs)
		}
	})
	t.Run("what is injected once is injected again to the same", func(t *testing.T) {
		_, once, _ := command(t, mixed, "kube-inject", "-f", "-", "--kubeconfig", api)
		_, twice, _ := command(t, once, "kube-inject", "-f", "-", "--kubeconfig", api)
		if diff := cmp.Diff(once, twice); diff != "" {
			t.Errorf("- once + twice\n%s", diff)
		}
	})
	t.Run("a revision has ConfigMaps of its own, -o writes a file", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "out.yaml")
		if code, out, errs := command(t, mixed, "kube-inject", "-f", "-", "-r", "canary", "-o", file, "--kubeconfig", api); code != 0 || out != "" {
			t.Fatal(code, out, errs)
		}
		text, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(text, []byte("example.com/canary/proxyv2:")) || !bytes.Contains(text, []byte("istio.io/rev: canary")) {
			t.Errorf("%v %s", err, text)
		}
	})
	for _, c := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"no file", nil, 2, "-f FILE"},
		{"a file that is not there", []string{"-f", "/nonexistent.yaml"}, 1, "/nonexistent.yaml"},
		{"a revision that is not there", []string{"-f", "-", "-r", "old", "--kubeconfig", api}, 1, "istio-sidecar-injector-old"},
		{"a namespace where there is no mesh", []string{"-f", "-", "-i", "elsewhere", "--kubeconfig", api}, 1, "is the mesh installed there"},
	} {
		t.Run(c.name+" is an error that says what to do", func(t *testing.T) {
			if code, _, errs := command(t, mixed, append([]string{"kube-inject"}, c.args...)...); code != c.code || !strings.Contains(errs, c.want) {
				t.Errorf("%d %s", code, errs)
			}
		})
	}
	t.Run("a pod that asks for what cannot be done is named", func(t *testing.T) {
		text := strings.Replace(mixed, `sidecar.istio.io/inject: "false"`, `sidecar.istio.io/interceptionMode: SOME`, 1)
		code, out, errs := command(t, text, "kube-inject", "-f", "-", "--kubeconfig", api)
		if code != 1 || out != "" || !strings.Contains(errs, "document 3: Pod quiet: annotation sidecar.istio.io/interceptionMode") {
			t.Errorf("%d %s %s", code, out, errs)
		}
	})
}
