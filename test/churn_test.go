package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/lateen-mesh/lateen/local"
	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/ports"
)

// TestNoRequestIsLostWhileTheMeshChanges keeps a steady load on the gateway of
// `lateen up` while everything that users change is changed.
func TestNoRequestIsLostWhileTheMeshChanges(t *testing.T) {
	t.Run("WI-030 WI-031 no request is lost while the configuration changes 50 times, the control plane is killed twice, and at the end", func(t *testing.T) {
		m := startChurning(t)
		l := newLoad(t)
		m.visitors(l)
		for round := range 25 {
			m.change(2 * round)
			m.change(2*round + 1)
			if round%12 == 6 {
				m.killControl()
			}
			m.inForce()
		}
		l.end()
		if n := l.served.Load(); n < 1000 {
			t.Errorf("%d requests are no load", n)
		}
		if parts := m.parts(); parts["istiod"].Restarts != 2 || parts["gateway"].Restarts != 0 {
			t.Errorf("restarts: %+v", parts)
		}
		fixture.Eventually(t, "no connection is left", m.idle)
		t.Logf("%d requests", l.served.Load())

		// What is asked before the end is answered: the last answers say that it is the end.
		last := newLoad(t)
		m.lastVisitors(last)
		fixture.Eventually(t, "requests are under way", func() error {
			if n := last.served.Load(); n < 200 {
				return fmt.Errorf("%d requests", n)
			}
			return nil
		})
		last.closing.Store(true)
		if out, err := exec.Command(binary(t, "lateen"), "down", "--state", m.state).CombinedOutput(); err != nil {
			t.Errorf("lateen down: %v: %s", err, out)
		}
		last.wg.Wait()
	})
}

// A churning mesh is one of `lateen up` whose files a test rewrites.
type churning struct {
	t         *testing.T
	dir       string
	state     string
	ca        *testca.CA
	backends  []*fixture.Backend
	ports     map[int]int // of Gateways → of this machine
	version   int
	weight    int
	endpoints int
	more      bool // the Gateway has port 8090 too
	subsets   int  // in their names
}

func startChurning(t *testing.T) *churning {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	m := &churning{t: t, dir: t.TempDir(), state: filepath.Join(t.TempDir(), "s"), ca: ca, ports: map[int]int{}, weight: 50, endpoints: 3}
	for i := range m.endpoints {
		m.backends = append(m.backends, fixture.StartBackend(t, fixture.BackendSpec{Name: "b" + strconv.Itoa(i)}))
	}
	argv := []string{binary(t, "lateen"), "up", m.path("config"), "--state", m.state, "--meshConfig", m.path("mesh.yaml")}
	for i, port := range ports.Claim(3) {
		of := []int{80, 443, 8090}[i]
		m.ports[of] = port
		argv = append(argv, "--publish", fmt.Sprintf("%d=%d", of, port))
	}
	if err := os.Mkdir(m.path("config"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range 7 {
		m.change(i)
	}
	up := fixture.Start(t, "lateen up", argv)
	fixture.Eventually(t, "the mesh is ready", func() error {
		if up.Exited() {
			t.Fatal("lateen up has ended")
		}
		if !strings.Contains(up.Stdout(), "mesh ready") {
			return fmt.Errorf("it says %q", up.Stdout())
		}
		return nil
	})
	t.Cleanup(func() {
		if out := up.Stdout(); strings.Contains(out, "DATA RACE") || strings.Contains(out, "fault=") {
			t.Errorf("lateen up printed:\n%s", out)
		}
	})
	m.inForce()
	return m
}

func (m *churning) path(name string) string { return filepath.Join(m.dir, name) }

func (m *churning) addr(port int) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(m.ports[port]))
}

// visitors are clients of all kinds: with long and short connections, plain and
// TLS, with bodies, and some whose requests are under way while things change.
func (m *churning) visitors(l *load) {
	secure := trusting(m.ca.Pool(), "site.test")
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: site.test\r\n\r\n" }
	post := "POST /echo HTTP/1.1\r\nHost: site.test\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("x", 5000)
	chunked := "POST /echo HTTP/1.1\r\nHost: site.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	for _, v := range []visitor{
		{what: "keep-alive", addr: m.addr(80), request: get("/")},
		{what: "new connections", addr: m.addr(80), request: get("/"), fresh: true},
		{what: "bodies", addr: m.addr(80), request: post},
		{what: "chunked bodies", addr: m.addr(80), request: chunked},
		{what: "slow answers", addr: m.addr(80), request: get("/delay/0.3")},
		{what: "long answers", addr: m.addr(80), request: get("/bytes/300000")},
		{what: "TLS", addr: m.addr(443), request: get("/"), secure: secure},
		{what: "TLS, new connections", addr: m.addr(443), request: get("/"), secure: secure, fresh: true},
	} {
		l.add(2, v)
	}
}

// lastVisitors have long connections: one that is made in the very moment in which the
// socket closes is refused, which is no loss, but cannot be told from one.
func (m *churning) lastVisitors(l *load) {
	get := func(path string) string { return "GET " + path + " HTTP/1.1\r\nHost: site.test\r\n\r\n" }
	for _, v := range []visitor{
		{what: "keep-alive", addr: m.addr(80), request: get("/")},
		{what: "slow answers", addr: m.addr(80), request: get("/delay/0.3")},
		{what: "TLS", addr: m.addr(443), request: get("/"), secure: trusting(m.ca.Pool(), "site.test")},
	} {
		l.add(4, v)
	}
}

