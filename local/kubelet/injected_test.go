package kubelet

import (
	"cmp"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/fake"
	corelisters "k8s.io/client-go/listers/core/v1"
	k8stesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/lateen-mesh/lateen/local/container"
	"github.com/lateen-mesh/lateen/local/kubelet/image"
	"github.com/lateen-mesh/lateen/test/material"
)

// generous is an API that has every ConfigMap, Secret and claim that is asked for, and gives
// tokens.
func generous() *fake.Clientset {
	api := fake.NewClientset()
	give := func(kind string, make func(name string) runtime.Object) {
		api.PrependReactor("get", kind, func(a k8stesting.Action) (bool, runtime.Object, error) {
			return true, make(a.(k8stesting.GetAction).GetName()), nil
		})
	}
	give("configmaps", func(string) runtime.Object {
		return &corev1.ConfigMap{Data: map[string]string{"root-cert.pem": "root", "some-key": "some"}}
	})
	give("secrets", func(string) runtime.Object { return &corev1.Secret{Data: map[string][]byte{"key": []byte("value")}} })
	give("persistentvolumeclaims", func(name string) runtime.Object {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: types.UID(name)}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
	})
	api.PrependReactor("create", "serviceaccounts", func(a k8stesting.Action) (bool, runtime.Object, error) {
		ask := a.(k8stesting.CreateAction).GetObject().(*authv1.TokenRequest)
		return true, &authv1.TokenRequest{Status: authv1.TokenRequestStatus{Token: "token for " + strings.Join(ask.Spec.Audiences, ","), ExpirationTimestamp: metav1.NewTime(time.Now().Add(time.Hour))}}, nil
	})
	return api
}

// injectedPods are those of a file: of Pods, and of the templates of all else.
func injectedPods(t *testing.T, path string) (pods []*corev1.Pod) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var find func(value any)
	find = func(value any) {
		switch v := value.(type) {
		case []any:
			for _, item := range v {
				find(item)
			}
		case map[string]any:
			if spec, ok := v["spec"].(map[string]any); ok && spec["containers"] != nil {
				pod := &corev1.Pod{}
				if err := runtime.DefaultUnstructuredConverter.FromUnstructured(v, pod); err != nil {
					t.Fatal(err)
				}
				pods = append(pods, pod)
				return
			}
			for _, below := range v {
				find(below)
			}
		}
	}
	for documents := utilyaml.NewYAMLOrJSONDecoder(file, 4096); ; {
		var document map[string]any
		if err := documents.Decode(&document); errors.Is(err, io.EOF) {
			return pods
		} else if err != nil {
			t.Fatal(err)
		}
		find(document)
	}
}

// configureAll makes a pod's network and volumes and the settings of all its containers, by name.
func configureAll(t *testing.T, pod *corev1.Pod) map[string]container.Config {
	t.Helper()
	pod.Name, pod.UID, pod.Spec.NodeName = "p", "uid", "lateen"
	pod.Namespace = "default"
	pod.Spec.ServiceAccountName = cmp.Or(pod.Spec.ServiceAccountName, "default") // as the API defaults it
	for i := range pod.Spec.Volumes {                                            // and this
		if v := &pod.Spec.Volumes[i]; v.VolumeSource == (corev1.VolumeSource{}) {
			v.EmptyDir = &corev1.EmptyDirVolumeSource{}
		} else if v.HostPath != nil {
			v.HostPath.Path = filepath.Join(t.TempDir(), v.HostPath.Path)
		}
	}
	k, err := newKubelet(Options{Node: "lateen", Mesh: newLoopback(), Dir: t.TempDir(), Memory: t.TempDir(), Address: "10.244.0.1", Log: discard()}, generous())
	if err != nil {
		t.Fatal(err)
	}
	k.recorder = record.NewFakeRecorder(1000)
	k.services = corelisters.NewServiceLister(cache.NewIndexer(cache.MetaNamespaceKeyFunc, cache.Indexers{}))
	w := k.newWorker(pod)
	w.box.begin(t.Context(), w)
	defer w.box.close()
	if _, err := w.box.make(); err != nil {
		t.Fatal(err)
	}
	all := map[string]container.Config{}
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		r := &run{w: w, spec: w.container(c.Name), living: t.Context(), signal: syscall.SIGTERM}
		config, _, err := r.configure(image.Image{Entrypoint: []string{"/program"}, UID: -1, GID: -1})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range config.Mounts {
			if _, err := os.Stat(m.Source); err != nil {
				t.Errorf("container %s: %v", c.Name, err)
			}
			if m.Target == "/etc/istio/pod" || strings.HasPrefix(m.Target, "/var/run/secrets/") {
				config.Env = append(config.Env, contents(t, m)...)
			}
		}
		for _, e := range c.Env {
			if !slices.ContainsFunc(config.Env, func(v string) bool { return strings.HasPrefix(v, e.Name+"=") }) {
				t.Errorf("container %s: variable %s is missing", c.Name, e.Name)
			}
		}
		all[c.Name] = config
	}
	return all
}

