package main_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// freePort returns a loopback address that nobody listened on a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return listener.Addr().String()
}

func TestRestartKeepsObjects(t *testing.T) {
	s := start(t, os.Geteuid(), "--crds", "testdata/definition.yaml")
	runNode(t, s)
	s.must("", "wait", "--for=condition=established", "crd/sails.rigging.example.test", "--timeout=60s")
	s.must(testdata(t, "hello.yaml"), "apply", "-f", "-")
	s.must("", "create", "service", "nodeport", "outside", "--tcp=80:8080")
	s.must(`{"apiVersion":"rigging.example.test/v1","kind":"Sail","metadata":{"name":"main"},"spec":{"area":40}}`, "apply", "-f", "-")
	s.must("", "rollout", "status", "deployment", "hello", "--timeout=60s")
	const state = `-o=jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid} {.spec.clusterIP} {.spec.ports[*].nodePort}{"\n"}{end}`
	before := s.must("", "get", "services,pods,deployments,replicasets,sails,nodes,namespaces,serviceaccounts", state)
	s.restart()
	if after := s.must("", "get", "services,pods,deployments,replicasets,sails,nodes,namespaces,serviceaccounts", state); after != before {
		t.Errorf("before the restart:\n%s\nafter:\n%s", before, after)
	}
	address := s.must("", "get", "service", "hello", "-o=jsonpath={.spec.clusterIP}")
	port := s.must("", "get", "service", "outside", "-o=jsonpath={.spec.ports[0].nodePort}")
	out, err := s.kubectl("", "create", "service", "clusterip", "thief", "--tcp=80", "--clusterip="+address)
	if err == nil || !strings.Contains(out, "already allocated") {
		t.Errorf("a second Service got the address %s: %s", address, out)
	}
	out, err = s.kubectl("", "create", "service", "nodeport", "thief", "--tcp=80", "--node-port="+port)
	if err == nil || !strings.Contains(out, "already allocated") {
		t.Errorf("a second Service got the port %s: %s", port, out)
	}
}

func TestControllersGoOn(t *testing.T) {
	s := start(t, os.Geteuid(), "--listen", freePort(t))
	runNode(t, s)
	s.must(testdata(t, "hello.yaml"), "apply", "-f", "-")
	s.kill() // at whatever it was doing
	s.restart()
	s.must("", "rollout", "status", "deployment", "hello", "--timeout=60s")
	s.must("", "scale", "deployment", "hello", "--replicas=4")
	s.must("", "rollout", "status", "deployment", "hello", "--timeout=60s")
}

// TestKilledWhileWriting: what was answered is there after a kill, with its last
// answered content.
func TestKilledWhileWriting(t *testing.T) {
	s := start(t, os.Geteuid())
	for range 3 {
		client := s.client().CoreV1().ConfigMaps("default")
		var answered sync.Map // name to the revision of the last answered write
		var count atomic.Int32
		ctx, cancel := context.WithCancel(t.Context())
		var writing sync.WaitGroup
		for w := range 4 {
			writing.Go(func() {
				for i := 0; ctx.Err() == nil; i++ {
					name := fmt.Sprintf("w%d-%d-%d", s.process.Process.Pid, w, i%20)
					object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"i": fmt.Sprint(i)}}
					made, err := client.Create(ctx, object, metav1.CreateOptions{})
					if i >= 20 {
						made, err = client.Update(ctx, object, metav1.UpdateOptions{})
					}
					if err != nil {
						return // killed
					}
					answered.Store(name, made.Data["i"])
					count.Add(1)
				}
			})
		}
		eventually(t, "a hundred writes are answered", func() bool { return count.Load() > 100 })
		s.kill()
		cancel()
		writing.Wait()
		s.restart()
		client = s.client().CoreV1().ConfigMaps("default")
		answered.Range(func(name, i any) bool {
			object, err := client.Get(t.Context(), name.(string), metav1.GetOptions{})
			if err != nil {
				t.Errorf("%s: %v", name, err)
				return true
			}
			var have, want int
			fmt.Sscan(object.Data["i"], &have)
			fmt.Sscan(i.(string), &want)
			if have < want {
				t.Errorf("%s holds write %d, but %d was answered", name, have, want)
			}
			return true
		})
	}
}

func TestDefinitionsAreAppliedOnce(t *testing.T) {
	s := start(t, os.Geteuid(), "--crds", "testdata/definition.yaml", "--verbose")
	const revision = "-o=jsonpath={.metadata.resourceVersion} {.spec.names.shortNames}"
	s.must("", "wait", "--for=condition=established", "crd/sails.rigging.example.test", "--timeout=60s")
	ready := func() bool { out, err := s.kubectl("", "get", "--raw", "/readyz"); return err == nil && out == "ok" }
	eventually(t, "ready", ready)
	before := s.must("", "get", "crd", "sails.rigging.example.test", revision)
	s.restart()
	eventually(t, "ready", ready)
	if after := s.must("", "get", "crd", "sails.rigging.example.test", revision); after != before {
		t.Errorf("unchanged definitions were written again: %s, then %s", before, after)
	}
	changed := filepath.Join(t.TempDir(), "definition.yaml")
	text := strings.Replace(testdata(t, "definition.yaml"), "shortNames: [sl]", "shortNames: [canvas]", 1)
	if err := os.WriteFile(changed, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	s.args = []string{"--crds", changed}
	s.restart()
	eventually(t, "ready", ready)
	if after := s.must("", "get", "crd", "sails.rigging.example.test", revision); !strings.HasSuffix(after, ` ["canvas"]`) {
		t.Errorf("a changed definition was not applied: %s", after)
	}
}
