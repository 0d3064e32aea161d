package control_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corepb "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerpb "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/wellknown"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const gateway = `
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: web, namespace: default}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 80, name: http, protocol: HTTP}
    hosts: [httpbin.org]
`

const routes = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: default}
spec:
  hosts: [httpbin.org]
  gateways: [web]
  http:
  - directResponse: {status: 200, body: {string: "one"}}
`

// A plane is a control plane on a folder of the test's.
type plane struct {
	t        *testing.T
	dir      string
	mesh     string // path of the MeshConfig file
	server   *control.Server
	log      *syncBuffer
	sockets  string // directory
	page     string // socket of the pages
	finished chan error
	stop     context.CancelFunc
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// start runs a control plane on the files; change may alter its options.
func start(t *testing.T, files map[string]string, change func(*control.Options)) *plane {
	t.Helper()
	sockets, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	p := &plane{t: t, dir: t.TempDir(), log: &syncBuffer{}, sockets: sockets, finished: make(chan error, 1)}
	p.page = filepath.Join(sockets, "http")
	p.mesh = filepath.Join(t.TempDir(), "mesh.yaml")
	for name, text := range files {
		p.write(name, text)
	}
	log, err := logging.New(logging.Options{Output: p.log, Levels: "debug"})
	if err != nil {
		t.Fatal(err)
	}
	o := control.Options{
		Paths: []string{p.dir}, MeshConfig: p.mesh, Log: log,
		GRPC: "unix:" + filepath.Join(sockets, "grpc"), HTTP: "unix:" + filepath.Join(sockets, "http"),
		Debounce: control.Debounce{After: 5 * time.Millisecond, Max: time.Second},
	}
	if change != nil {
		change(&o)
	}
	if p.server, err = control.New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	p.stop = func() { cancel(); <-ended }
	go func() { p.finished <- p.server.Run(ctx); close(ended) }()
	t.Cleanup(func() {
		p.stop()
		if err := <-p.finished; err != nil {
			t.Errorf("Run: %v", err)
		}
		if t.Failed() {
			t.Log(p.log)
		}
	})
	return p
}

func (p *plane) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if name == "mesh.yaml" {
		path = p.mesh
	}
	if err := os.WriteFile(path+".part", []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(path+".part", path); err != nil {
		p.t.Fatal(err)
	}
}

// get reads a page.
func (p *plane) get(path string) (int, string) {
	p.t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", p.page)
	}}
	r, err := (&http.Client{Transport: tr}).Get("http://control" + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

// A proxy is a delta ADS client that acknowledges everything.
type proxy struct {
	t      *testing.T
	stream discoverypb.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
}

// connect subscribes a gateway to a type.
func (p *plane) connect(typeURL string, metadata map[string]any, names ...string) *proxy {
	p.t.Helper()
	all := map[string]any{"LABELS": map[string]any{"istio": "ingressgateway"}, "NAMESPACE": "istio-system"}
	maps.Copy(all, metadata)
	return p.connectAs("router~127.0.2.1~gw.istio-system~istio-system.svc.cluster.local", typeURL, all, names...)
}

// connectAs subscribes the proxy of a node id.
func (p *plane) connectAs(id, typeURL string, metadata map[string]any, names ...string) *proxy {
	p.t.Helper()
	meta, err := structpb.NewStruct(metadata)
	if err != nil {
		p.t.Fatal(err)
	}
	return p.connectNode(&corepb.Node{Id: id, Metadata: meta}, typeURL, names...)
}

// connectNode subscribes a node.
func (p *plane) connectNode(node *corepb.Node, typeURL string, names ...string) *proxy {
	p.t.Helper()
	return p.connectAt("unix:"+filepath.Join(p.sockets, "grpc"), node, typeURL, names...)
}

// connectAt subscribes a node in plain text.
func (p *plane) connectAt(address string, node *corepb.Node, typeURL string, names ...string) *proxy {
	p.t.Helper()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	p.t.Cleanup(func() { cancel(); conn.Close() })
	s, err := discoverypb.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	err = s.Send(&discoverypb.DeltaDiscoveryRequest{Node: node, TypeUrl: typeURL, ResourceNamesSubscribe: names})
	if err != nil {
		p.t.Fatal(err)
	}
	return &proxy{t: p.t, stream: s}
}

// next takes a response and acknowledges it, or refuses it with a text.
func (c *proxy) next(nack string) *discoverypb.DeltaDiscoveryResponse {
	c.t.Helper()
	m, err := c.stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	reply := &discoverypb.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}
	if nack != "" {
		reply.ErrorDetail = &statuspb.Status{Code: 3, Message: nack}
	}
	if err := c.stream.Send(reply); err != nil {
		c.t.Fatal(err)
	}
	return m
}