// change makes the n-th change of the configuration.
func (m *churning) change(n int) {
	switch n % 7 {
	case 0: // weights
		m.weight = (m.weight + 37) % 101
		m.routes()
	case 1: // endpoints come and go
		m.endpoints = 2 + (m.endpoints+1)%2
		m.services()
	case 2: // a listener comes and goes, and a server of one that stays
		m.more = n%14 == 2
		m.gateway()
	case 3: // the certificate
		cert, key, err := m.ca.Issue("site.test")
		if err != nil {
			m.t.Fatal(err)
		}
		m.write("config/secret.yaml", fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: site, namespace: istio-system}\n"+
			"type: kubernetes.io/tls\nstringData: {tls.crt: %q, tls.key: %q}\n", cert, key))
	case 4: // what the whole mesh shares
		m.write("mesh.yaml", fmt.Sprintf("accessLogFile: /dev/stdout\naccessLogFormat: \"%d %%RESPONSE_CODE%%\\n\"\nenableAutoMtls: false\n", n))
	case 5: // another host's routes
		m.other(n)
	case 6: // the subsets are called otherwise, and their connections are used otherwise
		m.subsets = n
		m.services()
	}
	m.mark()
}

func (m *churning) write(name, text string) {
	part := filepath.Join(m.dir, "part")
	if err := os.WriteFile(part, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(part, m.path(name)); err != nil {
		m.t.Fatal(err)
	}
}

func (m *churning) mark() {
	m.version++
	m.routes()
}

func (m *churning) routes() {
	m.write("config/routes.yaml", fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: site}
spec:
  hosts: [site.test]
  gateways: [gw]
  http:
  - headers: {response: {set: {x-version: "%d"}}}
    route:
    - destination: {host: site.backend, subset: even%d}
      weight: %d
    - destination: {host: site.backend, subset: odd%d}
      weight: %d
`, m.version, m.subsets, m.weight, m.subsets, 100-m.weight))
}

func (m *churning) services() {
	text := fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: site}
spec:
  host: site.backend
  trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: %[1]d}}}
  subsets: [{name: even%[1]d, labels: {kind: even}}, {name: odd%[1]d, labels: {kind: odd}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: site}
spec:
  hosts: [site.backend]
  location: MESH_EXTERNAL
  resolution: STATIC
  ports: [{number: 80, name: http, protocol: HTTP}]
  endpoints:
`, m.subsets)
	for i, b := range m.backends[:m.endpoints] {
		text += fmt.Sprintf("  - {address: 127.0.0.1, ports: {http: %d}, labels: {kind: %s}}\n", b.Addr.Port, []string{"even", "odd"}[i%2])
	}
	m.write("config/services.yaml", text)
}

func (m *churning) gateway() {
	text := `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: gw}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [site.test]
  - port: {number: 443, name: https, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: site}
    hosts: [site.test]
`
	if m.more {
		text += `
  - port: {number: 8090, name: http-more, protocol: HTTP}
    hosts: ["*"]
  - port: {number: 443, name: https-more, protocol: HTTPS}
    tls: {mode: SIMPLE, credentialName: site}
    hosts: [other.test]
`
	}
	m.write("config/gateway.yaml", text)
}

func (m *churning) other(n int) {
	m.write("config/other.yaml", fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: other}
spec:
  hosts: [other%d.test]
  gateways: [gw]
  http: [{directResponse: {status: 200}}]
`, n))
}

// inForce waits until the gateway serves by what was written last.
func (m *churning) inForce() {
	m.t.Helper()
	want := strconv.Itoa(m.version)
	fixture.Eventually(m.t, "version "+want+" is in force", func() error {
		got, err := fetchHeader(m.addr(80), "GET / HTTP/1.1\r\nHost: site.test\r\n\r\n", "x-version", "x-backend")
		switch {
		case err != nil:
			return err
		case got[0] != want:
			return fmt.Errorf("version %s is", got[0])
		case m.endpoints == 2 && got[1] == "b2":
			return fmt.Errorf("%s answers, which was removed", got[1])
		}
		c, err := net.Dial("tcp", m.addr(8090))
		if err == nil {
			_ = c.Close()
		}
		if open := err == nil; open != m.more {
			return fmt.Errorf("port 8090 is open: %v", open)
		}
		return nil
	})
}

// parts are the processes of the mesh.
func (m *churning) parts() map[string]local.Part {
	var out bytes.Buffer
	cmd := exec.Command(binary(m.t, "lateen"), "status", "--state", m.state, "-o", "json")
	cmd.Stdout = &out
	_ = cmd.Run() // it fails while the control plane is away, and prints all the same
	var status local.Status
	if err := json.Unmarshal(out.Bytes(), &status); err != nil {
		m.t.Fatalf("%v: %s", err, out.String())
	}
	parts := map[string]local.Part{}
	for _, p := range status.Parts {
		parts[p.Name] = p
	}
	return parts
}

func (m *churning) killControl() {
	if err := syscall.Kill(m.parts()["istiod"].PID, syscall.SIGKILL); err != nil {
		m.t.Fatal(err)
	}
}

// idle reports connections that clients still have to the gateway.
func (m *churning) idle() error {
	text, err := os.ReadFile(filepath.Join(m.state, "gateway.json"))
	if err != nil {
		return err
	}
	var boot struct {
		Admin struct {
			Address struct {
				Socket struct {
					Port int `json:"port_value"`
				} `json:"socket_address"`
			} `json:"address"`
		} `json:"admin"`
	}
	if err := json.Unmarshal(text, &boot); err != nil {
		return err
	}
	g := fixture.Gateway{Admin: fmt.Sprintf("http://127.0.0.1:%d", boot.Admin.Address.Socket.Port)}
	stats, err := g.Get("/stats?filter=total_connections") // those of single listeners are not among what a bootstrap keeps
	if err != nil {
		return err
	}
	if stats != "server.total_connections: 0\n" {
		return errors.New(stats)
	}
	return nil
}
