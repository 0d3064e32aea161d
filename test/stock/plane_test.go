package stock

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/agent/bootstrap"
	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/ports"
	"github.com/lateen-mesh/lateen/wellknown"
)

// A plane is our control plane on one file, which is replaced as a whole.
type plane struct {
	t      *testing.T
	dir    string
	server *control.Server
	socket string
	steps  int // configurations so far
}

// start runs the control plane until the test ends.
func start(t *testing.T, first configuration) *plane {
	t.Helper()
	sockets, err := os.MkdirTemp("", "stock") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	p := &plane{t: t, dir: t.TempDir(), socket: filepath.Join(sockets, "grpc")}
	p.write(first)
	out := &output{}
	log, err := logging.New(logging.Options{Output: out, Levels: "warning"})
	if err != nil {
		t.Fatal(err)
	}
	p.server, err = control.New(control.Options{Paths: []string{p.dir}, Log: log, GRPC: "unix:" + p.socket, Identities: true,
		Debounce: control.Debounce{After: time.Millisecond, Max: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the control plane: %v", err)
		}
		if t.Failed() {
			t.Logf("the control plane said:\n%s", out)
		}
	})
	return p
}

// output is what a part of the test prints; for concurrent use.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// write puts a configuration in the place of the last one.
func (p *plane) write(c configuration) {
	p.t.Helper()
	p.steps++
	file := filepath.Join(p.dir, "all.yaml")
	if err := os.WriteFile(file+".part", []byte(c.text(p.steps)), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(file+".part", file); err != nil {
		p.t.Fatal(err)
	}
}

// put writes a configuration and waits until a snapshot is made of it.
func (p *plane) put(c configuration) {
	p.t.Helper()
	before := p.server.Status().Generation
	p.write(c)
	fixture.Eventually(p.t, "a snapshot of "+c.name, func() error {
		if now := p.server.Status().Generation; now <= before {
			return fmt.Errorf("still at generation %d", now)
		}
		return nil
	})
}

// A node says who a proxy is, as the original's agent does.
type node struct {
	ID       string         `json:"id"`
	Metadata map[string]any `json:"metadata"`
}

// A foreign is a real Envoy under the plane.
type foreign struct {
	fixture.Gateway
	plane *plane
	node  node
}

// envoy starts one with the bootstrap that our agent writes for the node, and waits until it is ready.
func (p *plane) envoy(n node, whole bool) *foreign {
	p.t.Helper()
	id := strings.Split(n.ID, "~")
	name, namespace, _ := strings.Cut(id[2], ".")
	admin := ports.One()
	sds := filepath.Join(filepath.Dir(p.socket), "sds")
	secrets := xdstest.At(p.t, "unix:"+sds)
	secrets.SetAll(wellknown.SecretType, identities(p.t))
	data, err := bootstrap.Input{Type: id[0], Name: name, Namespace: namespace, Addresses: []string{id[1]}, ID: n.ID,
		Metadata: n.Metadata, XDSSocket: p.socket, SDSSocket: sds, Whole: whole, Admin: admin, DNS: fixture.StartDNS(p.t, nil)}.JSON()
	if err != nil {
		p.t.Fatal(err)
	}
	file := filepath.Join(p.t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		p.t.Fatal(err)
	}
	e := &foreign{fixture.Gateway{Admin: fmt.Sprintf("http://127.0.0.1:%d", admin)}, p, n}
	e.Process = fixture.Start(p.t, "envoy", []string{envoyPath(p.t), "-c", file, "-l", "error", "--concurrency", "1", "--use-dynamic-base-id"})
	return e
}

// page reads a page of the admin API on a connection of its own.
func (e *foreign) page(path string) (string, error) {
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	r, err := c.Get(e.Admin + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return string(body), err
}

// holds waits until the Envoy has the newest snapshot in force, and checks that it has
// refused nothing of it, nor of what came before.
func (e *foreign) holds(t *testing.T) {
	t.Helper()
	fixture.Eventually(t, "everything is in force", func() error {
		if e.Exited() {
			t.Fatal("envoy ended")
		}
		return e.inForce(t)
	})
	page, err := e.page("/stats?filter=update_rejected|listener_create_failure|init_fetch_timeout")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(page) {
		if !strings.HasSuffix(line, ": 0\n") {
			t.Errorf("envoy: %s", strings.TrimSpace(line))
		}
	}
}

// inForce says what is missing.
func (e *foreign) inForce(t *testing.T) error {
	st := e.plane.server.Status()
	if len(st.Proxies) != 1 {
		return fmt.Errorf("%d proxies are connected", len(st.Proxies))
	}
	is := st.Proxies[0]
	for _, r := range is.Refused {
		t.Fatalf("refused: %s %s: %s", r.Type, r.Resource, r.Error)
	}
	if is.Node != e.node.ID || !is.Synced || is.Generation != st.Generation {
		return fmt.Errorf("%s is at generation %d of %d", is.Node, is.Generation, st.Generation)
	}
	page, err := e.page(`/stats?filter=warming|^server.state$|workers_started$`)
	if err != nil {
		return err
	}
	for _, want := range []string{"cluster_manager.warming_clusters: 0\n", "listener_manager.total_listeners_warming: 0\n", "listener_manager.workers_started: 1\n", "server.state: 0\n"} {
		if !strings.Contains(page, want) {
			return fmt.Errorf("no %q in\n%s", want, page)
		}
	}
	return nil
}

// active is how many listeners are at work.
func (e *foreign) active(t *testing.T) int {
	t.Helper()
	page, err := e.page("/stats?filter=total_listeners_active")
	if err != nil {
		t.Fatal(err)
	}
	_, number, _ := strings.Cut(strings.TrimSpace(page), ": ")
	n, err := strconv.Atoi(number)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// identities are the certificates that an agent serves.
func identities(t *testing.T) map[string]proto.Message {
	t.Helper()
	all, err := fixture.Secrets(
		[]string{"default", "file-cert:/certs/tls.crt~/certs/tls.key"},
		[]string{"ROOTCA", "file-root:system"})
	if err != nil {
		t.Fatal(err)
	}
	return all
}
