package control_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/test/ports"
)

const cluster = `
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: b, namespace: default}
spec:
  hosts: [b.example]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 127.0.0.1}]
`

const limits = `
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: b, namespace: default}
spec:
  host: b.example
  trafficPolicy: {connectionPool: {tcp: {maxConnections: 77}}}
`

// A foreign is a real Envoy under a control plane of the test.
type foreign struct {
	t     *testing.T
	admin string
}

// gatewayNode is that of a gateway without an agent.
func gatewayNode(publish string) string {
	return fmt.Sprintf(`{id: router~127.0.2.1~gw.istio-system~istio-system.svc.cluster.local, cluster: gw,
  metadata: {NAMESPACE: istio-system, LABELS: {istio: ingressgateway}, LATEEN_PUBLISH: %q}}`, publish)
}

// startEnvoy runs the Envoy that `make peers` installs, until the test ends.
func startEnvoy(t *testing.T, apiType, socket, node string) *foreign {
	t.Helper()
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, _ := os.UserHomeDir()
		cache = filepath.Join(home, ".cache")
	}
	program := filepath.Join(cache, "lateen", "envoy-1.40.0", "envoy")
	if _, err := os.Stat(program); err != nil {
		t.Skip("the real Envoy is not installed: make peers")
	}
	port := ports.One()
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	text := fmt.Sprintf(`
node: %s
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}
dynamic_resources:
  lds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  cds_config: {ads: {}, initial_fetch_timeout: 0s, resource_api_version: V3}
  ads_config: {api_type: %s, transport_api_version: V3, set_node_on_first_message_only: true, grpc_services: [{envoy_grpc: {cluster_name: xds}}]}
static_resources:
  clusters:
  - name: xds
    type: STATIC
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %q}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`, node, port, apiType, socket)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out syncBuffer
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, program, "-c", file, "--use-dynamic-base-id", "--concurrency", "1", "-l", "error")
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return &foreign{t, fmt.Sprintf("http://127.0.0.1:%d", port)}
}

// get reads a page, "" while there is none.
func (f *foreign) get(url string) string {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := client.Get(url)
	if err != nil {
		return ""
	}
	defer r.Body.Close()
	body, _ := io.ReadAll(r.Body)
	return string(body)
}

// settled waits until clusters has the text, or not, and nothing is warming.
func (f *foreign) settled(text string, there bool) {
	f.t.Helper()
	wait(f.t, func() bool {
		clusters := f.get(f.admin + "/clusters")
		return clusters != "" && strings.Contains(clusters, text) == there &&
			strings.Contains(f.get(f.admin+"/stats?filter=warming_clusters"), "warming_clusters: 0")
	})
}

func TestForeignEnvoy(t *testing.T) {
	for _, form := range []struct{ name, apiType string }{{"delta", "DELTA_GRPC"}, {"state of the world", "GRPC"}} {
		t.Run("EN-057 "+form.name, func(t *testing.T) {
			p := start(t, map[string]string{"gateway.yaml": gateway, "routes.yaml": routes, "b.yaml": cluster}, nil)
			port := ports.One()
			e := startEnvoy(t, form.apiType, filepath.Join(p.sockets, "grpc"), gatewayNode(fmt.Sprintf("80=%d", port)))
			page := fmt.Sprintf("http://127.0.0.1:%d/", port)
			reply := func(want string) {
				t.Helper()
				wait(t, func() bool {
					r, err := http.NewRequest(http.MethodGet, page, nil)
					if err != nil {
						t.Fatal(err)
					}
					r.Host = "httpbin.org"
					client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
					got, err := client.Do(r)
					if err != nil {
						return false
					}
					defer got.Body.Close()
					body, _ := io.ReadAll(got.Body)
					return string(body) == want
				})
			}
			reply("one")
			e.settled("outbound|80||b.example::127.0.0.1:80", true)
			p.write("limits.yaml", limits) // a changed cluster warms with endpoints that have not changed
			e.settled("max_connections::77", true)
			p.write("routes.yaml", strings.Replace(routes, "one", "two", 1))
			reply("two")
			if err := os.Remove(filepath.Join(p.dir, "b.yaml")); err != nil {
				t.Fatal(err)
			}
			e.settled("b.example", false)

			p.stop() // the proxy serves on, and catches up with what comes next
			reply("two")
			p.write("routes.yaml", strings.Replace(routes, "one", "three", 1))
			p.write("b.yaml", cluster)
			again := start(t, nil, func(o *control.Options) {
				o.Paths, o.GRPC = []string{p.dir}, "unix:"+filepath.Join(p.sockets, "grpc")
			})
			reply("three")
			e.settled("max_connections::77", true)
			for _, c := range again.server.Status().Proxies {
				if len(c.Refused) > 0 {
					t.Errorf("refused: %+v", c.Refused)
				}
			}
		})
	}
}