// text is a response's resources as JSON without spaces.
func text(t *testing.T, m *discoverypb.DeltaDiscoveryResponse) string {
	t.Helper()
	var all strings.Builder
	for _, r := range m.Resources {
		body, err := r.Resource.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := protojson.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := json.Compact(&b, raw); err != nil {
			t.Fatal(err)
		}
		all.Write(b.Bytes())
	}
	return all.String()
}

func has(t *testing.T, what, got, want string) {
	t.Helper()
	if !strings.Contains(got, want) {
		t.Errorf("%s has no %q:\n%s", what, want, got)
	}
}

func TestConfiguration(t *testing.T) {
	t.Run("EN-021 files of a directory reach a proxy, changes and removals too", func(t *testing.T) {
		p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": routes}, nil)
		c := p.connect(wellknown.RouteType, nil, "http.80")
		has(t, "RDS", text(t, c.next("")), `"inlineString":"one"`)
		p.write("routes.yaml", strings.Replace(routes, "one", "two", 1))
		has(t, "RDS", text(t, c.next("")), `"inlineString":"two"`)
		if err := os.Remove(filepath.Join(p.dir, "routes.yaml")); err != nil {
			t.Fatal(err)
		}
		has(t, "RDS", text(t, c.next("")), "blackhole")
	})
	t.Run("a broken file leaves the last good state and is shown as stale", func(t *testing.T) {
		p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": routes}, nil)
		p.write("routes.yaml", strings.Replace(routes, "directResponse: {status: 200", "directResponse: {statuss: 200", 1))
		stale := func(f control.FileStatus) bool { return f.Stale }
		wait(t, func() bool { return slices.ContainsFunc(p.server.Status().Files, stale) })
		has(t, "RDS", text(t, p.connect(wellknown.RouteType, nil, "http.80").next("")), `"inlineString":"one"`)
		st := p.server.Status()
		i := slices.IndexFunc(st.Files, stale)
		if i < 0 || filepath.Base(st.Files[i].Path) != "routes.yaml" {
			t.Fatalf("files %+v, want routes.yaml stale", st.Files)
		}
		pr := st.Files[i].Problems
		if len(pr) != 1 || !strings.HasSuffix(pr[0].Place, "routes.yaml:9") || pr[0].Object != "VirtualService default/web" ||
			!strings.Contains(pr[0].Hint, "status") {
			t.Errorf("problems %+v", pr)
		}
	})
	t.Run("a broken file leaves the last good state after a restart", func(t *testing.T) {
		state := t.TempDir()
		keep := func(o *control.Options) { o.State = state }
		p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": routes}, keep)
		p.connect(wellknown.RouteType, nil, "http.80").next("")
		p.write("routes.yaml", "kind: [")
		p.stop()
		again := start(t, nil, func(o *control.Options) { keep(o); o.Paths = []string{p.dir} })
		has(t, "RDS", text(t, again.connect(wellknown.RouteType, nil, "http.80").next("")), `"inlineString":"one"`)
	})
	t.Run("EN-020 the MeshConfig file is reloaded", func(t *testing.T) {
		p := start(t, map[string]string{"gateway.yaml": gateway, "mesh.yaml": "accessLogFile: /dev/stdout\n"}, nil)
		c := p.connect(wellknown.ListenerType, nil)
		has(t, "LDS", text(t, c.next("")), `"path":"/dev/stdout"`)
		p.write("mesh.yaml", "accessLogFile: /tmp/other.log\n")
		has(t, "LDS", text(t, c.next("")), `"path":"/tmp/other.log"`)
		p.write("mesh.yaml", "accessLogFile: [\n")
		p.write("gateway.yaml", strings.Replace(gateway, "number: 80", "number: 81", 1))
		has(t, "LDS", text(t, c.next("")), `"path":"/tmp/other.log"`)
		if pr := p.server.Status().Problems; len(pr) == 0 || !strings.Contains(pr[0].Place, "mesh.yaml") {
			t.Errorf("problems %+v, want one of mesh.yaml", pr)
		}
	})
	t.Run("the ConfigMap istio takes the file's place, settings go before both", func(t *testing.T) {
		cm := "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: istio, namespace: istio-system}\ndata:\n  mesh: |\n    accessLogFile: /tmp/map.log\n    accessLogFormat: from-map\n"
		files := map[string]string{"gateway.yaml": gateway, "mesh.yaml": "accessLogFile: /tmp/file.log\n", "map.yaml": cm}
		p := start(t, files, nil)
		has(t, "LDS", text(t, p.connect(wellknown.ListenerType, nil).next("")), `"path":"/tmp/map.log"`)
		q := start(t, files, func(o *control.Options) { o.Set = []string{"meshConfig.accessLogFile=/tmp/set.log"} })
		got := text(t, q.connect(wellknown.ListenerType, nil).next(""))
		has(t, "LDS", got, `"path":"/tmp/set.log"`)
		has(t, "LDS", got, "from-map")
	})
	t.Run("problems of settings and of the file are told apart", func(t *testing.T) {
		p := start(t, map[string]string{"mesh.yaml": "\n\nnosuch: 1\n"}, func(o *control.Options) {
			o.Set = []string{"meshConfig.accesLogFile=/dev/stdout"}
		})
		p.connect(wellknown.ClusterType, nil).next("") // the mesh is built
		var got []string
		for _, pr := range p.server.Status().Problems {
			got = append(got, filepath.Base(pr.Place)+" "+pr.Field)
		}
		if want := []string{"mesh.yaml:3 nosuch", ". meshConfig.accesLogFile"}; !slices.Equal(got, want) {
			t.Errorf("problems at %q, want %q", got, want)
		}
	})
}

