package cli_test

import (
	"bytes"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/cli"
	"github.com/lateen-mesh/lateen/test/api"
)

// TestAnalyzeOfAnAPI analyzes what an API server holds, and what it would hold with a file
// in place.
func TestAnalyzeOfAnAPI(t *testing.T) {
	kubeconfig := api.Start(t).Kubeconfig
	t.Setenv("KUBECONFIG", kubeconfig)
	run := func(line, in string) (code int, out, errs string) {
		var o, e bytes.Buffer
		code = cli.Run(t.Context(), append([]string{"istioctl"}, strings.Fields(line)...), cli.Streams{In: strings.NewReader(in), Out: &o, Err: &e})
		return code, o.String(), e.String()
	}
	if code, _, errs := run("install --set profile=empty --set components.base.enabled=true -y", ""); code != 0 {
		t.Fatal(errs)
	}
	apply(t, kubeconfig, `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart, namespace: shop, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 80}]
endpoints: [{addresses: [192.0.2.1]}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec: {hosts: [cart], http: [{route: [{destination: {host: cart}}]}]}
`)
	broken := `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: cart, namespace: shop}
spec: {hosts: [cart], http: [{route: [{destination: {host: cat}}]}]}
`
	for _, c := range []struct {
		name, line, in string
		code           int
		out, err       string // parts
	}{
		{"CL-021 nothing is wrong", "analyze -n shop", "", 0, "", "✔ No validation issues found when analyzing namespace: shop.\n"},
		{"CL-021 nothing worse than to know of", "analyze --all-namespaces --output-threshold Warning", "", 0, "", "✔ No validation issues found when analyzing all namespaces.\n"},
		{"CL-021 a namespace without a word", "analyze", "", 0, "Info [IST0102] (Namespace default) The namespace is not enabled for Istio injection.", ""},
		{"CL-021 as it would be with a file", "analyze -n shop -", broken, 79, `Error [IST0101] (VirtualService shop/cart -:5) Referenced host not found: "cat"` + "\n", "Error: Analyzers found issues when analyzing namespace: shop.\n"},
		{"CL-021 of the file alone", "analyze -n shop --use-kube=false -", broken, 0, "", "✔ No validation issues found when analyzing -.\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out, errs := run(c.line, c.in)
			if code != c.code || !strings.Contains(out, c.out) || c.out == "" && out != "" || !strings.Contains(errs, c.err) {
				t.Errorf("istioctl %s: exit code %d, want %d\nout:\n%swant in it:\n%s\nerr:\n%swant in it:\n%s", c.line, code, c.code, out, c.out, errs, c.err)
			}
		})
	}
	t.Run("CL-021 of what is there in truth", func(t *testing.T) {
		apply(t, kubeconfig, broken)
		if code, out, _ := run("analyze -A", ""); code != 79 || !strings.Contains(out, `Error [IST0101] (VirtualService shop/cart) Referenced host not found: "cat"`) {
			t.Errorf("exit code %d: %s", code, out)
		}
	})
}

// apply makes the objects of a text those of the API.
func apply(t *testing.T, kubeconfig, text string) {
	t.Helper()
	rest, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	client, err := dynamic.NewForConfig(rest)
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq(text, "---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(part), &o.Object); err != nil {
			t.Fatal(err)
		}
		kind, _ := meta.UnsafeGuessKindToResource(o.GroupVersionKind())
		if _, err := client.Resource(kind).Namespace(o.GetNamespace()).Apply(t.Context(), o.GetName(), o, metav1.ApplyOptions{FieldManager: "test"}); err != nil {
			t.Fatal(err)
		}
	}
}
