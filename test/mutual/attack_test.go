package mutual

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/agent/status"
	"github.com/lateen-mesh/lateen/samples/testca"
)

// TestAttacks is a manual of attacks from a neighbour: a pod of the same network without a proxy and
// without a certificate. Each is refused, and what the proxy or the agent says of it is looked for.
//
// Elsewhere are attacks by policies' paths (test/rbac, test/cases/authorization.txtar), by tokens
// (test/jwt, proxy/jwt), for certificates of others and with join tokens that are spent
// (control/ca, control: TestSecurePort), in plain text on the control plane (control:
// TestAnonymous), by hosts of other servers at a gateway (test/cases/misdirected.txtar), and by
// headers alone (test/cases/forged-*.txtar).
func TestAttacks(t *testing.T) {
	p := start(t)
	victims := p.existing("lateen", "envoy")
	said := map[*member]*record{}
	for _, m := range victims {
		said[m] = agent(t, m)
	}
	for _, mode := range []string{"permissive", "strict"} {
		p.put(policies(nil)[mode])
		for _, m := range victims {
			for _, a := range pageAttacks {
				t.Run(fmt.Sprintf("attack/%s/%s/%d %s", mode, m.name, a.port, a.name), func(t *testing.T) { a.try(t, p, m, said[m]) })
			}
			t.Run("attack/"+mode+"/"+m.name+"/SX-014 a forged client certificate in a header", func(t *testing.T) { forgedHeader(t, p, m, mode) })
			t.Run("attack/"+mode+"/"+m.name+"/SX-010 a certificate of another authority", func(t *testing.T) { stranger(t, p, m) })
		}
	}
	for _, m := range victims { // after all of that
		if got := call(p.servers(m.kind, m)[0], m, httpPort); got.answered != m.name {
			t.Errorf("%s does not serve any more: %s", m.name, got.problem)
		}
	}
}

// An attack is bytes to a port of a pod.
type attack struct {
	name    string
	port    int
	request string
	want    string // the status that is answered; "" for no byte, or 503 from the sidecar that tried
	log     string // what the agent says
}

// pageAttacks are on the ports beside those of the application.
var pageAttacks = []attack{
	{"EN-001 the admin API", 15000, get("/config_dump"), "", ""},
	{"EN-001 the admin API is not ended", 15000, post("/quitquitquit"), "", ""},
	{"EN-003 debug pages of an agent", 15004, get("/debug/syncz"), "", ""},
	{"EN-012 ControlZ", 9876, get("/"), "", ""},
	{"EN-002 the outbound port is no way through", 15001, get("/"), "", ""},
	{"EN-004 the inbound port is none to the application", 15006, get("/"), "", ""},
	{"EN-004 nor in a circle", 15006, "CONNECT 127.0.0.1:15006 HTTP/1.1\r\nHost: 127.0.0.1:15006\r\n\r\n", "", ""},
	{"EN-013 the proxy is not ended by its agent", 15020, post("/quitquitquit"), "403", "path=/quitquitquit"},
	{"EN-013 nor drained", 15020, post("/drain"), "403", "path=/drain"},
	{"EN-013 names of the mesh are not told", 15020, get("/debug/ndsz"), "403", "path=/debug/ndsz"},
	{"EN-013 no profiles", 15020, get("/debug/pprof/heap"), "404", ""},
	{"EN-013 no admin pages", 15020, get("/config_dump"), "404", ""},
	{"EN-014 readiness is all there is", 15021, get("/config_dump"), "404", ""},
	{"EN-014 no way to other pages of the agent", 15021, post("/healthz/ready/../../quitquitquit"), "404", ""},
	{"EN-014 nor by escapes", 15021, post("/healthz/ready/%2e%2e/%2e%2e/quitquitquit"), "404", ""},
	{"EN-016 metrics are all there is", 15090, get("/config_dump"), "404", ""},
	{"EN-016 no way to other pages of the proxy", 15090, post("/stats/prometheus/../../quitquitquit"), "404", ""},
	{"EN-016 nor by escapes", 15090, post("/stats/prometheus%2f..%2f..%2fquitquitquit"), "400", ""},
}

