package foreign

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	snapshots "github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/material"
	"github.com/lateen-mesh/lateen/test/ports"
	"github.com/lateen-mesh/lateen/wellknown"
)

// notYet are observations that our proxy cannot be compared with, and why.
var notYet = map[string]string{
	// What our own control plane generates differs, not what the proxy does with it.
	"gateway server without any VirtualService: 404": "our control plane answers 404 by a route of its own",
	"weights 0/100": "our control plane names the operation by the only destination that is left",
}

// before is what must have happened before an observation, so that no race decides it.
var before = map[string]string{
	// While the one connection is being set up its request waits, and is all that may.
	"circuit breaker maxConnections 1, maxPending 1: 6 parallel requests of 1 s": "curl -s -H 'Host: cb.test' http://127.0.0.1:80/status/200",
}

// TestBehaviour makes every observed request through our proxy and compares the answer
// and the access log with what a real Envoy gave under the original's control plane.
func TestBehaviour(t *testing.T) {
	document, err := os.ReadFile(material.Path(t, "golden/BEHAVIOUR.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tool := range []string{"curl", "bash"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the observed commands need %s, which is not installed", tool)
		}
	}
	if !fixture.Isolated() {
		t.Skip("the observed addresses need a network namespace, which is not allowed here")
	}
	ownAddress(t)
	skipped, unrun := map[string]bool{}, 0 // of those that -run does not choose nothing is known
	for _, part := range parts(t, string(document)) {
		unrun += len(part.observations)
		t.Run(part.name, func(t *testing.T) {
			if _, err := exec.LookPath("nft"); err != nil && sidecars[part.name[:1]] {
				t.Skip("the observed redirection needs nft, which is not installed")
			}
			p := startPart(t, part.name[:1])
			for _, o := range part.observations {
				t.Run(o.title, func(t *testing.T) {
					unrun--
					for _, key := range []string{o.title, part.name[:2] + " " + o.title} {
						if why := notYet[key]; why != "" {
							skipped[key] = true
							t.Logf("not compared: %s", why)
							return
						}
					}
					p.compare(t, o)
				})
			}
		})
	}
	for title := range notYet {
		if unrun == 0 && !skipped[title] {
			t.Errorf("no such observation, take it off the list: %s", title)
		}
	}
}

// sidecars are the parts observed at a sidecar; the others are of a gateway.
var sidecars = map[string]bool{"C": true, "D": true}

// A part is a chapter of the document: observations under one configuration.
type part struct {
	name         string
	observations []observation
}

// An observation is a command with what it printed and what was logged.
type observation struct {
	title, command, answer, log string
	exit                        int
}

// block is the text between fences after a heading.
const fence = "\n```\n"

var commandForm = regexp.MustCompile("(?s)^`(.*)` \\(curl exit (\\d+)\\)$")

// parts reads the document.
func parts(t *testing.T, document string) (list []part) {
	t.Helper()
	for _, chapter := range strings.Split(document, "\n## ")[1:] {
		name, rest, _ := strings.Cut(chapter, "\n")
		p := part{name: name}
		for _, text := range strings.Split(rest, "\n### ")[1:] {
			title, body, _ := strings.Cut(text, "\n\n")
			blocks := strings.Split(body, fence)
			if len(blocks) < 4 {
				t.Fatalf("%s: not understood:\n%s", title, text)
			}
			command := commandForm.FindStringSubmatch(strings.TrimSpace(blocks[0]))
			if command == nil {
				t.Fatalf("%s: no command in %q", title, blocks[0])
			}
			exit, _ := strconv.Atoi(command[2])
			p.observations = append(p.observations, observation{title: title, command: command[1], exit: exit, answer: blocks[1], log: strings.TrimSuffix(blocks[3], "\n```")})
		}
		list = append(list, p)
	}
	if len(list) != 4 {
		t.Fatalf("%d parts", len(list))
	}
	return list
}

// A stage is the proxy of a part with all around it.
type stage struct{ fixture.Gateway }

