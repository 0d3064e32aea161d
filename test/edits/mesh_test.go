package edits

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/control"
	"github.com/lateen-mesh/lateen/logging"
	"github.com/lateen-mesh/lateen/test/fixture"
	"github.com/lateen-mesh/lateen/test/ports"
)

// A mesh is a control plane on a folder, two gateways and a sidecar: proxies that speak
// either form of the protocol.
type mesh struct {
	t        *testing.T
	dir      string
	server   *control.Server
	backends []int
	port     int // of all services
	proxies  []*proxy
	files    map[string]string
}

type proxy struct {
	*fixture.Process
	name  string
	admin string         // base of its admin pages
	ports map[string]int // by via
}

func (p *proxy) address(via string) string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.ports[via]))
}

// at are the proxies that a target can be asked of.
func (m *mesh) at(via string) (list []*proxy) {
	for _, p := range m.proxies {
		if p.ports[via] != 0 {
			list = append(list, p)
		}
	}
	return list
}

// start runs the mesh until the test ends and returns when the configuration is in force.
func start(t *testing.T, peer fixture.Peer, c *config) *mesh {
	t.Helper()
	free := ports.Claim(9)
	m := &mesh{t: t, dir: t.TempDir(), backends: backends(t), port: free[0]}
	m.write(c)
	m.control(fmt.Sprintf("127.0.0.1:%d", free[1]))
	for i, apiType := range []string{"DELTA_GRPC", "GRPC"} {
		p := &proxy{name: "gateway, " + apiType, ports: map[string]int{atGateway: free[2+2*i], atMore: free[3+2*i]}}
		node := fmt.Sprintf(`{id: router~127.0.2.%d~gw-%d.istio-system~istio-system.svc.cluster.local, cluster: gw,
  metadata: {NAME: gw-%d, NAMESPACE: istio-system, LABELS: {istio: ingressgateway}, LATEEN_PUBLISH: "80=%d,8080=%d"}}`,
			i+1, i+1, i+1, p.ports[atGateway], p.ports[atMore])
		m.run(p, peer, apiType, node, free[1], free[6+i])
	}
	p := &proxy{name: "sidecar", ports: map[string]int{atSidecar: m.port}}
	m.run(p, peer, []string{"DELTA_GRPC", "GRPC"}[os.Getpid()%2], `{id: sidecar~127.0.3.1~sleep-1.default~default.svc.cluster.local, cluster: sleep.default,
  metadata: {NAME: sleep-1, NAMESPACE: default, INTERCEPTION_MODE: NONE, LABELS: {app: sleep}}}`, free[1], free[8])
	for _, p := range m.proxies { // that have what they began with, and take connections
		fixture.Eventually(t, p.name+" is ready", p.ready)
	}
	m.delivered()
	return m
}

func (p *proxy) ready() error {
	reply, err := http.Get(p.admin + "/ready")
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	if reply.StatusCode != http.StatusOK {
		return errors.New(reply.Status)
	}
	return nil
}

// control runs a control plane that builds when it is asked to, so that an edit is one
// generation however slowly its files are written.
func (m *mesh) control(address string) {
	log, err := logging.New(logging.Options{Output: m.t.Output(), Levels: "default:warn"})
	if err != nil {
		m.t.Fatal(err)
	}
	meshFile := filepath.Join(m.t.TempDir(), "mesh.yaml")
	text := "accessLogFile: /dev/stdout\naccessLogFormat: \"%START_TIME% %REQ(X-NUMBER)% %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %UPSTREAM_CLUSTER% %UPSTREAM_HOST%\\n\"\n"
	if err := os.WriteFile(meshFile, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.server, err = control.New(control.Options{Paths: []string{m.dir}, MeshConfig: meshFile, Log: log, GRPC: address,
		Debounce: control.Debounce{After: time.Hour, Max: time.Hour}})
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- m.server.Run(ctx) }()
	m.t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			m.t.Errorf("control plane: %v", err)
		}
	})
}

// run starts a proxy and waits until it is ready.
func (m *mesh) run(p *proxy, peer fixture.Peer, apiType, node string, xds, admin int) {
	m.t.Helper()
	file := filepath.Join(m.t.TempDir(), "proxy.yaml")
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
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`, node, admin, apiType, xds)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	p.admin = fmt.Sprintf("http://127.0.0.1:%d", admin)
	p.Process = fixture.Start(m.t, peer.Name+", "+p.name, append(append([]string{}, peer.Argv...),
		"-c", file, "--concurrency", "1", "-l", "error", "--drain-time-s", "5", "--use-dynamic-base-id"), peer.Env...)
	m.proxies = append(m.proxies, p)
}

// write brings the folder from the configuration before to this one, in the worst order. It
// reports whether anything differs.
func (m *mesh) write(c *config) bool {
	m.t.Helper()
	next := c.files(m.port, m.backends)
	names := worst(m.files, next)
	for _, name := range names {
		path := filepath.Join(m.dir, name)
		text, stays := next[name]
		var err error
		if stays {
			err = errors.Join(os.WriteFile(path+".part", []byte(text), 0o600), os.Rename(path+".part", path))
		} else {
			err = os.Remove(path)
		}
		if err != nil {
			m.t.Fatal(err)
		}
	}
	m.files = next
	return len(names) > 0
}

// delivered waits until all proxies have what was written.
func (m *mesh) delivered() {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
	defer cancel()
	d, err := m.server.Wait(ctx, 0, "")
	if err != nil || !d.Done() || d.Proxies != len(m.proxies) {
		m.t.Fatalf("not delivered: %+v: %v", d, err)
	}
}

// built waits until what was written is a generation, which nobody may have yet.
func (m *mesh) built() {
	before := m.server.Status().Generation
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	go func() { _, _ = m.server.Wait(ctx, 0, "") }()
	fixture.Eventually(m.t, "a generation", func() error {
		if m.server.Status().Generation == before {
			return errors.New("is not built")
		}
		return nil
	})
}
