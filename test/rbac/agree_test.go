// Package rbac holds the proof that policies decide as in Envoy: random requests for random
// policies to our proxy and to a real Envoy of one configuration.
package rbac

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/proxy"
	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/ports"
)

var (
	requests = flag.Int("requests", 3000, "how many requests are compared")
	routes   = flag.Int("routes", 400, "how many policies there are for them")
	seed     = flag.Uint64("seed", 0, "of the random numbers, 0: another each time")
)

// A world is what both proxies have in common.
type world struct {
	ca      *testca.CA
	folder  string
	clients []client
	rbac    []object // by route
}

// A client is where requests come from, and as whom.
type client struct {
	listener int // plain, normalizing, TLS
	from     string
	identity []tls.Certificate
}

const (
	plain = iota
	normalizing
	secure
	listeners
)

// TestAgree: SX-016 PO-018 both answer alike, and for the same policy.
func TestAgree(t *testing.T) {
	envoy := fixture.EnvoyPath()
	if envoy == "" {
		t.Skip("the real Envoy is not installed: run `make peers`")
	}
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	c := chooser{rand.New(rand.NewPCG(*seed, 0))}
	w := newWorld(t, c)
	peers := []*peer{{w: w, name: "ours", at: ports.Claim(listeners + 1)}, {w: w, name: "envoy", at: ports.Claim(listeners + 1)}}
	peers[0].ours(t)
	peers[1].envoy(t, envoy)
	tally := map[string]int{}
	differ := 0
	for i := range *requests {
		route := c.IntN(*routes)
		text, from := c.request(route), c.IntN(len(w.clients))
		ours, theirs := peers[0].ask(t, from, text), peers[1].ask(t, from, text)
		word, _, _ := strings.Cut(theirs, " ")
		tally[word]++
		if ours == theirs {
			continue
		}
		if differ++; differ <= 5 {
			policy, _ := json.Marshal(w.rbac[route])
			t.Errorf("request %d by client %+v:\n%s\nours:  %s\nenvoy: %s\npolicy: %s", i, w.clients[from].from, text, ours, theirs, policy)
		}
	}
	t.Logf("%d requests for %d policies, seed %d: %d differ; Envoy's answers: %v", *requests, *routes, *seed, differ, tally)
	if tally["200"] == 0 || tally["403"] == 0 {
		t.Error("nothing was allowed, or nothing denied")
	}
}

