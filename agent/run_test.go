package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/encoding/protojson"

	clusterpb "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/ports"
	"github.com/lateen-mesh/lateen/wellknown"
)

// program is pilot-agent, built once, where other users can run it.
var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "pilot-agent")
	if err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return "", err
	}
	path := filepath.Join(dir, "pilot-agent")
	out, err := exec.Command("go", "build", "-o", path, "github.com/lateen-mesh/lateen/cmd/pilot-agent").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return path, nil
})

func TestMain(m *testing.M) {
	code := m.Run()
	if path, err := program(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path))
	}
	os.Exit(code)
}

// A world is a control plane, an application, and the ports of one pod's agent.
type world struct {
	t                                      *testing.T
	control                                *xdstest.Server
	dir                                    string
	admin, status, health, metrics, listen int
	app                                    *application
	env                                    []string
	uid                                    int
	config                                 string // more fields of the proxy's configuration
	args                                   []string
}

// application answers; it holds requests to /slow until it is told.
type application struct {
	address string
	slow    chan struct{}
	asked   chan struct{}
}

func newApplication(t *testing.T) *application {
	t.Helper()
	a := &application{slow: make(chan struct{}), asked: make(chan struct{}, 10)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.address = l.Addr().String()
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			a.asked <- struct{}{}
			<-a.slow
		}
		if r.URL.Path == "/metrics" {
			_, _ = io.WriteString(w, "app_requests_total 7\n")
			return
		}
		_, _ = io.WriteString(w, "hello")
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})
	return a
}

func newWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "pod") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := ports.Claim(5)
	w := &world{t: t, control: xdstest.New(t), dir: dir, admin: p[0], status: p[1], health: p[2], metrics: p[3], listen: p[4], app: newApplication(t)}
	for name, text := range map[string]string{"labels": "app=\"web\"\nversion=\"v1\"\n", "annotations": `proxy.istio.io/config="terminationDrainDuration: 1s"` + "\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	host, port, _ := net.SplitHostPort(w.app.address)
	w.control.Set("app", message(t, &clusterpb.Cluster{}, fmt.Sprintf(`{"name": "app", "type": "STATIC", "connectTimeout": "1s", "loadAssignment": {"clusterName": "app", "endpoints": [{"lbEndpoints":
		[{"endpoint": {"address": {"socketAddress": {"address": %q, "portValue": %s}}}}]}]}}`, host, port)))
	w.control.Set("web", message(t, &listenerpb.Listener{}, fmt.Sprintf(`{"name": "web", "trafficDirection": "INBOUND", "address": {"socketAddress": {"address": "127.0.0.1", "portValue": %d}}, "filterChains": [{"filters": [
		{"name": "envoy.filters.network.http_connection_manager", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "statPrefix": "web",
		"routeConfig": {"virtualHosts": [{"name": "v", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "app", "timeout": "0s"}}]}]},
		"httpFilters": [{"name": "envoy.filters.http.router", "typedConfig": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}`, w.listen)))
	return w
}

func message[T interface {
	*clusterpb.Cluster | *listenerpb.Listener
}](t *testing.T, m T, text string) T {
	t.Helper()
	var err error
	switch m := any(m).(type) {
	case *clusterpb.Cluster:
		err = protojson.Unmarshal([]byte(text), m)
	case *listenerpb.Listener:
		err = protojson.Unmarshal([]byte(text), m)
	}
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// running is an agent of a test.
type running struct {
	t    *testing.T
	cmd  *exec.Cmd
	log  *buffer
	done chan struct{}
	err  error
}

// buffer may be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// start runs `pilot-agent proxy sidecar` with a proxy: "" is ours.
func (w *world) start(proxy string) *running {
	w.t.Helper()
	path, err := program()
	if err != nil {
		w.t.Fatal(err)
	}
	r := &running{t: w.t, log: &buffer{}, done: make(chan struct{})}
	r.cmd = exec.Command(path, "proxy", "sidecar", "--domain", "default.svc.cluster.local", "--configPath", filepath.Join(w.dir, "proxy"),
		"--podInfo", w.dir, "--sockets", filepath.Join(w.dir, "none"), "--identity", filepath.Join(w.dir, "identity"), "--concurrency", "2", "--meshConfig", filepath.Join(w.dir, "mesh"), "--proxy", proxy)
	r.cmd.Args = append(r.cmd.Args, w.args...)
	r.cmd.Stdout, r.cmd.Stderr = r.log, r.log
	r.cmd.Env = append(os.Environ(), "POD_NAME=web-1", "POD_NAMESPACE=default", "INSTANCE_IP=127.0.0.1", "SERVICE_ACCOUNT=web", "ISTIO_META_CLUSTER_ID=Kubernetes",
		"ENVOY_STATUS_PORT="+strconv.Itoa(w.health), "ENVOY_PROMETHEUS_PORT="+strconv.Itoa(w.metrics),
		fmt.Sprintf(`PROXY_CONFIG={"discoveryAddress": %q, "proxyAdminPort": %d, "statusPort": %d%s}`, w.control.Addr(), w.admin, w.status, w.config))
	r.cmd.Env = append(r.cmd.Env, w.env...)
	r.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if w.uid != 0 {
		r.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.uid)}
	}
	if err := r.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	go func() {
		defer close(r.done)
		r.err = r.cmd.Wait()
	}()
	w.t.Cleanup(func() {
		_ = r.cmd.Process.Kill()
		<-r.done
		if w.t.Failed() {
			w.t.Logf("the agent printed:\n%s", r.log)
		}
	})
	return r
}