// A VirtualService that a Sidecar imports brings in the services that it routes to, so
// a change of it reaches clusters and endpoints.
func TestImportedRoutes(t *testing.T) {
	const scope = `
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: default, namespace: client}
spec:
  egress: [{hosts: [routes/*]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: one, namespace: apps}
spec:
  hosts: [one.test]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 10.0.0.1}]
`
	const imported = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: front, namespace: routes}
spec:
  hosts: [front.test]
  http:
  - route: [{destination: {host: one.test}}]
`
	p := start(t, map[string]string{"scope.yaml": scope}, nil)
	const id, cluster = "sidecar~10.1.1.1~web.client~client.svc.cluster.local", "outbound|80||one.test"
	cds := p.connectAs(id, wellknown.ClusterType, nil)
	if first := text(t, cds.next("")); strings.Contains(first, cluster) {
		t.Fatalf("CDS has %s before anything imports it:\n%s", cluster, first)
	}
	eds := p.connectAs(id, wellknown.EndpointType, nil, cluster)
	if first := eds.next(""); len(first.Resources) != 0 {
		t.Fatalf("EDS has %s before anything imports it", cluster)
	}
	p.write("routes.yaml", imported)
	has(t, "CDS", text(t, cds.next("")), `"name":"`+cluster+`"`)
	has(t, "EDS", text(t, eds.next("")), `"address":"10.0.0.1"`)
}

func TestNew(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, c := range []struct {
		name, want string
		o          control.Options
	}{
		{"a path that does not exist", "no-such-dir", control.Options{Paths: []string{"no-such-dir"}}},
		{"an address in use", "--httpAddr: listen tcp " + busy.Addr().String(), control.Options{HTTP: busy.Addr().String()}},
		{"a setting outside meshConfig", "must be meshConfig.FIELD=VALUE", control.Options{Set: []string{"values.x=1"}}},
		{"a setting without a value", "must be meshConfig.FIELD=VALUE", control.Options{Set: []string{"meshConfig.accessLogFile"}}},
		{"a setting of the wrong type", "--set meshConfig.enableTracing: must be true or false", control.Options{Set: []string{"meshConfig.enableTracing=maybe"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.Log = logging.Discard()
			if _, err := control.New(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	t.Run("EN-024 empty addresses are off, a stale socket file is replaced", func(t *testing.T) {
		p := start(t, map[string]string{"gateway.yaml": gateway}, func(o *control.Options) { o.Monitoring = "" })
		if n := len(p.server.HTTPAddrs()); n != 1 {
			t.Errorf("%d HTTP addresses, want 1", n)
		}
		p.stop()
		stale, err := net.Listen("unix", filepath.Join(p.sockets, "stale"))
		if err != nil {
			t.Fatal(err)
		}
		stale.(*net.UnixListener).SetUnlinkOnClose(false)
		stale.Close()
		again := start(t, nil, func(o *control.Options) {
			o.HTTP, o.GRPC = "unix:"+filepath.Join(p.sockets, "stale"), ""
		})
		if again.server.GRPCAddr() != nil {
			t.Error("the discovery service has an address although it is off")
		}
		again.page = filepath.Join(p.sockets, "stale")
		if status, _ := again.get("/version"); status != http.StatusOK {
			t.Errorf("/version: %d", status)
		}
	})
}

func TestPublish(t *testing.T) {
	on := func(port, name string) string {
		return "---" + strings.NewReplacer("name: web", "name: "+name, "number: 80", "number: "+port).Replace(gateway)
	}
	p := start(t, map[string]string{"gateway.yaml": gateway + on("81", "low") + on("9000", "high")}, nil)
	c := p.connect(wellknown.ListenerType, map[string]any{"LATEEN_PUBLISH": "80=8080", "LATEEN_PUBLISH_OFFSET": "8000"})
	got := map[string]uint32{}
	for _, r := range c.next("").Resources {
		var l listenerpb.Listener
		if err := r.Resource.UnmarshalTo(&l); err != nil {
			t.Fatal(err)
		}
		got[l.Name] = l.GetAddress().GetSocketAddress().GetPortValue()
	}
	want := map[string]uint32{"0.0.0.0_80": 8080, "0.0.0.0_81": 8081, "0.0.0.0_9000": 9000}
	if !maps.Equal(got, want) {
		t.Errorf("sockets %v, want %v", got, want)
	}
	t.Run("the address that a Gateway binds is shown", func(t *testing.T) {
		p := start(t, map[string]string{"gateway.yaml": strings.Replace(gateway, "  - port:", "  - bind: 127.0.0.1\n    port:", 1)}, nil)
		p.connect(wellknown.ListenerType, nil).next("")
		ports := p.server.Status().Proxies[0].Listeners
		if len(ports) != 1 || ports[0].Address != "127.0.0.1" || len(ports[0].Objects) != 1 {
			t.Errorf("ports %+v, want one at 127.0.0.1 with its Gateway", ports)
		}
	})
}

func TestMissingSecret(t *testing.T) {
	p := start(t, map[string]string{"gateway.yaml": gateway}, nil)
	c := p.connect(wellknown.SecretType, nil, "kubernetes://web-cert")
	if m := c.next(""); !slices.Equal(m.RemovedResources, []string{"kubernetes://web-cert"}) || len(m.Resources) != 0 {
		t.Fatalf("response %v, want web-cert removed", m)
	}
	problems := p.server.Status().Problems
	if len(problems) != 1 || problems[0].Object != "kubernetes://web-cert" || !strings.Contains(problems[0].Message, "istio-system/web-cert") {
		t.Errorf("problems %+v", problems)
	}
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue("httpbin.org")
	if err != nil {
		t.Fatal(err)
	}
	p.write("secret.yaml", fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: web-cert, namespace: istio-system}\ntype: kubernetes.io/tls\nstringData: {tls.crt: %q, tls.key: %q}\n", cert, key))
	if m := c.next(""); len(m.Resources) != 1 || m.Resources[0].Name != "kubernetes://web-cert" {
		t.Errorf("response has %d resources, want web-cert", len(m.Resources))
	}
	wait(t, func() bool { return len(p.server.Status().Problems) == 0 })
}

func TestResolvers(t *testing.T) {
	entry := "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: ext, namespace: default}\nspec:\n  hosts: [httpbin.org]\n  ports: [{number: 80, name: http, protocol: HTTP}]\n  resolution: DNS\n"
	p := start(t, map[string]string{"entry.yaml": entry}, nil)
	got := text(t, p.connect(wellknown.ClusterType, map[string]any{"LATEEN_RESOLVERS": "127.0.0.1:5353"}).next(""))
	has(t, "CDS", got, `"resolvers":[{"socketAddress":{"address":"127.0.0.1","portValue":5353}}]`)
	if plain := text(t, p.connect(wellknown.ClusterType, nil).next("")); strings.Contains(plain, `"resolvers"`) {
		t.Errorf("resolvers without metadata:\n%s", plain)
	}
}

func TestPages(t *testing.T) {
	p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": routes, "b.yaml": strings.NewReplacer("STATIC", "NONE", "  endpoints: [{address: 127.0.0.1}]\n", "").Replace(cluster),
		"secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  namespace: default\n" +
			"  annotations: {kubectl.kubernetes.io/last-applied-configuration: very-secret}\nstringData: {password: very-secret}\n"}, nil)
	c := p.connect(wellknown.ListenerType, nil)
	c.next("")
	r := p.connect(wellknown.RouteType, nil, "http.80")
	r.next("route http.80: not this one")
	wait(t, func() bool { return strings.Contains(p.log.String(), "NACK") })
	for _, page := range []struct{ name, path, want string }{
		{"EN-011 ready", "/ready", "ok"},
		{"version", "/version", wellknown.Version()},
		{"metrics", "/metrics", "pilot_xds_pushes{type=\"lds\"} 1"},
		{"metrics count services", "/metrics", "pilot_virt_services 1"},
		{"OB-046 metrics count what pushes are for", "/metrics", "pilot_push_triggers{type=\"global\"} 1"},
		{"OB-046 metrics count what cannot be made", "/metrics", "pilot_total_xds_internal_errors 0"},
		{"syncz", "/debug/syncz", `"proxy": "gw.istio-system"`},
		{"syncz nonces", "/debug/syncz", `"listener_acked": "1"`},
		{"adsz", "/debug/adsz", `"totalClients": 2`},
		{"connections", "/debug/connections", `"connectionId": "gw.istio-system-`},
		{"configz", "/debug/configz", `"kind": "VirtualService"`},
		{"configz place", "/debug/configz", `gateway.yaml:2"`},
		{"OB-050 registryz", "/debug/registryz", `"hostname": "b.example"`},
		{"OB-050 registryz counts resolutions as Istio", "/debug/registryz", `"Resolution": 2`},
		{"OB-050 clusterz", "/debug/clusterz", `"syncStatus": "synced"`},
		{"OB-051 endpointz", "/debug/endpointz", `"svc": "b.example:http"`},
		{"mesh", "/debug/mesh", `"rootNamespace": "istio-system"`},
		{"config_dump", "/debug/config_dump?proxyID=gw.istio-system", `"name": "0.0.0.0_80"`},
		{"config_dump without a proxy", "/debug/config_dump", "say which proxy"},
		{"config_dump of nobody", "/debug/config_dump?proxyID=none", "no proxy none is connected"},
		{"list", "/debug/list", "/debug/syncz"},
		{"logging", "/debug/logging", "default:debug"},
		{"logging is set with POST only", "/debug/logging?level=ads:info", "POST"},
		{"status names the refused resource", "/debug/status", `"resource": "http.80"`},
		{"status has the proxy's error", "/debug/status", "not this one"},
		{"status has the gateway's ports", "/debug/status", `"hostPort": 80`},
	} {
		t.Run(page.name, func(t *testing.T) {
			_, body := p.get(page.path)
			has(t, page.path, body, page.want)
			if strings.Contains(body, "very-secret") {
				t.Error("a secret is shown")
			}
		})
	}
}

