package install_test

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/install"
	"github.com/lateen-mesh/lateen/test/material"
)

// An operatorCase is an installation with what the original's command renders of it.
type operatorCase struct {
	Name, Input, Output           string
	DiffSelect, DiffIgnore, Flags string
}

// unbuilt are the cases that are about what there is not yet.
var unbuilt = map[string]string{
	"istio-cni":             "component cni",
	"ztunnel":               "component ztunnel, profile ambient",
	"networkpolicy_enabled": "network policies",
	"sidecar_template":      "the values of injection are compared where injection is",
}

// missing are objects that we do not make, by reason.
var missing = map[string]string{
	"ClusterRole::istiod-gateway-controller-*":        "Deployments for Gateways of the Gateway API",
	"ClusterRoleBinding::istiod-gateway-controller-*": "Deployments for Gateways of the Gateway API",
	"ConfigMap:*:values":                              "a record of chart values, which we have not",
}

// ours are objects that the original's command does not print.
var ours = map[string]string{
	"Namespace::*": "made by the original's install command itself",
	"ValidatingWebhookConfiguration::istiod-default-validator": "made by the original's install command itself",
}

func TestOperatorCases(t *testing.T) {
	root := material.Path(t, "data/operator")
	var cases []operatorCase
	read(t, filepath.Join(root, "cases.yaml"), &cases)
	for _, c := range cases {
		if unbuilt[c.Name] != "" {
			continue
		}
		t.Run("CL-009 OP-015 OP-016 "+c.Name, func(t *testing.T) {
			got, want := index(c.render(t, root)), index(c.expected(t, root))
			for name, w := range want {
				g := got[name]
				switch {
				case matches(missing, name):
				case g == nil:
					t.Errorf("no %s", name)
				default:
					if diff := cmp.Diff(comparable(w), comparable(g)); diff != "" {
						t.Errorf("%s (-want +got)\n%s", name, diff)
					}
				}
			}
			for name := range got {
				if want[name] == nil && c.DiffSelect == "" && len(want) > 0 && !c.partial() && !matches(ours, name) {
					t.Errorf("%s is too much", name)
				}
			}
		})
	}
}

// refused are the inputs that we refuse, with a part of the error.
var refused = map[string]string{
	"component_hub_tag":    "components.cni.enabled: this component is not built yet",
	"istio-cni":            "components.cni.enabled: this component is not built yet",
	"ztunnel":              `profile "ambient"`,
	"istiod_remote":        `profile "remote"`,
	"istiod_remote_config": `profile "remote"`,
	"istiod_remote_ipv6":   `profile "remote"`,
	"istiod_remote_local":  "values.profile: there is no such field",
	"flag_force":           "values.global.badKey: there is no such field",
	"invalid-k8s":          `profile "ambient"`,
	"invalid-k8s-values":   "values.global.defaultTolerations: there is no such field",
}

func TestOperatorInputs(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(material.Path(t, "data/operator"), "input", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".yaml")
		t.Run("OP-001 "+name, func(t *testing.T) {
			content, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = install.New(install.Input{Files: [][]byte{content}})
			if want := refused[name]; (err != nil) != (want != "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("error %v, want %q", err, want)
			}
		})
	}
}

// partial reports that the case has only a part of the objects.
func (c operatorCase) partial() bool { return c.Name == "flag_output" }

func (c operatorCase) render(t *testing.T, root string) []*unstructured.Unstructured {
	t.Helper()
	build := "kind: IstioOperator\nspec: {hub: registry.istio.io/testing, tag: latest}\n" // the original's
	in := install.Input{Force: c.Flags == "--force", Files: [][]byte{[]byte(build)}}
	if c.Input != "" {
		content, err := os.ReadFile(filepath.Join(root, c.Input))
		if err != nil {
			t.Fatal(err)
		}
		in.Files = append(in.Files, content)
	}
	if set, ok := strings.CutPrefix(c.Flags, "--set "); ok && !strings.HasSuffix(set, "=") {
		in.Set = []string{set}
	}
	_, objects := render(t, in)
	return slices.DeleteFunc(objects, func(o *unstructured.Unstructured) bool { return !c.selected(nameOf(o)) })
}

// selected reports whether a case is about an object: KIND:NAMESPACE:NAME, where * is any.
func (c operatorCase) selected(name string) bool {
	any := func(patterns string) bool {
		return slices.ContainsFunc(strings.Split(patterns, ","), func(p string) bool {
			ok, err := path.Match(strings.TrimSuffix(strings.TrimSpace(p), "$"), name)
			return ok && err == nil
		})
	}
	return (c.DiffSelect == "" || any(c.DiffSelect)) && !any(c.DiffIgnore)
}

func (c operatorCase) expected(t *testing.T, root string) (all []*unstructured.Unstructured) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, c.Output))
	if err != nil {
		t.Fatal(err)
	}
	for doc := range strings.SplitSeq(string(content), "\n---\n") {
		o := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &o.Object); err != nil {
			t.Fatal(err)
		}
		if o.Object != nil && c.selected(nameOf(o)) {
			all = append(all, o)
		}
	}
	return all
}

func nameOf(o *unstructured.Unstructured) string {
	return o.GetKind() + ":" + o.GetNamespace() + ":" + o.GetName()
}