// ended waits for the agent's end.
func (r *running) ended() error {
	r.t.Helper()
	select {
	case <-r.done:
		return r.err
	case <-time.After(60 * time.Second):
		r.t.Fatal("the agent does not end")
		return nil
	}
}

func (r *running) signal(s syscall.Signal) { _ = r.cmd.Process.Signal(s) }

// get is a page of the pod.
func get(port int, path string) (status int, body string, err error) {
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Get("http://127.0.0.1:" + strconv.Itoa(port) + path)
	if err != nil {
		return 0, "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text), err
}

// ready waits until the pod's health page says so, as a kubelet does.
func (w *world) ready() {
	w.t.Helper()
	fixture.Eventually(w.t, "the health page", func() error {
		status, body, err := get(w.health, "/healthz/ready")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("%d %s", status, body)
		}
		return err
	})
}

func (w *world) serves() {
	w.t.Helper()
	if status, body, err := get(w.listen, "/"); err != nil || status != http.StatusOK || body != "hello" {
		w.t.Errorf("through the proxy: %d %q %v", status, body, err)
	}
}

// proxies are ours and, where it is installed, a stock Envoy.
func proxies(t *testing.T, test func(t *testing.T, proxy string)) {
	t.Run("ours", func(t *testing.T) { test(t, "") })
	t.Run("a stock Envoy", func(t *testing.T) {
		path := fixture.EnvoyPath()
		if path == "" {
			t.Skip("no Envoy is installed: make peers")
		}
		test(t, path)
	})
}

func TestLife(t *testing.T) {
	proxies(t, func(t *testing.T, proxy string) {
		w := newWorld(t)
		_, port, _ := net.SplitHostPort(w.app.address)
		w.env = []string{`ISTIO_PROMETHEUS_ANNOTATIONS={"scrape": "true", "port": "` + port + `"}`,
			`ISTIO_KUBE_APP_PROBERS={"/app-health/web/livez": {"httpGet": {"path": "/", "port": ` + port + `}}}`}
		r := w.start(proxy)
		t.Run("EN-028 EN-013 EN-014 ready by the health listener, which asks the agent", func(t *testing.T) { w.ready() })
		w.serves()
		t.Run("EN-035 EN-039 the node", func(t *testing.T) {
			node := w.control.Requests(wellknown.ClusterType)[0].Node
			if want := "sidecar~127.0.0.1~web-1.default~default.svc.cluster.local"; node != want {
				t.Errorf("node %q, want %q", node, want)
			}
		})
		t.Run("EN-016 MC-033 metrics of agent, proxy and application on one page", func(t *testing.T) {
			_, page, err := get(w.status, "/stats/prometheus")
			for _, want := range []string{"istio_agent_xds_proxy_connected 1\n", "envoy_server_live", "app_requests_total 7\n"} {
				if !strings.Contains(page, want) {
					t.Errorf("%q is missing (%v)", want, err)
				}
			}
			if _, page, err := get(w.metrics, "/stats/prometheus"); err != nil || !strings.Contains(page, "envoy_server_live") {
				t.Errorf("the proxy's own page has %d bytes: %v", len(page), err)
			}
		})
		t.Run("AN-004 the application's probes", func(t *testing.T) {
			if status, _, err := get(w.status, "/app-health/web/livez"); status != http.StatusOK {
				t.Error(status, err)
			}
		})
		t.Run("EN-030 pilot-agent request", func(t *testing.T) {
			out := w.command("request", "GET", "stats?filter=server.state", "--debug-port", strconv.Itoa(w.admin))
			if out != "server.state: 0\n" {
				t.Errorf("printed %q", out)
			}
		})
		t.Run("EN-031 MC-077 pilot-agent wait", func(t *testing.T) {
			if out := w.command("wait", "--url", fmt.Sprintf("http://localhost:%d/healthz/ready", w.health)); out != "" {
				t.Errorf("printed %q", out)
			}
		})
		t.Run("EN-034 the proxy's flags", func(t *testing.T) {
			_, page, _ := get(w.admin, "/server_info")
			for _, want := range []string{`"drain_time": "45s"`, `"concurrency": 2`, `"drain_strategy": "Immediate"`} {
				if !strings.Contains(page, want) {
					t.Errorf("%s is missing in %s", want, page)
				}
			}
		})
		t.Run("EN-036 the proxy's files are this user's only", func(t *testing.T) {
			for _, name := range []string{"XDS", bootstrapName, journalName} {
				if info, err := os.Stat(filepath.Join(w.dir, "proxy", name)); err != nil || info.Mode().Perm() != 0o600 {
					t.Errorf("%s: %v %v", name, info, err)
				}
			}
		})
		t.Run("MC-061 SIGTERM: what is open is finished, then it ends in order", func(t *testing.T) { w.leaves(t, r) })
	})
}

