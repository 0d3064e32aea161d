package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/traffic"
)

// A mesh is a control plane with its authority in a pod, and members.
type mesh struct {
	t       *testing.T
	dir     string // of everything; a short path, for sockets
	istiod  *fixture.Pod
	clock   time.Duration // by which that of the authority is ahead
	server  *control.Server
	stop    func() // the control plane
	members []*member
	keepers *http.Client // of the control plane's pages
}

// A member is a pod with an application that echoes, an agent and its proxy.
type member struct {
	*fixture.Pod
	m       *mesh
	name    string
	envoy   bool
	process *fixture.Process
	serials map[string]bool // of the certificates that its proxy has had
}

// Ports of every application. Connections between proxies to short ones end after a few requests.
const (
	http1Port = 8080 + iota
	http1ShortPort
	http2Port
	http2ShortPort
	tcpPort
)

func (p *member) host() string { return p.name + ".default.svc.cluster.local" }

// vip is the address of a member's service.
func (p *member) vip() string { return "10.60.0." + p.Addr().String()[len("10.77.100."):] }

// start runs a mesh whose agents have what environment says, beside what all have. It returns
// when everything is in force.
func start(t *testing.T, clock time.Duration, environment ...string) *mesh {
	t.Helper()
	dir, err := os.MkdirTemp("", "rotation")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	names := []string{"client", "server"}
	if fixture.EnvoyPath() != "" {
		names = append(names, "envoy")
	} else {
		t.Log("the real Envoy is not installed (make peers): only ours is tested")
	}
	captured := make([]bool, len(names)+1)
	for i := range names {
		captured[i+1] = true
	}
	pods := fixture.NewPods(t, captured...)
	m := &mesh{t: t, dir: dir, istiod: pods[0], clock: clock}
	for i, name := range names {
		m.members = append(m.members, &member{Pod: pods[i+1], m: m, name: name, envoy: name == "envoy", serials: map[string]bool{}})
	}
	m.keepers = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "pages"))
	}}}
	m.write()
	m.control()
	for _, p := range m.members {
		p.serve()
		p.join()
		p.start(environment)
	}
	m.settle()
	return m
}

// write gives the mesh its configuration: plain text is refused, and nothing is tried twice.
func (m *mesh) write() {
	m.t.Helper()
	var all strings.Builder
	all.WriteString(`apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: "defaultHttpRetryPolicy: {attempts: 0}"}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`)
	for _, p := range m.members {
		fmt.Fprintf(&all, `---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: %[1]s, namespace: default}
spec:
  hosts: [%[2]s]
  addresses: [%[3]s]
  location: MESH_INTERNAL
  resolution: STATIC
  ports:
  - {number: %[5]d, name: http, protocol: HTTP}
  - {number: %[6]d, name: http-short, protocol: HTTP}
  - {number: %[7]d, name: http2, protocol: HTTP2}
  - {number: %[8]d, name: http2-short, protocol: HTTP2}
  - {number: %[9]d, name: tcp, protocol: TCP}
  endpoints: [{address: %[4]s, serviceAccount: %[1]s, labels: {app: %[1]s, security.istio.io/tlsMode: istio}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: %[1]s, namespace: default}
spec:
  host: %[2]s
  trafficPolicy:
    portLevelSettings:
    - {port: {number: %[6]d}, connectionPool: {http: {maxRequestsPerConnection: 3}}}
    - {port: {number: %[8]d}, connectionPool: {http: {maxRequestsPerConnection: 3}}}
`, p.name, p.host(), p.vip(), p.Addr(), http1Port, http1ShortPort, http2Port, http2ShortPort, tcpPort)
	}
	if err := os.MkdirAll(filepath.Join(m.dir, "config"), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "config", "all.yaml"), []byte(all.String()), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// control starts the control plane, which keeps its authority from one start to the next.
func (m *mesh) control() {
	m.t.Helper()
	log, err := logging.New(logging.Options{Output: m.t.Output(), Levels: "warn"})
	if err != nil {
		m.t.Fatal(err)
	}
	m.istiod.Do(func() {
		m.server, err = control.New(control.Options{Paths: []string{filepath.Join(m.dir, "config")}, State: filepath.Join(m.dir, "state"), Log: log,
			SecureGRPC: "0.0.0.0:15012", HTTP: "unix:" + filepath.Join(m.dir, "pages"), Identities: true,
			Authority: control.AuthorityOptions{Now: func() time.Time { return time.Now().Add(m.clock) }}})
	})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.server.Run(ctx) }()
	over := false
	m.stop = func() {
		if over {
			return
		}
		over = true
		cancel()
		if err := <-ended; err != nil {
			m.t.Errorf("the control plane: %v", err)
		}
	}
	m.t.Cleanup(m.stop)
}

// page asks the control plane for a page, which is JSON.
func (m *mesh) page(method, path string, into any) error {
	r, err := http.NewRequestWithContext(m.t.Context(), method, "http://istiod/debug/"+path, http.NoBody)
	if err != nil {
		return err
	}
	answer, err := m.keepers.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, text)
	}
	if err == nil {
		err = json.Unmarshal(text, into)
	}
	return err
}