func TestLocalPages(t *testing.T) {
	l, err := net.Listen("tcp", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	start(t, nil, func(o *control.Options) { o.HTTP = fmt.Sprintf("0.0.0.0:%d", port) })
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	status := func(host, path string) int {
		var reply *http.Response
		wait(t, func() bool {
			var err error
			reply, err = client.Get(fmt.Sprintf("http://%s%s", net.JoinHostPort(host, fmt.Sprint(port)), path))
			return err == nil
		})
		reply.Body.Close()
		return reply.StatusCode
	}
	if got := status("127.0.0.1", "/debug/configz"); got != http.StatusOK {
		t.Errorf("from loopback: %d, want 200", got)
	}
	other := outsideAddress()
	if other == "" {
		t.Skip("this machine has no address beside loopback to call from")
	}
	if got := status(other, "/debug/configz"); got != http.StatusForbidden {
		t.Errorf("from %s: %d, want 403", other, got)
	}
	wait(t, func() bool { return status(other, "/ready") == http.StatusOK })
}

func outsideAddress() string {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() && n.IP.To4() != nil {
			return n.IP.String()
		}
	}
	return ""
}

// wait polls until a condition holds; the test's own time limit bounds it.
func wait(t *testing.T, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); {
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
		time.Sleep(2 * time.Millisecond)
	}
}
