package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/kube/kubetest"
	"github.com/lateen-mesh/lateen/control/registry"
	"github.com/lateen-mesh/lateen/test/build"
)

// builtAt is where the API server is built for this run.
func builtAt() string {
	return filepath.Join(os.TempDir(), fmt.Sprint("lateen-kube-test-", os.Getpid()))
}

// buildServer builds the API server of this tree, once.
var buildServer = sync.OnceValues(func() (string, error) {
	if err := os.Mkdir(builtAt(), 0o700); err != nil {
		return "", err
	}
	return build.APIServer(builtAt())
})

// A server is the API server of this tree as a process.
type server struct {
	t      testing.TB
	dir    string
	binary string
	Socket string
	client *http.Client
	cmd    *exec.Cmd
}

// realAPI starts the API server with the definitions of Istio's kinds, or without.
func realAPI(t testing.TB, defined bool) *server {
	t.Helper()
	if testing.Short() {
		t.Skip("the API server is a program of its own, which takes half a minute to build: not with -short")
	}
	binary, err := buildServer()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "kube")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &server{t: t, dir: dir, binary: binary, Socket: filepath.Join(dir, "api.sock")}
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", s.Socket)
	}}
	s.client = &http.Client{Transport: transport}
	s.start()
	t.Cleanup(func() { s.kill(); transport.CloseIdleConnections() })
	if defined {
		text, err := os.ReadFile("../../install/crds/crds.yaml")
		if err != nil {
			t.Fatal(err)
		}
		s.apply(string(text))
		s.waitServed()
	}
	return s
}

// waitServed waits until custom kinds are served, which is a moment after their
// definitions are there or the server has started.
func (s *server) waitServed() {
	s.t.Helper()
	for resource, kind := range kubetest.CustomKinds() {
		eventually(s.t, resource+" are served", func() bool {
			code, _ := s.do(http.MethodGet, "/apis/"+kubetest.PathOf(kind), nil)
			return code == http.StatusOK
		})
	}
}

func (s *server) start() {
	s.t.Helper()
	s.cmd = exec.Command(s.binary, "--state", filepath.Join(s.dir, "state"), "--socket", s.Socket, "--kubeconfig", s.kubeconfig())
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.Stderr = &bytes.Buffer{}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, "the API server answers", func() bool {
		code, _ := s.do(http.MethodGet, "/api/v1/namespaces/default", nil)
		return code == http.StatusOK
	})
}

// kubeconfig is the administrator's, for the API over TLS.
func (s *server) kubeconfig() string { return filepath.Join(s.dir, "kubeconfig") }

// kill ends the server as a crash would.
func (s *server) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
		s.cmd = nil
	}
}

func (s *server) do(method, path string, body []byte) (int, string) {
	r, err := http.NewRequest(method, "http://localhost"+path, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/apply-patch+yaml")
	}
	answer, err := s.client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text)
}

// pathTo is where the API server has an object.
func pathTo(d config.Document) string {
	kind := string(d.Object.Kind)
	resource := strings.ToLower(kind) + "s"
	if p := kubetest.PathOf(kind); p != "" {
		resource = p[strings.LastIndex(p, "/")+1:]
	}
	root := "/apis/"
	if !strings.Contains(d.APIVersion, "/") {
		root = "/api/"
	}
	namespace := ""
	if !slices.Contains([]string{"Namespace", "Node", "IngressClass", "CustomResourceDefinition"}, kind) {
		namespace = "/namespaces/" + namespaceOf(d)
	}
	return root + d.APIVersion + namespace + "/" + resource + "/" + d.Object.Name
}

func namespaceOf(d config.Document) string {
	if d.Object.Namespace == "" {
		return config.DefaultNamespace
	}
	return d.Object.Namespace
}

// try stores an object and says whether the server took it.
func (s *server) try(d config.Document) (bool, string) {
	s.t.Helper()
	code, text := s.do(http.MethodPatch, pathTo(d)+"?fieldManager=test&force=true", d.JSON)
	return code == http.StatusOK || code == http.StatusCreated, text
}