// path is that of a file of the member.
func (p *member) path(name string) string { return filepath.Join(p.m.dir, p.name, name) }

// join puts there what a pod is given of its mesh: a token, the roots, its labels.
func (p *member) join() {
	p.m.t.Helper()
	var got struct{ Token, Root string }
	fixture.Eventually(p.m.t, "a token of "+p.name, func() error {
		err := p.m.page(http.MethodPost, "jointoken?namespace=default&serviceAccount="+p.name, &got)
		if err == nil && got.Root == "" {
			err = errors.New("there is no authority yet")
		}
		return err
	})
	if err := os.MkdirAll(p.path("."), 0o700); err != nil {
		p.m.t.Fatal(err)
	}
	for name, text := range map[string]string{"token": got.Token, "root-cert.pem": got.Root, "labels": fmt.Sprintf("app=%q\n", p.name), "annotations": ""} {
		if err := os.WriteFile(p.path(name), []byte(text), 0o600); err != nil {
			p.m.t.Fatal(err)
		}
	}
}

// start runs the agent with its proxy and waits until it is ready.
func (p *member) start(environment []string) {
	p.m.t.Helper()
	argv := []string{build.Command(p.m.t, "pilot-agent"), "proxy", "sidecar", "--domain", "default.svc.cluster.local", "--configPath", p.path("proxy"),
		"--podInfo", p.path("."), "--sockets", p.path("none"), "--identity", p.path("identity"), "--token", p.path("token"),
		"--concurrency", "1", "--meshConfig", p.path("mesh"), "--proxyLogLevel", "error"}
	if p.envoy {
		argv = append(argv, "--proxy", fixture.EnvoyPath())
	}
	config, err := json.Marshal(map[string]any{
		"discoveryAddress": p.m.istiod.Addr().String() + ":15012", "terminationDrainDuration": "1s",
		"proxyStatsMatcher": map[string]any{"inclusionRegexps": []string{".*"}},
	})
	if err != nil {
		p.m.t.Fatal(err)
	}
	env := append([]string{"POD_NAME=" + p.name + "-1", "POD_NAMESPACE=default", "INSTANCE_IP=" + p.Addr().String(), "SERVICE_ACCOUNT=" + p.name,
		"ISTIO_META_CLUSTER_ID=Kubernetes", "PROV_CERT=" + p.path("."), "PROXY_CONFIG=" + string(config)}, environment...)
	p.Do(func() { p.process = fixture.Start(p.m.t, p.name, argv, env...) })
	if p.process == nil {
		p.m.t.FailNow()
	}
	fixture.Eventually(p.m.t, p.name+" is ready", func() error {
		if p.process.Exited() {
			p.m.t.Fatalf("%s has ended before it was ready", p.name)
		}
		_, err := p.admin("/ready")
		return err
	})
}

// admin is a page of the member's proxy.
func (p *member) admin(path string) (string, error) {
	c := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: p.dial}}
	r, err := c.Get("http://127.0.0.1:15000" + path) //nolint:noctx // bounded by the client
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err == nil && r.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, r.Status, text)
	}
	return string(text), err
}

// dial connects as the application does.
func (p *member) dial(_ context.Context, _, address string) (net.Conn, error) {
	return p.Dial(&net.Dialer{Timeout: patience}, address)
}

// serve runs the application.
func (p *member) serve() {
	p.m.t.Helper()
	for port := http1Port; port <= tcpPort; port++ {
		l, err := p.Listen(fmt.Sprintf("0.0.0.0:%d", port))
		if err != nil {
			p.m.t.Fatal(err)
		}
		if port == tcpPort {
			go traffic.Serve(l)
			p.m.t.Cleanup(func() { _ = l.Close() })
			continue
		}
		s := &http.Server{ReadHeaderTimeout: patience, Protocols: &http.Protocols{}, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(w, r.Body)
		})}
		s.Protocols.SetHTTP1(true)
		s.Protocols.SetUnencryptedHTTP2(true)
		go func() { _ = s.Serve(l) }()
		p.m.t.Cleanup(func() { _ = s.Close() })
	}
}

// settle waits until all proxies have the newest snapshot and their certificates.
func (m *mesh) settle() {
	m.t.Helper()
	fixture.Eventually(m.t, "everything is in force", func() error {
		st := m.server.Status()
		synced := 0
		for _, is := range st.Proxies {
			for _, r := range is.Refused {
				m.t.Fatalf("%s refuses %s %s: %s", is.Node, r.Type, r.Resource, r.Error)
			}
			if is.Synced && is.Generation == st.Generation {
				synced++
			}
		}
		if want := len(m.members); synced != want {
			return fmt.Errorf("%d of %d proxies have generation %d", synced, want, st.Generation)
		}
		return nil
	})
	m.warm()
}

// warm waits until nothing of a proxy waits for a certificate.
func (m *mesh) warm() {
	m.t.Helper()
	for _, p := range m.members {
		fixture.Eventually(m.t, "nothing of "+p.name+" is warming", func() error {
			page, err := p.admin("/stats?filter=warming")
			if err == nil && strings.Count(page, ": 0\n") != strings.Count(page, "\n") {
				err = fmt.Errorf("%s", page)
			}
			return err
		})
	}
}
