package samples_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/test/material"
)

type object = map[string]any

// Our manifests mean what those of Istio's release do: the same objects, labels,
// selectors, ports, routes. What a kubelet or a client cannot see is left open:
// the image's registry and tag, and the port behind a Service where both name it.
func TestManifestsMeanWhatTheOriginalsDo(t *testing.T) {
	root := material.Path(t)
	const extra = "data/samples-extra/samples/"
	const release = "samples/release-1.24/samples/"
	for _, tt := range append(bookinfo(t, root), []manifest{
		{"IN-026", "httpbin/httpbin.yaml", "samples/httpbin/httpbin.yaml"},
		{"IN-026", "httpbin/httpbin.yaml", release + "httpbin/httpbin.yaml"},
		{"IN-026", "sleep/sleep.yaml", release + "sleep/sleep.yaml"},
		{"IN-026", "sleep/sleep.yaml", "samples/sleep/sleep.yaml"},
		{"IN-026", "curl/curl.yaml", extra + "curl/curl.yaml"},
		{"IN-026", "httpbin/httpbin-gateway.yaml", extra + "httpbin/httpbin-gateway.yaml"},
		{"IN-026", "httpbin/httpbin-nodeport.yaml", extra + "httpbin/httpbin-nodeport.yaml"},
		{"IN-026", "httpbin/sample-client/fortio-deploy.yaml", "samples/httpbin/sample-client/fortio-deploy.yaml"},
		{"IN-026", "httpbin/sample-client/fortio-deploy.yaml", release + "httpbin/sample-client/fortio-deploy.yaml"},
		{"helloworld", "helloworld/helloworld.yaml", extra + "helloworld/helloworld.yaml"},
		{"helloworld", "helloworld/helloworld-gateway.yaml", extra + "helloworld/helloworld-gateway.yaml"},
		{"IN-028", "extauthz/ext-authz.yaml", extra + "extauthz/ext-authz.yaml"},
		{"tcp-echo", "tcp-echo/tcp-echo.yaml", extra + "tcp-echo/tcp-echo.yaml"},
		{"tcp-echo", "tcp-echo/tcp-echo-services.yaml", extra + "tcp-echo/tcp-echo-services.yaml"},
		{"tcp-echo", "tcp-echo/tcp-echo-all-v1.yaml", extra + "tcp-echo/tcp-echo-all-v1.yaml"},
		{"tcp-echo", "tcp-echo/tcp-echo-20-v2.yaml", extra + "tcp-echo/tcp-echo-20-v2.yaml"},
	}...) {
		t.Run(tt.row+" "+tt.ours+" as "+strings.TrimSuffix(tt.theirs, tt.ours), func(t *testing.T) {
			want, got := objects(t, filepath.Join(root, tt.theirs)), objects(t, tt.ours)
			if len(want) == 0 {
				t.Fatal("the original has no objects")
			}
			for key := range want {
				if !reflect.DeepEqual(got[key], want[key]) {
					t.Errorf("%s is\n%s\nthe original\n%s", key, text(got[key]), text(want[key]))
				}
			}
			for key := range got {
				if want[key] == nil {
					t.Errorf("%s is not in the original", key)
				}
			}
		})
	}
}

// A manifest is a file of ours and the original, from the root of the shared material.
type manifest struct{ row, ours, theirs string }