func (s *server) apply(text string) {
	s.t.Helper()
	documents, problems := config.Documents("test.yaml", []byte(text))
	if config.HasErrors(problems) {
		s.t.Fatal(problems)
	}
	for _, d := range documents {
		if ok, why := s.try(d); !ok {
			s.t.Fatalf("%s: %s", d.Object, why)
		}
	}
}

// status writes the status of an object.
func (s *server) status(path string, status map[string]any) {
	s.t.Helper()
	code, text := s.do(http.MethodGet, path, nil)
	var object map[string]any
	if err := json.Unmarshal([]byte(text), &object); err != nil || code != http.StatusOK {
		s.t.Fatalf("%d %s", code, text)
	}
	object["status"] = status
	body, err := json.Marshal(object)
	if err != nil {
		s.t.Fatal(err)
	}
	if code, text := s.do(http.MethodPut, path+"/status", body); code != http.StatusOK {
		s.t.Fatalf("%d %s", code, text)
	}
}

func (s *server) delete(path string) {
	s.t.Helper()
	body := []byte(`{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0}`)
	if code, text := s.do(http.MethodDelete, path, body); code != http.StatusOK && code != http.StatusAccepted {
		s.t.Fatalf("%s: %d %s", path, code, text)
	}
}

func TestTheRealAPIServerIsKilled(t *testing.T) {
	s := realAPI(t, true)
	s.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n")
	s.apply(entryYAML("a", "a.example.com") + "---" + entryYAML("b", "b.example.com"))
	r := run(t, Options{Connection: Connection{Socket: s.Socket}})
	r.waitSynced()
	if got := hosts(r.store.Current()); !slices.Equal(got, []string{"a.example.com", "b.example.com"}) {
		t.Fatalf("hosts %v; status %+v; log:\n%s", got, r.Status(), r.log)
	}
	want := []string{"a.example.com"}
	fewest := watchFewest(r)
	s.delete("/apis/networking.istio.io/v1/namespaces/web/serviceentries/b")
	r.until("b is gone", func(set *config.Set) bool { return len(hosts(set)) == 1 })
	for i := range 3 {
		s.kill()
		s.start()
		s.waitServed()
		back := time.Now()
		host := fmt.Sprintf("h%d.example.com", i)
		want = append(want, host)
		s.apply(entryYAML(fmt.Sprint("h", i), host))
		r.until(host+" is there", func(set *config.Set) bool { return slices.Equal(hosts(set), want) })
		t.Logf("seen %v after the kinds were served again", time.Since(back).Round(time.Millisecond))
	}
	eventually(t, "trouble is over", func() bool { return r.Status().Trouble == "" })
	if n := fewest(); n < 1 {
		t.Errorf("at some time only %d of the ServiceEntries were in force", n)
	}
}

// watchFewest counts how few ServiceEntries were in force at any time from now on.
func watchFewest(r *running) (fewest func() int) {
	changed, stop := r.store.Watch()
	done, counted := make(chan struct{}), make(chan int)
	n := len(hosts(r.store.Current()))
	go func() {
		for {
			select {
			case <-changed:
				n = min(n, len(hosts(r.store.Current())))
			case <-done:
				counted <- n
				return
			}
		}
	}()
	return func() int { close(done); stop(); return <-counted }
}

