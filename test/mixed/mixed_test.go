// Package mixed holds the proxy under traffic of every kind while everything about it
// changes: HTTP/1.1, HTTP/2, gRPC, WebSocket, TCP and TLS, with listeners, routes,
// clusters, endpoints and secrets replaced twice a second and backends that fail.
package mixed

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/proxy/xds/xdstest"
	"github.com/lateen-mesh/lateen/samples/testca"
	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/ports"
)

var duration = flag.Duration("mixed", 6*time.Second, "how long TestMixedLoad lasts; heap is judged from 3 minutes on")

// TestMixedLoad: a request is lost only when a backend fails under it, no change closes a
// stream that is open, and the heap does not grow.
func TestMixedLoad(t *testing.T) {
	m := start(t)
	l := &load{m: m}
	l.run(t)
	stop := time.After(*duration)
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	shakes := time.NewTicker(1700 * time.Millisecond)
	defer shakes.Stop()
	var heaps []uint64
	heap := time.NewTicker(time.Minute / looks)
	defer heap.Stop()
	for open := true; open; {
		select {
		case <-tick.C:
			m.change(t)
		case <-shakes.C:
			m.shaky[rand.IntN(len(m.shaky))].fail()
		case <-heap.C:
			heaps = append(heaps, m.heap(t))
		case <-stop:
			open = false
		}
	}
	l.end(t)
	m.server.Settle(t, clusterURL)
	for _, url := range []string{listenerURL, routeURL, clusterURL, endpointURL, secretURL} {
		for _, r := range m.server.Requests(url) {
			if r.Error != nil {
				t.Errorf("NACK: %s", r.Error.GetMessage())
			}
		}
	}
	judgeHeap(t, heaps)
	if t.Failed() {
		t.Logf("what the proxy has counted:\n%s", m.page(t, "/stats?usedonly&filter=ssl|listener|downstream|overflow|pending"))
	}
}

// looks is how often the heap is looked at, each minute.
const looks = 240

// judgeHeap compares the live heap of the second minute with the last one's. What is
// alive is what the heap holds just after a collection: the least of many looks.
func judgeHeap(t *testing.T, heaps []uint64) {
	if len(heaps) < 3*looks {
		t.Logf("%d looks at the heap: too short a run to judge it", len(heaps))
		return
	}
	first, last := least(heaps[looks:2*looks]), least(heaps[len(heaps)-looks:])
	t.Logf("live heap: %d bytes in the second minute, %d in the last", first, last)
	if float64(last) > 1.05*float64(first) {
		t.Errorf("the heap grows: %d bytes in the second minute, %d in the last", first, last)
	}
}

// least is the mean of the smallest twentieth, so that one look does not decide.
func least(heaps []uint64) (mean uint64) {
	sorted := slices.Sorted(slices.Values(heaps))
	few := sorted[:max(1, len(sorted)/20)]
	for _, h := range few {
		mean += h / uint64(len(few))
	}
	return mean
}

// A mesh is a proxy under a control plane of the test, and the backends behind it.
type mesh struct {
	server *xdstest.Server
	ca     *testca.CA
	dir    string
	ports  []int // http, tls, tcp, admin
	steady []*backend
	shaky  []*backend
	echo   *backend // of bytes
	n      int      // the generation of the configuration
}

func start(t *testing.T) *mesh {
	t.Helper()
	ca, err := testca.New()
	if err != nil {
		t.Fatal(err)
	}
	m := &mesh{server: xdstest.New(t), ca: ca, dir: t.TempDir(), ports: ports.Claim(4)}
	for range 3 {
		m.steady = append(m.steady, newBackend(t))
		m.shaky = append(m.shaky, newBackend(t))
	}
	m.echo = newEcho(t)
	m.change(t)
	m.launch(t)
	return m
}

// launch starts the proxy and waits until it is ready.
func (m *mesh) launch(t *testing.T) {
	t.Helper()
	host, port, _ := strings.Cut(m.server.Addr(), ":")
	bootstrap := fmt.Sprintf(`{"node": {"id": "mixed", "cluster": "mixed"},
 "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": %d}}},
 "dynamic_resources": {"ads_config": {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [{"envoy_grpc": {"cluster_name": "xds"}}]},
  "lds_config": {"ads": {}, "resource_api_version": "V3"}, "cds_config": {"ads": {}, "resource_api_version": "V3"}},
 "static_resources": {"clusters": [{"name": "xds", "type": "STATIC", "connect_timeout": "1s",
  "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
   "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": {"http2_protocol_options": {}}}},
  "load_assignment": {"cluster_name": "xds", "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}}]}]}}]}}`,
		m.ports[3], host, port)
	file := filepath.Join(m.dir, "bootstrap.json")
	if err := os.WriteFile(file, []byte(bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(m.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(build.Command(t, "lateen-proxy"), "-c", file, "--use-dynamic-base-id", "-l", "warning", "--drain-time-s", "2")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if text, err := os.ReadFile(log.Name()); err == nil && t.Failed() {
			t.Logf("the proxy said:\n%s", text[max(0, len(text)-8000):])
		}
	})
	for range 300 {
		if resp, err := http.Get(m.admin("/ready")); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the proxy does not become ready")
}

func (m *mesh) admin(path string) string {
	return fmt.Sprintf("http://127.0.0.1:%d%s", m.ports[3], path)
}

// page is a page of the proxy's admin API.
func (m *mesh) page(t *testing.T, path string) []byte {
	t.Helper()
	resp, err := http.Get(m.admin(path))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// heap is what the proxy's heap holds, garbage included.
func (m *mesh) heap(t *testing.T) uint64 {
	t.Helper()
	text := m.page(t, "/memory")
	var page struct {
		Allocated uint64 `json:"allocated,string"`
	}
	if err := json.Unmarshal(text, &page); err != nil || page.Allocated == 0 {
		t.Fatalf("%v: %s", err, text)
	}
	return page.Allocated
}