// compare makes the request of an observation.
func (s *stage) compare(t *testing.T, o observation) {
	if command := before[o.title]; command != "" {
		s.prepare(t, command)
	}
	printed := len(s.Stdout())
	cmd := exec.Command("bash", "-c", o.command)
	out, err := cmd.Output()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != o.exit && !(cut(got) && cut(o.exit)) {
		t.Errorf("exit code %d, want %d", got, o.exit)
	}
	if diff := cmp.Diff(lines(o.answer), lines(string(out))); diff != "" {
		t.Errorf("answer (-observed +ours):\n%s", diff)
	}
	want := lines(strings.Replace(o.log, "(none)", "", 1))
	var got []string
	deadline := time.Now().Add(3 * time.Second)
	for len(got) < len(want) && time.Now().Before(deadline) {
		time.Sleep(20 * time.Millisecond)
		got = lines(s.Stdout()[printed:])
	}
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("access log (-observed +ours):\n%s", diff)
	}
}

// prepare makes a request that is not compared, and waits for its line in the log.
func (s *stage) prepare(t *testing.T, command string) {
	t.Helper()
	printed := len(s.Stdout())
	if out, err := exec.Command("bash", "-c", command).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	for deadline := time.Now().Add(3 * time.Second); len(s.Stdout()) == printed; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: nothing was logged", command)
		}
	}
}

// cut: curl tells an answer without a byte from a connection that was reset; which of the
// two it sees of one that is closed at once is a matter of microseconds.
func cut(exit int) bool { return exit == 52 || exit == 56 }

// volatile is what differs from run to run, and how it is written here.
var volatile = []struct {
	form *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`(?m)^date: .*$`), "date: DATE"},
	{regexp.MustCompile(`(?m)^Date: .*$`), "Date: DATE"},
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`x-envoy-upstream-service-time: \d+`), "x-envoy-upstream-service-time: MS"},
	{regexp.MustCompile(`\[\d{4}-\d\d-\d\dT[^\]]*\]`), "[TIME]"},
	{regexp.MustCompile(`time_total rounded: (\d+)\.\d+`), "time_total rounded: $1"},
	{regexp.MustCompile(`curl/[0-9.]+`), "curl/VERSION"},
	{regexp.MustCompile(`(127\.0\.0\.1|10\.77\.0\.2):(3[2-9]|[4-6]\d)\d{3}`), "$1:EPHEMERAL"},
	// duration and upstream time: only whether they are there, and that a second is one
	{regexp.MustCompile(`(" \d+ \d+) \d+ (\d+|-) "`), "$1 MS $2 \""},
	{regexp.MustCompile(`(MS) \d+ "`), "$1 MS \""},
	// the bytes of a handshake are the client's and the certificate's
	{regexp.MustCompile(`"-" \d+ \d+ MS (.* "127\.0\.3\.2:8443")`), "\"-\" BYTES BYTES MS $1"},
}