// What an application behind a stock Envoy sends arrives with the headers that the mesh's
// own proxies add.
func TestForeignSidecarHeaders(t *testing.T) {
	received := make(chan http.Header, 1)
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { received <- r.Header }))
	defer app.Close()
	port := ports.One()
	service := fmt.Sprintf(`
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: web, namespace: default}
spec:
  hosts: [web.default.svc.cluster.local]
  location: MESH_INTERNAL
  resolution: STATIC
  ports: [{number: %d, name: http, protocol: HTTP}]
  endpoints: [{address: 127.0.0.1, ports: {http: %s}}]
`, port, app.URL[strings.LastIndexByte(app.URL, ':')+1:])
	p := start(t, map[string]string{"web.yaml": service}, nil)
	const id = "sidecar~10.244.0.9~sleep-1.default~default.svc.cluster.local"
	startEnvoy(t, "DELTA_GRPC", filepath.Join(p.sockets, "grpc"), `{id: `+id+`, cluster: sleep.default, metadata: {
  NAME: sleep-1, NAMESPACE: default, INTERCEPTION_MODE: NONE, PILOT_SAN: [istiod], LABELS: {app: sleep}, PROXY_CONFIG: {private: {}}}}`)
	got := http.Header{}
	wait(t, func() bool {
		r, err := http.NewRequest(http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/", port), nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = "web.default"
		reply, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
		if err != nil {
			return false
		}
		reply.Body.Close()
		got = <-received
		return true
	})
	for _, tc := range []struct{ name, header, pattern string }{
		{"OB-038 WI-004 the trace", "X-B3-Traceid", "^[0-9a-f]{32}$"},
		{"OB-038 WI-004 the span", "X-B3-Spanid", "^[0-9a-f]{16}$"},
		{"OB-038 WI-004 the decision", "X-B3-Sampled", "^[01]$"},
		{"OB-039 WI-004 the request", "X-Request-Id", "^[0-9a-f-]{36}$"},
		{"OB-044 WI-004 the operation", "X-Envoy-Decorator-Operation", fmt.Sprintf(`^web\.default\.svc\.cluster\.local:%d/\*$`, port)},
		{"WI-004 the attempt", "X-Envoy-Attempt-Count", "^1$"},
		{"OB-013 WI-004 who sends", "X-Envoy-Peer-Metadata-Id", "^" + regexp.QuoteMeta(id) + "$"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if !regexp.MustCompile(tc.pattern).MatchString(got.Get(tc.header)) {
				t.Errorf("%s: %q, want %s", tc.header, got.Get(tc.header), tc.pattern)
			}
		})
	}
	t.Run("OB-013 WI-004 what is known of the sender", func(t *testing.T) {
		raw, err := base64.StdEncoding.DecodeString(got.Get("X-Envoy-Peer-Metadata"))
		if err != nil {
			t.Fatal(err)
		}
		var m structpb.Struct
		if err := proto.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		want := map[string]any{"NAME": "sleep-1", "NAMESPACE": "default", "LABELS": map[string]any{
			"app": "sleep", "service.istio.io/canonical-name": "sleep", "service.istio.io/canonical-revision": "latest"}}
		if diff := cmp.Diff(want, m.AsMap()); diff != "" {
			t.Error(diff)
		}
	})
	if trace, span := got.Get("X-B3-Traceid"), got.Get("X-B3-Spanid"); !strings.HasSuffix(trace, span) {
		t.Errorf("the root span %s is not the end of its trace %s", span, trace)
	}
}

func TestMonitoring(t *testing.T) {
	port := ports.One()
	start(t, map[string]string{"gateway.yaml": gateway}, func(o *control.Options) { o.Monitoring = fmt.Sprintf("127.0.0.1:%d", port) })
	f := &foreign{t: t}
	for path, want := range map[string]string{"/metrics": "pilot_info{version=", "/version": "\n", "/debug/configz": `"kind": "Gateway"`} {
		t.Run("EN-009 monitoring has "+path, func(t *testing.T) {
			body := ""
			wait(t, func() bool { body = f.get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path)); return body != "" })
			has(t, path, body, want)
		})
	}
}