func TestKindsAreDefinedOnTheRealAPIServer(t *testing.T) {
	s := realAPI(t, false)
	r := run(t, Options{Connection: Connection{Socket: s.Socket}})
	r.waitSynced()
	if r.store.Current().Get(config.Namespace, "", "default") == nil {
		t.Error("no namespace default")
	}
	text, err := os.ReadFile("../../install/crds/crds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	s.apply(string(text))
	s.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n")
	s.waitServed()
	s.apply(entryYAML("late", "late.example.com"))
	r.until("its objects are read", func(set *config.Set) bool { return len(hosts(set)) == 1 })
	s.delete("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/serviceentries.networking.istio.io")
	r.until("its objects are gone", func(set *config.Set) bool { return len(hosts(set)) == 0 })
}

func TestManyServices(t *testing.T) {
	s := realAPI(t, true)
	const count = 1000
	for i := range count {
		s.apply(fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec: {selector: {app: s%d}, ports: [{name: http, port: 80}]}\n", i, i))
	}
	started := time.Now()
	r := run(t, Options{Connection: Connection{Socket: s.Socket}})
	r.waitSynced()
	t.Logf("%d Services: first state after %v", count, time.Since(started).Round(time.Millisecond))
	if n := len(r.store.Current().List(config.Service)); n < count {
		t.Errorf("%d Services", n)
	}
}

// endpoints are "address version locality ready" of a service.
func endpoints(set *config.Set, host string) []string {
	r := registry.Build(set, registry.Options{})
	var all []string
	for _, s := range r.Hosts(host) {
		for _, e := range r.Endpoints(s, s.Ports[0]) {
			all = append(all, fmt.Sprintf("%s:%d %s %s %s ready=%t", e.Address, e.Port, e.Labels["version"], e.ServiceAccount, e.Locality, !e.Unhealthy))
		}
	}
	slices.Sort(all)
	return all
}

func TestEndpointsFollowPods(t *testing.T) {
	s := realAPI(t, true)
	s.apply(`
apiVersion: v1
kind: Namespace
metadata: {name: web}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
`)
	s.apply("apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1}}\n")
	r := run(t, Options{Connection: Connection{Socket: s.Socket}})
	r.waitSynced()
	const host = "web.web.svc.cluster.local"
	pod := func(name, version, ip string, ready string) string {
		s.apply("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: " + version + ", namespace: web}\n---\n" +
			"apiVersion: v1\nkind: Pod\nmetadata: {name: " + name + ", namespace: web, labels: {app: web, version: " + version + "}}\n" +
			"spec: {nodeName: n1, serviceAccountName: " + version + ", containers: [{name: c, image: x}]}\n")
		path := "/api/v1/namespaces/web/pods/" + name
		s.status(path, map[string]any{"phase": "Running", "podIP": ip, "podIPs": []any{map[string]any{"ip": ip}},
			"conditions": []any{map[string]any{"type": "Ready", "status": ready}}})
		return path
	}
	line := func(ip, version string, ready bool) string {
		return fmt.Sprintf("%s:8080 %s spiffe://cluster.local/ns/web/sa/%s r1/z1 ready=%t", ip, version, version, ready)
	}
	follows := func(what string, want ...string) {
		t.Helper()
		r.until(what, func(set *config.Set) bool { return slices.Equal(endpoints(set, host), want) })
	}
	t.Run("KC-010 a Pod that is ready is an endpoint, with what it says of itself", func(t *testing.T) {
		pod("web-1", "v1", "10.244.0.11", "True")
		follows("web-1 is an endpoint", line("10.244.0.11", "v1", true))
		pod("web-2", "v2", "10.244.0.12", "False")
		follows("web-2 is one, not ready", line("10.244.0.11", "v1", true), line("10.244.0.12", "v2", false))
		pod("web-2", "v2", "10.244.0.12", "True")
		follows("web-2 is ready", line("10.244.0.11", "v1", true), line("10.244.0.12", "v2", true))
	})
	t.Run("KC-012 a Node that moves takes its Pods along", func(t *testing.T) {
		s.apply("apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/region: r1, topology.kubernetes.io/zone: z1, topology.istio.io/subzone: s1}}\n")
		follows("both are in s1", strings.Replace(line("10.244.0.11", "v1", true), "z1", "z1/s1", 1), strings.Replace(line("10.244.0.12", "v2", true), "z1", "z1/s1", 1))
	})
	t.Run("KC-010 a Pod that is gone is none", func(t *testing.T) {
		s.delete("/api/v1/namespaces/web/pods/web-1")
		follows("web-1 is gone", strings.Replace(line("10.244.0.12", "v2", true), "z1", "z1/s1", 1))
	})
	t.Run("KC-014 a credential is there, changes and goes; what else a Secret holds is not kept", func(t *testing.T) {
		secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: c, namespace: web}\nstringData: {cert: %s, password: hidden}\n"
		held := func(want string) {
			t.Helper()
			r.until("the certificate is "+want, func(set *config.Set) bool {
				o := set.Get(config.Secret, "web", "c")
				return o == nil && want == "" || o != nil && string(o.Spec.(*corev1.Secret).Data["cert"]) == want
			})
		}
		s.apply(fmt.Sprintf(secret, "one"))
		held("one")
		if _, kept := r.store.Current().Get(config.Secret, "web", "c").Spec.(*corev1.Secret).Data["password"]; kept {
			t.Error("the password is kept")
		}
		s.apply(fmt.Sprintf(secret, "two"))
		held("two")
		s.delete("/api/v1/namespaces/web/secrets/c")
		held("")
	})
}

func TestStatusOfObjects(t *testing.T) {
	s := realAPI(t, true)
	s.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n")
	bad := strings.Replace(entryYAML("bad", "bad.example.com"), "hosts: [bad.example.com]", `hosts: ["a..b"]`, 1)
	s.apply(bad + "---" + entryYAML("good", "good.example.com"))
	status := func(name string) (message, code string) {
		_, text := s.do(http.MethodGet, "/apis/networking.istio.io/v1/namespaces/web/serviceentries/"+name, nil)
		var o struct {
			Status struct {
				Conditions         []condition
				ValidationMessages []validationMessage
			}
		}
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		for _, v := range o.Status.ValidationMessages {
			code = v.Level + " " + v.Type.Code
		}
		return documentStatus{o.Status.Conditions}.said(), code
	}
	r := run(t, Options{Connection: Connection{Socket: s.Socket}, WriteStatus: true})
	r.waitSynced()
	t.Run("EN-048 a broken object says in its status what is wrong, until it is mended", func(t *testing.T) {
		var message, code string
		eventually(t, "bad says so", func() bool { message, code = status("bad"); return message != "" })
		if !strings.HasPrefix(message, "hosts[0]: ") || code != "ERROR IST0106" {
			t.Errorf("status says %q, %q", message, code)
		}
		if message, _ := status("good"); message != "" {
			t.Errorf("the good one says %q", message)
		}
		s.apply(entryYAML("bad", "mended.example.com"))
		eventually(t, "it says nothing any more", func() bool { message, code = status("bad"); return message == "" && code == "" })
	})
}

func TestKubeconfig(t *testing.T) {
	s := realAPI(t, true)
	t.Run("EN-023 the API of a kubeconfig is read over TLS", func(t *testing.T) {
		r := run(t, Options{Connection: Connection{Kubeconfig: s.kubeconfig()}})
		r.waitSynced()
		if r.store.Current().Get(config.Namespace, "", "kube-system") == nil {
			t.Errorf("objects %v", keys(r.store.Current()))
		}
	})
	t.Run("without its credentials it waits, and says why", func(t *testing.T) {
		text, err := os.ReadFile(s.kubeconfig())
		if err != nil {
			t.Fatal(err)
		}
		without := filepath.Join(s.dir, "without")
		lines := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
			return strings.Contains(line, "client-certificate-data:") || strings.Contains(line, "client-key-data:") || strings.Contains(line, "token:")
		})
		if err := os.WriteFile(without, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
			t.Fatal(err)
		}
		r := run(t, Options{Connection: Connection{Kubeconfig: without}})
		eventually(t, "it says so", func() bool { return strings.Contains(r.log.String(), "credentials are not, or no longer, accepted") })
		if st := r.Status(); st.Synced || st.Objects != 0 {
			t.Errorf("status %+v", st)
		}
	})
}