// lines are what is compared of a text, in order.
func lines(text string) []string {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	for _, v := range volatile {
		text = v.form.ReplaceAllString(text, v.with)
	}
	text = strings.Trim(text, "\n")
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// ownAddress gives the namespace the address of the observed machine, and a way out that
// leads nowhere, so that any address can be asked for.
func ownAddress(t *testing.T) {
	t.Helper()
	link := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "observed"}, PeerName: "nowhere"}
	addr, err := netlink.ParseAddr("10.77.0.2/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) })
	nowhere, err := netlink.LinkByName("nowhere")
	if err != nil {
		t.Fatal(err)
	}
	everywhere := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4zero, Mask: net.CIDRMask(0, 32)}, Scope: netlink.SCOPE_LINK, Src: net.IPv4(10, 77, 0, 2)}
	for _, step := range []func() error{
		func() error { return netlink.LinkSetUp(nowhere) }, func() error { return netlink.AddrAdd(link, addr) },
		func() error { return netlink.LinkSetUp(link) }, func() error { return netlink.RouteAdd(everywhere) },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

// startPart runs backends, our control plane on the observed input, and our proxy.
func startPart(t *testing.T, part string) *stage {
	t.Helper()
	name := map[string]string{"A": "httpbin.org", "B": "httpbin.org", "C": "ext.test", "D": "ext.test"}[part]
	for addr, backend := range map[string]string{"127.0.3.1:8000": name, "127.0.3.3:8000": "v1", "127.0.3.4:8000": "v2", "10.77.0.2:8000": "client"} {
		serveBackend(t, addr, backend, nil)
	}
	serveBackend(t, "127.0.3.2:8443", "edition.cnn.com", []string{"edition.cnn.com"})
	input, mesh := "gateway.yaml", "mesh.yaml"
	switch part {
	case "C":
		input, mesh = "sidecar.yaml", "mesh-registry-only.yaml"
	case "D":
		input = "sidecar.yaml"
	}
	admin := ports.One()
	node, mark := routerNode, ""
	if input == "sidecar.yaml" {
		node, mark = sidecarNode, sidecarMark
		capture(t)
	}
	_, xds, _ := strings.Cut(replayInput(t, part, input, mesh, node).Addr(), ":")
	text := fmt.Sprintf(bootstrap, node, admin, "DELTA_GRPC", grpcCluster("xds-grpc", xds), grpcCluster("sds-grpc", xds))
	text = strings.Replace(text, `"admin"`, mark+`"admin"`, 1)
	file := filepath.Join(t.TempDir(), "bootstrap.json")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &stage{fixture.Gateway{Admin: fmt.Sprintf("http://127.0.0.1:%d", admin)}}
	s.Process = fixture.Start(t, "lateen-proxy", []string{binary(t, "lateen-proxy"), "-c", file, "-l", "error", "--use-dynamic-base-id", "--drain-time-s", "1", "--file-flush-interval-msec", "20"})
	fixture.Eventually(t, "the proxy is ready", func() error {
		if _, err := s.Get("/ready"); err != nil {
			return err
		}
		page, err := s.Get("/stats?filter=listener_manager.total_listeners")
		if err == nil && (!strings.Contains(page, "total_listeners_warming: 0\n") || strings.Contains(page, "total_listeners_active: 0\n")) {
			err = fmt.Errorf("listeners:\n%s", page)
		}
		return err
	})
	return s
}

const (
	routerNode = `{"id": "router~10.77.0.2~istio-ingressgateway-1.istio-system~istio-system.svc.cluster.local", "cluster": "istio-ingressgateway.istio-system",
  "metadata": {"NAME": "istio-ingressgateway-1", "NAMESPACE": "istio-system", "LABELS": {"app": "istio-ingressgateway", "istio": "ingressgateway"},
  "ISTIO_VERSION": "1.32.0", "CLUSTER_ID": "Kubernetes", "INSTANCE_IPS": "10.77.0.2"}}`
	sidecarNode = `{"id": "sidecar~10.77.0.2~client-v1.default~default.svc.cluster.local", "cluster": "client.default",
  "metadata": {"NAME": "client-v1", "NAMESPACE": "default", "LABELS": {"app": "client", "version": "v1"}, "ISTIO_VERSION": "1.32.0", "CLUSTER_ID": "Kubernetes",
  "INSTANCE_IPS": "10.77.0.2", "INTERCEPTION_MODE": "REDIRECT"}}`
	sidecarMark = `"cluster_manager": {"upstream_bind_config": {"source_address": {"address": "0.0.0.0", "port_value": 0},
  "socket_options": [{"description": "mark", "level": 1, "name": 36, "int_value": 1337, "state": "STATE_PREBIND"}]}},
`
)

// capture sends connections to the sidecar, but those of its own mark and to loopback.
func capture(t *testing.T) {
	t.Helper()
	rules := `table ip observed { chain out { type nat hook output priority -100; meta mark 1337 return; ip daddr 127.0.0.0/8 return; meta l4proto tcp redirect to :15001; }; }`
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("nft", "delete", "table", "ip", "observed").Run() })
}

// policies are the kinds that part B was observed without.
var policies = regexp.MustCompile(`(?m)^kind: (AuthorizationPolicy|RequestAuthentication)$`)

// replayInput serves what a control plane generates from the observed input for an Envoy of
// the common build, which is what was observed.
func replayInput(t *testing.T, part, input, mesh, node string) *xdstest.Server {
	t.Helper()
	from := material.Path(t, "golden/behaviour")
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	docs := strings.Split(read(input), "\n---\n")
	if part == "B" {
		docs = slices.DeleteFunc(docs, policies.MatchString)
	}
	objects, problems := config.DecodeYAML(input, []byte(strings.Join(docs, "\n---\n")))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	mc, problems := config.DecodeMeshConfig(mesh, []byte(read(mesh)))
	if config.HasErrors(problems) {
		t.Fatal(problems)
	}
	n := &corepb.Node{}
	if err := protojson.Unmarshal([]byte(node), n); err != nil {
		t.Fatal(err)
	}
	for _, name := range commonBuild {
		n.Extensions = append(n.Extensions, &corepb.Extension{Name: name})
	}
	server := xdstest.New(t)
	for url, all := range generate(t, snapshots.Build(config.NewSet(1, objects), snapshots.Options{MeshConfig: mc}), n) {
		server.SetAll(url, all)
	}
	return server
}