func newWorld(t *testing.T, c chooser) *world {
	t.Helper()
	w := &world{folder: t.TempDir()}
	var err error
	if w.ca, err = testca.New(); err != nil {
		t.Fatal(err)
	}
	cert, key, err := w.ca.Issue("a.test", "b.test")
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"cert": cert, "key": key, "ca": w.ca.PEM()} {
		if err := os.WriteFile(filepath.Join(w.folder, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, from := range []string{"127.0.0.1", "127.0.0.2", "127.1.0.1"} {
		w.clients = append(w.clients, client{listener: plain, from: from}, client{listener: normalizing, from: from})
	}
	w.clients = append(w.clients, client{listener: secure, from: "127.0.0.3"})
	for _, names := range [][]string{{"spiffe://a/ns/x"}, {"spiffe://b/ns/y", "peer.test"}, {"other.test"}} {
		own, err := w.ca.Certificate(names...)
		if err != nil {
			t.Fatal(err)
		}
		w.clients = append(w.clients, client{listener: secure, from: "127.0.0.3", identity: []tls.Certificate{own}})
	}
	for range *routes {
		w.rbac = append(w.rbac, c.config())
	}
	return w
}

// bootstrap is the configuration of a peer.
func (w *world) bootstrap(t *testing.T, at []int) string {
	t.Helper()
	var table []object
	for i, policy := range w.rbac {
		table = append(table, object{
			"match":           object{"prefix": "/", "headers": []object{{"name": "x-route", "string_match": object{"exact": fmt.Sprint(i)}}}},
			"metadata":        object{"filter_metadata": object{"r": values}},
			"direct_response": object{"status": 200, "body": object{"inline_string": "ok"}},
			"typed_per_filter_config": object{"envoy.filters.http.rbac": object{
				"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute", "rbac": policy}},
		})
	}
	var list []object
	for i := range listeners {
		list = append(list, w.listener(i, at[i], table))
	}
	out, err := json.Marshal(object{
		"admin":            object{"address": address(at[listeners])},
		"layered_runtime":  object{"layers": []object{{"name": "static", "static_layer": object{"re2.max_program_size.error_level": 32768}}}},
		"static_resources": object{"listeners": list},
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func address(port int) object {
	return object{"socket_address": object{"address": "127.0.0.1", "port_value": port}}
}

// values are metadata, dynamic and of routes.
var values = object{"text": "ab", "number": 3, "flag": true, "list": []any{"a", 1, "b"}, "null": nil}

func (w *world) listener(kind, port int, table []object) object {
	typed := func(name string, fields object) object {
		fields["@type"] = "type.googleapis.com/envoy.extensions." + name
		return object{"name": name, "typed_config": fields}
	}
	details := object{"header": object{"key": "x-details", "value": "%RESPONSE_CODE_DETAILS% %DYNAMIC_METADATA(envoy.common)%"}}
	manager := object{
		"stat_prefix": "main", "generate_request_id": false, "codec_type": "HTTP1",
		"http_filters": []object{
			typed("filters.http.set_metadata.v3.Config", object{"metadata": []object{{"metadata_namespace": "m", "value": values}}}),
			{"name": "envoy.filters.http.rbac", "typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"}},
			typed("filters.http.router.v3.Router", object{}),
		},
		"route_config":       object{"name": "r", "virtual_hosts": []object{{"name": "v", "domains": []string{"*"}, "routes": table}}},
		"local_reply_config": object{"mappers": []object{{"filter": object{"not_health_check_filter": object{}}, "headers_to_add": []object{details}}}},
	}
	if kind == normalizing {
		manager["normalize_path"], manager["merge_slashes"] = true, true
		manager["path_with_escaped_slashes_action"] = "UNESCAPE_AND_FORWARD"
	}
	chain := object{"filters": []object{
		typed("filters.network.set_filter_state.v3.Config", object{"on_new_connection": []object{{"object_key": "test.state", "factory_key": "envoy.string",
			"format_string": object{"text_format_source": object{"inline_string": "on %REQUESTED_SERVER_NAME%"}}}}}),
		typed("filters.network.http_connection_manager.v3.HttpConnectionManager", manager),
	}}
	out := object{"name": fmt.Sprint("l", kind), "address": object{"socket_address": object{"address": "0.0.0.0", "port_value": port}}, "filter_chains": []object{chain}}
	if kind == secure {
		file := func(name string) object { return object{"filename": filepath.Join(w.folder, name)} }
		out["listener_filters"] = []object{typed("filters.listener.tls_inspector.v3.TlsInspector", object{})}
		chain["transport_socket"] = typed("transport_sockets.tls.v3.DownstreamTlsContext", object{"common_tls_context": object{
			"tls_certificates":   []object{{"certificate_chain": file("cert"), "private_key": file("key")}},
			"validation_context": object{"trusted_ca": file("ca")}}})
	}
	return out
}

// A peer is one of the proxies, with a connection for each client.
type peer struct {
	w     *world
	name  string
	at    []int // ports of the listeners and of the admin API
	conns map[int]net.Conn
	bufs  map[int]*bufio.Reader
}

func (p *peer) ours(t *testing.T) {
	t.Helper()
	b, err := proxy.Load("", p.w.bootstrap(t, p.at), false)
	if err != nil {
		t.Fatal(err)
	}
	o := proxy.DefaultOptions()
	stop, ended := make(chan struct{}), make(chan error, 1)
	o.LogLevel, o.DisableRestart, o.Stop, o.DrainTime = "error", true, stop, time.Second
	go func() { ended <- proxy.Run(context.Background(), b, o, t.Output()) }()
	t.Cleanup(func() {
		p.leave()
		close(stop)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	p.ready(t)
}

func (p *peer) envoy(t *testing.T, program string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, []byte(p.w.bootstrap(t, p.at)), 0o600); err != nil {
		t.Fatal(err)
	}
	fixture.Start(t, p.name, []string{program, "-c", file, "--concurrency", "1", "-l", "error", "--use-dynamic-base-id"})
	t.Cleanup(p.leave)
	p.ready(t)
}

func (p *peer) ready(t *testing.T) {
	t.Helper()
	p.conns, p.bufs = map[int]net.Conn{}, map[int]*bufio.Reader{}
	fixture.Eventually(t, p.name+" ready", func() error {
		r, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/ready", p.at[listeners]))
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if r.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", r.Status)
		}
		return nil
	})
}

func (p *peer) leave() {
	for _, c := range p.conns {
		_ = c.Close()
	}
}

// ask sends a request as a client, and returns the status and the details of the answer.
func (p *peer) ask(t *testing.T, from int, text string) string {
	t.Helper()
	if p.conns[from] == nil {
		p.conns[from] = p.dial(t, p.w.clients[from])
		p.bufs[from] = bufio.NewReader(p.conns[from])
	}
	conn := p.conns[from]
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Fatalf("%s: %v", p.name, err)
	}
	r, err := http.ReadResponse(p.bufs[from], nil)
	if err != nil {
		t.Fatalf("%s: %v after\n%s", p.name, err, text)
	}
	n, err := p.bufs[from].Discard(int(r.ContentLength))
	if err != nil || r.Close {
		_ = conn.Close()
		delete(p.conns, from)
	}
	return fmt.Sprintf("%d %s %d", r.StatusCode, r.Header.Get("x-details"), n)
}

func (p *peer) dial(t *testing.T, c client) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(c.from)}}
	conn, err := d.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.at[c.listener]))
	if err != nil {
		t.Fatal(err)
	}
	if c.listener == secure {
		return tls.Client(conn, &tls.Config{RootCAs: p.w.ca.Pool(), ServerName: "a.test", Certificates: c.identity})
	}
	return conn
}