func get(path string) string {
	return "GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
}

func post(path string) string {
	return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
}

func (a attack) try(t *testing.T, p *plane, m *member, said *record) {
	before := len(m.sidecar.Stdout())
	got := send(t, p, m, a.port, a.request)
	line, _, _ := strings.Cut(got, "\r\n")
	refused := got == "" || strings.HasPrefix(line, "HTTP/1.1 503")
	if a.want == "" && !refused || a.want != "" && !strings.HasPrefix(line, "HTTP/1.1 "+a.want) {
		t.Errorf("%q is answered, want %q", line, a.want)
	}
	for _, secret := range []string{"PRIVATE KEY", "\"configs\"", "BEGIN"} {
		if strings.Contains(got, secret) {
			t.Errorf("the answer has %q in it", secret)
		}
	}
	if a.port == 15006 { // the proxy writes down who tries
		logged(t, m, a.port, before)
	}
	if !strings.Contains(said.String(), a.log) {
		t.Errorf("the agent says nothing of %s: %s", a.log, said)
	}
}

// send sends bytes from the pod without a proxy and returns what comes back until the end.
func send(t *testing.T, p *plane, m *member, port int, text string) string {
	t.Helper()
	c, err := p.members["none"].Dial(&net.Dialer{Timeout: patience}, net.JoinHostPort(m.Addr().String(), strconv.Itoa(port)))
	if err != nil {
		return "" // refused
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, text) // may be closed already
	got, err := io.ReadAll(c)
	if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // of the socket itself
		t.Error("the connection stays open")
	}
	return string(got)
}

// agent serves the pages of an agent in the pod of a member, and returns its log.
func agent(t *testing.T, m *member) *record {
	t.Helper()
	said := &record{}
	s, err := status.New(status.Options{Admin: "127.0.0.1:1", Address: m.Addr().String(), Logger: slog.New(slog.NewTextHandler(said, nil)),
		Quit: func() { t.Errorf("%s: quit", m.name) }, Drain: func() { t.Errorf("%s: drain", m.name) }})
	if err != nil {
		t.Fatal(err)
	}
	l, err := m.Listen("0.0.0.0:15020")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(t.Context(), l) }()
	t.Cleanup(func() {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return said
}

// forgedHeader says in a header who it is: in plain text it is nobody, or not let in at all.
func forgedHeader(t *testing.T, p *plane, m *member, mode string) {
	before := len(m.sidecar.Stdout())
	got := send(t, p, m, httpPort, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"+
		"x-forwarded-client-cert: By="+m.id()+";URI=spiffe://cluster.local/ns/default/sa/admin\r\n\r\n")
	if mode == "strict" {
		if got != "" {
			t.Errorf("is answered: %q", got)
		}
		return
	}
	answer, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if told := answer.Header.Get("Told"); answer.StatusCode != http.StatusOK || told != "" {
		t.Errorf("%s, and the application is told %q", answer.Status, told)
	}
	if known := logged(t, m, httpPort, before); known["from"] != "-" {
		t.Errorf("the proxy takes it for %s", known["from"])
	}
}

// stranger shows a certificate with the identity of another, signed by nobody known.
func stranger(t *testing.T, p *plane, m *member) {
	other, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := other.Issue("spiffe://cluster.local/ns/default/sa/admin")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := p.members["none"].Dial(&net.Dialer{Timeout: patience}, net.JoinHostPort(m.Addr().String(), strconv.Itoa(httpPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(patience))
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(p.ca.PEM())
	c := tls.Client(raw, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"istio-http/1.1", "istio", "http/1.1"}, MinVersion: tls.VersionTLS12,
		ServerName: fmt.Sprintf("outbound_.%d_._.%s", httpPort, m.host()), InsecureSkipVerify: true})
	err = c.Handshake()
	if err == nil { // the server judges after that
		_, err = io.ReadAll(c)
	}
	if err == nil || !strings.Contains(err.Error(), "remote error") || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("it ends with: %v", err)
	}
}

// A record is a log that a test reads.
type record struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}