// commonBuild are the extensions of it that the input can ask for.
var commonBuild = []string{
	"envoy.filters.http.rbac", "envoy.filters.network.rbac", "envoy.filters.http.jwt_authn", "envoy.filters.http.ext_authz", "envoy.filters.network.ext_authz",
	"envoy.filters.http.router", "envoy.filters.http.cors", "envoy.filters.http.fault", "envoy.filters.http.grpc_stats",
	"envoy.filters.network.http_connection_manager", "envoy.filters.network.tcp_proxy", "envoy.filters.listener.tls_inspector",
	"envoy.filters.listener.http_inspector", "envoy.filters.listener.original_dst", "envoy.access_loggers.file",
	"envoy.retry_host_predicates.previous_hosts", "envoy.transport_sockets.tls", "envoy.transport_sockets.raw_buffer",
}

// generate is all resources of one proxy, by type and name.
func generate(t *testing.T, s *snapshots.Snapshot, node *corepb.Node) map[string]map[string]proto.Message {
	t.Helper()
	p, err := snapshots.ParseProxy(node)
	if err != nil {
		t.Fatal(err)
	}
	scope := s.Scope(p)
	all := map[string]map[string]proto.Message{wellknown.ClusterType: {}, wellknown.EndpointType: {}, wellknown.ListenerType: {}, wellknown.RouteType: {}}
	for _, c := range compile.Clusters(s, scope, p) {
		all[wellknown.ClusterType][c.Name] = envoy.Cluster(c)
		if c.Discovery == ir.EDS {
			all[wellknown.EndpointType][c.Name] = envoy.Assignment(*compile.Endpoints(s, scope, p, c.Name))
		}
	}
	var names []string
	for _, l := range compile.Listeners(s, scope, p) {
		m := envoy.Listener(l)
		all[wellknown.ListenerType][l.Name] = m
		names = append(names, routesOf(m)...)
	}
	for _, r := range compile.Routes(s, scope, p, names...) {
		all[wellknown.RouteType][r.Name] = envoy.RouteConfiguration(*r)
	}
	return all
}

// routesOf are the route configurations that a listener names.
func routesOf(l *listenerpb.Listener) (names []string) {
	for _, ch := range append(l.GetFilterChains(), l.GetDefaultFilterChain()) {
		for _, f := range ch.GetFilters() {
			var c hcmpb.HttpConnectionManager
			if f.GetTypedConfig().MessageIs(&c) && f.GetTypedConfig().UnmarshalTo(&c) == nil && c.GetRds() != nil {
				names = append(names, c.GetRds().GetRouteConfigName())
			}
		}
	}
	return names
}

// serveBackend is the stand-in that the document describes.
func serveBackend(t *testing.T, addr, name string, tlsHosts []string) {
	t.Helper()
	var count atomic.Int64
	mux := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := count.Add(1)
		w.Header().Set("X-Backend", name)
		switch verb, arg, _ := strings.Cut(strings.TrimPrefix(r.URL.EscapedPath(), "/"), "/"); {
		case verb == "count":
			delete(w.Header(), "X-Backend")
			fmt.Fprintln(w, n)
		case strings.HasPrefix(r.URL.Path, "/status/"):
			code, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/status/"))
			w.WriteHeader(code)
			if code == http.StatusTeapot {
				fmt.Fprintln(w, "-=[ teapot ]=-")
			}
		case verb == "delay":
			seconds, _ := strconv.Atoi(arg)
			select {
			case <-time.After(time.Duration(seconds) * time.Second):
			case <-r.Context().Done():
			}
			fmt.Fprintln(w, "late")
		case verb == "close":
			panic(http.ErrAbortHandler)
		default:
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(map[string]any{"backend": name, "headers": r.Header, "host": r.Host, "method": r.Method, "path": r.RequestURI})
		}
	})
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mux, ReadHeaderTimeout: time.Minute}
	if tlsHosts == nil {
		go func() { _ = server.Serve(ln) }()
	} else {
		ca, err := testca.New()
		if err != nil {
			t.Fatal(err)
		}
		cert, err := ca.Certificate(tlsHosts...)
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = server.Serve(tlsListener(ln, cert)) }()
	}
	t.Cleanup(func() { _ = server.Close() })
}