// contents are a mount's files as PATH=TEXT.
func contents(t *testing.T, m container.Mount) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(m.Source)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if text, err := os.ReadFile(filepath.Join(m.Source, e.Name())); err == nil {
			all = append(all, m.Target+"/"+e.Name()+"="+string(text))
		}
	}
	return all
}

// TestInjectedPods takes every pod that injection makes in the acceptance data.
func TestInjectedPods(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join(material.Path(t, "data", "inject", "output"), "*.yaml"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%q, %v", paths, err)
	}
	for _, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			for _, pod := range injectedPods(t, path) {
				configureAll(t, pod)
			}
		})
	}
	t.Run("IN-022 EN-041 what a sidecar finds", func(t *testing.T) {
		pods := injectedPods(t, material.Path(t, "data", "inject", "output", "hello-probes.yaml"))
		proxy := configureAll(t, pods[0])["istio-proxy"]
		for _, want := range []string{
			"POD_NAME=p", "POD_NAMESPACE=default", "HOST_IP=10.244.0.1", "ISTIO_CPU_LIMIT=2", "GOMEMLIMIT=1073741824", "CA_ADDR=istiod.istio-system.svc:15012",
			"ISTIO_META_NODE_NAME=lateen", "SERVICE_ACCOUNT=default", "/var/run/secrets/tokens/istio-token=token for istio-ca", "/var/run/secrets/istio/root-cert.pem=root",
		} {
			if !slices.Contains(proxy.Env, want) {
				t.Errorf("%s is not there", want)
			}
		}
		if !slices.ContainsFunc(proxy.Env, func(v string) bool { return strings.HasPrefix(v, "INSTANCE_IP=127.") }) {
			t.Error("the pod's address is not there")
		}
		if !slices.ContainsFunc(proxy.Env, func(v string) bool {
			return strings.HasPrefix(v, "/etc/istio/pod/labels=") && strings.Contains(v, `service.istio.io/canonical-name="hello"`)
		}) {
			t.Error("the pod's labels are not there")
		}
		if !slices.Contains(proxy.Argv, "default.svc.cluster.local") || proxy.UID != 1337 || proxy.GID != 1337 || !proxy.NetAdmin || proxy.Limits.MemoryBytes != 1<<30 {
			t.Errorf("it runs as %+v", proxy)
		}
		var targets []string
		for _, m := range proxy.Mounts {
			targets = append(targets, m.Target)
		}
		for _, want := range []string{"/etc/istio/pod", "/etc/istio/proxy", "/var/lib/istio/data", "/var/run/secrets/istio", "/var/run/secrets/istio/crl",
			"/var/run/secrets/tokens", "/var/run/secrets/workload-spiffe-credentials", "/var/run/secrets/workload-spiffe-uds", "/var/run/secrets/credential-uds"} {
			if !slices.Contains(targets, want) {
				t.Errorf("nothing is mounted at %s", want)
			}
		}
	})
}