// leaves ends an agent in the middle of a request.
func (w *world) leaves(t *testing.T, r *running) {
	t.Helper()
	answered := make(chan string, 1)
	go func() {
		_, body, err := get(w.listen, "/slow")
		answered <- fmt.Sprint(body, err)
	}()
	<-w.app.asked
	r.signal(syscall.SIGTERM)
	fixture.Eventually(t, "the pod to be no longer ready", func() error {
		if status, _, err := get(w.status, "/healthz/ready"); err != nil || status != http.StatusServiceUnavailable {
			return fmt.Errorf("%d %w", status, err)
		}
		return nil
	})
	close(w.app.slow)
	if got := <-answered; got != "hello<nil>" {
		t.Errorf("the request in flight: %s", got)
	}
	if err := r.ended(); err != nil {
		t.Errorf("ended with %v", err)
	}
}

// command runs pilot-agent to its end.
func (w *world) command(args ...string) string {
	w.t.Helper()
	path, err := program()
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		w.t.Errorf("pilot-agent %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestControlPlaneIsAwayAtTheStart(t *testing.T) {
	proxies(t, func(t *testing.T, proxy string) {
		w := newWorld(t)
		r := w.start(proxy)
		w.ready()
		w.control.Settle(t, wellknown.ListenerType)
		r.signal(syscall.SIGKILL)
		_ = r.ended()
		address := w.control.Addr()
		w.control.Stop()
		r = w.start(proxy)
		w.ready()
		w.serves()
		if !strings.Contains(r.log.String(), "the control plane is away") {
			t.Errorf("log %s", r.log)
		}
		w.control.Start(t, address)
		w.control.Settle(t, wellknown.ListenerType)
		w.serves()
	})
}

func TestNothingAcceptedYetAndNoControlPlane(t *testing.T) {
	w := newWorld(t)
	address := w.control.Addr()
	w.control.Stop()
	r := w.start("")
	fixture.Eventually(t, "the reason why it waits", func() error {
		if !strings.Contains(r.log.String(), "waiting for the control plane\tat="+address+" since=") {
			return errors.New(r.log.String())
		}
		return nil
	})
	if status, body, err := get(w.status, "/healthz/ready"); status != http.StatusServiceUnavailable || !strings.Contains(body, "config not received from XDS server") {
		t.Errorf("ready: %d %q %v", status, body, err)
	}
	w.control.Start(t, address)
	w.ready()
	w.serves()
}

func TestKilledProxy(t *testing.T) {
	envoy := fixture.EnvoyPath()
	if envoy == "" {
		t.Skip("no Envoy is installed: make peers")
	}
	t.Run("the agent ends with its proxy and says so", func(t *testing.T) {
		w := newWorld(t)
		r := w.start(envoy)
		w.ready()
		child := childOf(t, r.cmd.Process.Pid)
		if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := r.ended(); err == nil || !strings.Contains(r.log.String(), "error: proxy: signal: killed") {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("the proxy ends with its agent", func(t *testing.T) {
		w := newWorld(t)
		r := w.start(envoy)
		w.ready()
		child := childOf(t, r.cmd.Process.Pid)
		r.signal(syscall.SIGKILL)
		_ = r.ended()
		fixture.Eventually(t, "the end of the proxy", func() error {
			if state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", child)); err == nil && !bytes.Contains(state, []byte(") Z ")) {
				return fmt.Errorf("it lives: %s", state)
			}
			return nil
		})
	})
}

// childOf is the only child of a process.
func childOf(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range tasks {
		text, _ := os.ReadFile(file)
		if n := regexp.MustCompile(`\d+`).Find(text); n != nil {
			child, _ := strconv.Atoi(string(n))
			return child
		}
	}
	t.Fatalf("process %d has no child", pid)
	return 0
}

func TestEndsOfAPod(t *testing.T) {
	proxies(t, func(t *testing.T, proxy string) {
		t.Run("EN-044 it waits until no connection is left", func(t *testing.T) {
			w := newWorld(t)
			w.env = []string{"EXIT_ON_ZERO_ACTIVE_CONNECTIONS=true", "MINIMUM_DRAIN_DURATION=100ms"}
			r := w.start(proxy)
			w.ready()
			w.leaves(t, r)
			if !strings.Contains(r.log.String(), "draining until no connection is left") {
				t.Errorf("log %s", r.log)
			}
		})
		for _, of := range []string{"agent", "proxy"} {
			t.Run("EN-013 a program of the pod ends the proxy by a page of the "+of, func(t *testing.T) {
				w := newWorld(t)
				r := w.start(proxy)
				w.ready()
				port := map[string]int{"agent": w.status, "proxy": w.admin}[of]
				answer, err := http.Post("http://127.0.0.1:"+strconv.Itoa(port)+"/quitquitquit", "", nil)
				if err != nil || answer.StatusCode != http.StatusOK {
					t.Fatal(answer, err)
				}
				_ = answer.Body.Close()
				if err := r.ended(); err != nil {
					t.Error(err)
				}
			})
		}
	})
	t.Run("a second signal ends it at once", func(t *testing.T) {
		w := newWorld(t)
		w.env = []string{"TERMINATION_DRAIN_DURATION_SECONDS=3600"}
		r := w.start("")
		w.ready()
		r.signal(syscall.SIGTERM)
		fixture.Eventually(t, "the drain", func() error {
			if !strings.Contains(r.log.String(), "draining\tfor=1h") {
				return errors.New(r.log.String())
			}
			return nil
		})
		r.signal(syscall.SIGTERM)
		if err := r.ended(); err != nil {
			t.Error(err)
		}
	})
}

func TestOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("the other tests run as an ordinary user already")
	}
	proxies(t, func(t *testing.T, proxy string) {
		w := newWorld(t)
		w.uid = 65534
		if err := os.Chmod(w.dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if proxy != "" {
			proxy = copied(t, proxy)
		}
		r := w.start(proxy)
		w.ready()
		w.serves()
		r.signal(syscall.SIGTERM)
		if err := r.ended(); err != nil {
			t.Error(err)
		}
	})
}

// copied is a program where every user can run it.
func copied(t *testing.T, path string) string {
	t.Helper()
	agent, err := program()
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(filepath.Dir(agent), "envoy")
	if exists(to) {
		return to
	}
	if out, err := exec.Command("cp", path, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return to
}

func TestBootstrapOverride(t *testing.T) {
	proxies(t, func(t *testing.T, proxy string) {
		w := newWorld(t)
		file := filepath.Join(w.dir, "custom_bootstrap.json")
		text := `{"static_resources": {"clusters": [{"name": "zipkin-of-the-pod", "type": "STATIC", "connect_timeout": "1s"}]}}`
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.env = []string{"ISTIO_BOOTSTRAP_OVERRIDE=" + file}
		w.start(proxy)
		w.ready()
		t.Run("AN-001 EN-037 its clusters are there beside the others", func(t *testing.T) {
			_, page, err := get(w.admin, "/clusters")
			for _, name := range []string{"zipkin-of-the-pod::", "xds-grpc::"} {
				if !strings.Contains(page, name) {
					t.Errorf("%s is missing in %s %v", name, page, err)
				}
			}
		})
	})
}
