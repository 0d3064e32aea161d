package kubelet

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lateen-mesh/lateen/local/container"
	"github.com/lateen-mesh/lateen/local/kubelet/image"
)

// TestWhatProxiesGet: on this machine a container with the mesh's proxy sees the mesh's sockets,
// and is told which proxy to run where it is another one.
func TestWhatProxiesGet(t *testing.T) {
	k := &Kubelet{o: Options{Sockets: "/state/mesh", Proxy: "/tmp/envoy/envoy"}}
	c := container.Config{Env: []string{"A=1"}, Mounts: []container.Mount{{Target: "/tmp", Source: "/volumes/tmp"}, {Target: "/work", Source: "/volumes/work"}}}
	k.equip(&c)
	want := []container.Mount{
		{Target: "/tmp", Source: "/volumes/tmp"},
		{Target: "/tmp/envoy", Source: "/tmp/envoy", ReadOnly: true}, // within the volume that lies over it
		{Target: "/work", Source: "/volumes/work"},
		{Target: "/var/run/lateen", Source: "/state/mesh", ReadOnly: true},
	}
	if !slices.Equal(c.Mounts, want) {
		t.Errorf("mounts %+v\nwant   %+v", c.Mounts, want)
	}
	if !slices.Contains(c.Env, "LATEEN_PROXY=/tmp/envoy/envoy") {
		t.Errorf("variables %q", c.Env)
	}
	again := slices.Clone(c.Mounts)
	show(&c, container.Mount{Target: "/tmp/envoy", Source: "/tmp/envoy"})
	if !slices.Equal(c.Mounts, again) {
		t.Errorf("what is seen is mounted again: %+v", c.Mounts)
	}
	own := container.Config{Mounts: []container.Mount{{Target: "/var/run/lateen", Source: "/elsewhere"}}}
	(&Kubelet{o: Options{Sockets: "/state/mesh"}}).equip(&own)
	if len(own.Mounts) != 1 || own.Mounts[0].Source != "/elsewhere" || len(own.Env) != 0 {
		t.Errorf("a manifest that says where its sockets are got %+v", own)
	}
}

// TestProgramsOfThisMachine: a program in a directory that only root may enter is shown elsewhere, for
// the container's user to run it.
func TestProgramsOfThisMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("an ordinary user's containers are himself, and may enter what he may")
	}
	private := filepath.Join(home(t), "bin")
	if err := os.Mkdir(private, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, dir, target string
	}{
		{"below a folder of root's alone", private, "/run/lateen-programs/image"},
		{"below one that containers have of their own", "/tmp/bin", "/tmp/bin"},
		{"where everybody may", "/usr/bin", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			img := image.Image{Entrypoint: []string{c.dir + "/agent", "x"}, Env: []string{"PATH=" + c.dir + ":/bin"}}
			got, m := reachable(img)
			at := c.target
			if at == "" {
				at = c.dir
			}
			if m.Target != c.target || m.Target != "" && m.Source != c.dir {
				t.Errorf("mount %+v", m)
			}
			if !slices.Equal(got.Entrypoint, []string{at + "/agent", "x"}) || got.Env[0] != "PATH="+at+":/bin" {
				t.Errorf("image %+v", got)
			}
			if img.Entrypoint[0] != c.dir+"/agent" {
				t.Error("the catalog's own image was changed")
			}
		})
	}
}

// home is a folder that is nobody else's, outside of those that containers have of their own.
func home(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/var/tmp", "lateen-home-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir // of mode 0700
}

// TestLoadBalancers: a Service of that type has this machine's address once a port of it is published
// here, and keeps it.
func TestLoadBalancers(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"published", "elsewhere", "plain"} {
		port, kind := int32(8200), corev1.ServiceTypeLoadBalancer // where the rig publishes 200
		if name == "elsewhere" {
			port = 200
		}
		if name == "plain" {
			kind = corev1.ServiceTypeClusterIP
		}
		if _, err := r.api.CoreV1().Services("ns").Create(t.Context(), &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "ns"},
			Spec: corev1.ServiceSpec{Type: kind, Selector: map[string]string{"app": "gateway"}, Ports: []corev1.ServicePort{{Port: port}}}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	r.apply(`{kind: Pod, metadata: {name: gateway, labels: {app: gateway}}, spec: {containers: [
		{name: a, image: test/sh, command: [sleep, "100"], ports: [{containerPort: 80, hostPort: 200}]}]}}`)
	r.await("gateway", "ready", isReady)
	address := func(name string) string {
		s, err := r.api.CoreV1().Services("ns").Get(context.Background(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if all := s.Status.LoadBalancer.Ingress; len(all) > 0 {
			return all[0].IP
		}
		return ""
	}
	for deadline := time.Now().Add(patience); address("published") != "127.0.0.1"; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the Service has no address")
		}
	}
	for _, name := range []string{"elsewhere", "plain"} {
		if got := address(name); got != "" {
			t.Errorf("Service %s has the address %s, though nothing of it is published", name, got)
		}
	}
}