// bookinfo are all files of Bookinfo's that the shared material has.
func bookinfo(t *testing.T, root string) (all []manifest) {
	t.Helper()
	left := []string{ // not ours to give
		"swagger.yaml", // of the API that productpage documents in Python
		"policy/productpage_envoy_ratelimit.yaml", // raw Envoy configuration
		"platform/kube/bookinfo-certificate.yaml", // a version of cert-manager that nobody runs any more
	}
	for _, folder := range []string{"samples", "samples/release-1.24/samples", "data/samples-extra/samples"} {
		base := filepath.Join(root, folder, "bookinfo")
		err := filepath.WalkDir(base, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			if name := strings.TrimPrefix(path, base+"/"); !slices.Contains(left, name) {
				all = append(all, manifest{"IN-025", "bookinfo/" + name, folder + "/bookinfo/" + name})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// What `kubectl apply -k` and `lateen up` take in samples/bookinfo is there, and the
// namespace is labelled before there are pods in it.
func TestBookinfoIsOneFolder(t *testing.T) {
	folder := documents(t, "bookinfo/kustomization.yaml")[0]
	files, _ := folder["resources"].([]any)
	want := []any{"namespace.yaml", "platform/kube/bookinfo.yaml", "networking/bookinfo-gateway.yaml"}
	if !slices.Equal(files, want) {
		t.Fatalf("resources are %v, not %v", files, want)
	}
	all := []object{}
	for _, file := range files {
		all = append(all, documents(t, "bookinfo/"+file.(string))...)
	}
	labels := all[0]["metadata"].(object)["labels"]
	if all[0]["kind"] != "Namespace" || !reflect.DeepEqual(labels, object{"istio-injection": "enabled"}) {
		t.Errorf("the first object is %v", all[0])
	}
	if len(all) != 1+14+2 {
		t.Errorf("%d objects", len(all))
	}
}

// Every Service reaches a port that a container of its own file has.
func TestServicesReachContainers(t *testing.T) {
	var files []string
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".yaml" {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		all := documents(t, file)
		open := map[string]bool{}
		for _, o := range all {
			for _, c := range containers(o) {
				for _, p := range list(c["ports"]) {
					open[fmt.Sprint(p["containerPort"])] = true
				}
			}
		}
		for _, o := range all {
			if o["kind"] != "Service" || len(open) == 0 { // nothing listens in sleep
				continue
			}
			for _, p := range list(o["spec"].(object)["ports"]) {
				target := p["targetPort"]
				if target == nil {
					target = p["port"]
				}
				if !open[fmt.Sprint(target)] {
					t.Errorf("%s: Service %v sends port %v to %v, where no container listens", file, o["metadata"], p["port"], target)
				}
			}
		}
	}
}

func documents(t *testing.T, file string) (all []object) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for part := range bytes.SplitSeq(content, []byte("\n---")) {
		var o object
		if err := yaml.Unmarshal(part, &o); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if o != nil {
			all = append(all, o)
		}
	}
	return all
}

// objects are those of a file by kind and name, as far as their meaning goes.
func objects(t *testing.T, file string) map[string]object {
	t.Helper()
	all := map[string]object{}
	for _, o := range documents(t, file) {
		meaning(o)
		metadata, _ := o["metadata"].(object)
		all[fmt.Sprint(o["kind"], " ", metadata["name"])] = o
	}
	return all
}

// programs are images that stand for one application.
var programs = strings.NewReplacer("kennethreitz/httpbin", "httpbin", "mccutchen/go-httpbin", "httpbin")

func meaning(o object) {
	versions(o)
	if o["kind"] == "Service" {
		for _, p := range list(o["spec"].(object)["ports"]) {
			delete(p, "targetPort") // see TestServicesReachContainers
		}
	}
	for _, c := range containers(o) {
		image, _, _ := strings.Cut(c["image"].(string), ":")
		parts := strings.Split(programs.Replace(image), "/")
		c["image"] = parts[len(parts)-1]
		if c["image"] == "httpbin" {
			delete(c, "ports") // 80 and 8080, by version
		}
		if command := fmt.Sprint(c["command"]); command == "[/bin/sleep 3650d]" {
			c["command"] = []any{"/bin/sleep", "infinity"}
		}
	}
}

// versions makes objects of several releases comparable: the API's version, the port
// of the ingress gateway that its Service calls 80 and its pod 8080, and what the
// newer release leaves out and adds in pods.
func versions(o object) {
	group, _, _ := strings.Cut(fmt.Sprint(o["apiVersion"]), "/")
	if group == "networking.istio.io" {
		o["apiVersion"] = group
	}
	if group == "networking.istio.io" && o["kind"] == "Gateway" {
		for _, s := range list(o["spec"].(object)["servers"]) {
			if port := s["port"].(object); fmt.Sprint(port["number"]) == "8080" {
				port["number"] = float64(80)
			}
		}
	}
	if o["kind"] != "Deployment" {
		return
	}
	pod := o["spec"].(object)["template"].(object)
	if annotations, _ := pod["metadata"].(object)["annotations"].(object); annotations["prometheus.io/port"] != nil {
		delete(pod["metadata"].(object), "annotations") // where productpage has metrics, in the newer release
	}
	for _, c := range containers(o) {
		if reflect.DeepEqual(c["securityContext"], object{"runAsUser": float64(1000)}) {
			delete(c, "securityContext")
		}
	}
}

func containers(o object) []object {
	if o["kind"] != "Deployment" {
		return nil
	}
	return list(o["spec"].(object)["template"].(object)["spec"].(object)["containers"])
}

func list(v any) (all []object) {
	items, _ := v.([]any)
	for _, e := range items {
		all = append(all, e.(object))
	}
	return all
}

func text(o object) string {
	out, _ := yaml.Marshal(o)
	return string(out)
}