func index(objects []*unstructured.Unstructured) map[string]*unstructured.Unstructured {
	all := map[string]*unstructured.Unstructured{}
	for _, o := range objects {
		all[nameOf(o)] = o
	}
	return all
}

func matches(patterns map[string]string, name string) bool {
	for p := range patterns {
		if ok, err := path.Match(p, name); ok && err == nil {
			return true
		}
	}
	return false
}

// comparable is an object without what differs on purpose.
func comparable(o *unstructured.Unstructured) map[string]any {
	m := o.DeepCopy().Object
	meta := mapOf(m["metadata"])
	delete(meta, "labels") // those of charts
	if meta["annotations"] == nil {
		delete(meta, "annotations")
	}
	switch o.GetKind() {
	case "Deployment":
		comparableDeployment(mapOf(m["spec"]))
	case "Service":
		for _, element := range listOf(mapOf(m["spec"])["ports"]) {
			port := mapOf(element)
			delete(port, "targetPort") // gateways open the ports of their Gateways as they are written
			delete(port, "appProtocol")
		}
		spec := mapOf(m["spec"])
		spec["ports"] = slices.DeleteFunc(listOf(spec["ports"]), func(e any) bool { return mapOf(e)["port"] == float64(15443) || mapOf(e)["port"] == int64(15443) })
	case "ConfigMap":
		data := mapOf(m["data"])
		if mesh, ok := data["mesh"].(string); ok {
			data["mesh"] = strings.Replace(mesh, "outboundTrafficPolicy:\n  mode: ALLOW_ANY\n", "", 1) // written out
		}
		delete(data, "config") // templates are injection's
		delete(data, "values")
		delete(data, "_note")
	case "ClusterRole", "Role":
		delete(m, "rules") // what ours do needs less
	}
	return generic(withoutDefaults(m).(map[string]any))
}

// withoutDefaults leaves out what the API would put in by itself.
func withoutDefaults(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, value := range v {
			switch {
			case k == "fieldRef" && mapOf(value)["apiVersion"] == "v1":
				delete(mapOf(value), "apiVersion")
			case k == "scheme" && value == "HTTP", k == "successThreshold":
				delete(v, k)
			}
			withoutDefaults(value)
		}
	case []any:
		for _, element := range v {
			withoutDefaults(element)
		}
	}
	return v
}

// comparableDeployment leaves what users choose: mounts are about certificates, which come
// with mutual TLS; what a container needs is ours to know.
func comparableDeployment(spec map[string]any) {
	template := mapOf(spec["template"])
	labels := mapOf(mapOf(template["metadata"])["labels"])
	for k := range labels {
		if strings.HasPrefix(k, "app.kubernetes.io/") || strings.HasPrefix(k, "helm.sh/") || strings.HasPrefix(k, "install.operator") || k == "chart" || k == "heritage" || k == "release" {
			delete(labels, k)
		}
	}
	pod := mapOf(template["spec"])
	delete(pod, "volumes")
	delete(pod, "affinity") // empty ones
	if tolerations := listOf(pod["tolerations"]); len(tolerations) == 1 && mapOf(tolerations[0])["key"] == "cni.istio.io/not-ready" {
		delete(pod, "tolerations") // of the component cni
	}
	security := mapOf(pod["securityContext"])
	security["sysctls"] = slices.DeleteFunc(listOf(security["sysctls"]), func(e any) bool { return mapOf(e)["name"] == "net.ipv4.ip_unprivileged_port_start" })
	if len(listOf(security["sysctls"])) == 0 {
		delete(security, "sysctls")
	}
	for _, element := range listOf(pod["containers"]) {
		c := mapOf(element)
		delete(c, "volumeMounts")
		delete(c, "ports")
		requests := mapOf(mapOf(c["resources"])["requests"])
		for k, v := range requests {
			if slices.Contains([]any{"500m", "2048Mi", "100m", "128Mi"}, v) { // istiod's defaults
				delete(requests, k)
			}
		}
		c["env"] = slices.DeleteFunc(listOf(c["env"]), func(e any) bool {
			return slices.Contains([]any{"KUBECONFIG", "CA_TRUSTED_NODE_ACCOUNTS", "PILOT_ENABLE_ANALYSIS", "GOMAXPROCS", "GOMEMLIMIT", "PLATFORM",
				"PROXY_CONFIG", "ISTIO_CPU_LIMIT", "ISTIO_META_UNPRIVILEGED_POD"}, mapOf(e)["name"])
		})
		slices.SortFunc(listOf(c["env"]), func(a, b any) int { // they do not refer to each other
			x, _ := mapOf(a)["name"].(string)
			y, _ := mapOf(b)["name"].(string)
			return strings.Compare(x, y)
		})
	}
}

func generic(v map[string]any) map[string]any {
	text, err := yaml.Marshal(v)
	if err != nil {
		return nil
	}
	out := map[string]any{}
	if err := yaml.Unmarshal(text, &out); err != nil {
		return nil
	}
	return out
}

func mapOf(v any) map[string]any {
	m, _ := v.(map[string]any)
	if m == nil {
		m = map[string]any{}
	}
	return m
}

func listOf(v any) []any {
	l, _ := v.([]any)
	return l
}

func read(t *testing.T, name string, into any) {
	t.Helper()
	content, err := os.ReadFile(name)
	if err == nil {
		err = yaml.Unmarshal(content, into)
	}
	if err != nil {
		t.Fatal(err)
	}
}
