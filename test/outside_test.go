package test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/local/outside"
	"github.com/lateen-mesh/lateen/proxy"
)

// An outdoors is the machine around one pod: whatever is dialled is one site, and port
// 8080 of the pod is published.
type outdoors struct {
	site      string
	published *net.TCPListener
}

func (o outdoors) Knows(outside.Namespace) bool { return true }

func (o outdoors) Ranges() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
}

func (o outdoors) Dial(_ context.Context, _ string, to netip.AddrPort) (*os.File, error) {
	if to.Port() == 81 {
		return nil, &outside.Error{Errno: syscall.ECONNREFUSED}
	}
	c, err := net.Dial("tcp", o.site)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*net.TCPConn).File()
}

func (o outdoors) Published(_ context.Context, _ outside.Namespace, port uint16) (*os.File, netip.AddrPort, error) {
	if port != 18080 {
		return nil, netip.AddrPort{}, outside.Unpublished(port)
	}
	f, err := o.published.File()
	return f, o.published.Addr().(*net.TCPAddr).AddrPort(), err
}

// TestSocketsFromOutside: the proxy and the engine's outside half speak one protocol. A
// client of this machine is served on the published port, under its own address, and
// the proxy reaches sites that its own network has no way to.
func TestSocketsFromOutside(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "site") }))
	t.Cleanup(site.Close)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	path := filepath.Join(t.TempDir(), "outside.sock")
	door, err := outside.OpenDoor(path, outdoors{site.Listener.Addr().String(), ln.(*net.TCPListener)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = door.Close() })
	log := filepath.Join(t.TempDir(), "log")
	runOutdoors(t, path, log)
	client := &http.Client{Timeout: answerTime}
	t.Cleanup(client.CloseIdleConnections)
	get := func(path string) (string, int) {
		r, err := client.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(body), r.StatusCode
	}
	if body, status := get("/"); status != 200 || body != "site" {
		t.Errorf("%d %q", status, body)
	}
	if body, status := get("/refused"); status != 503 || body != "upstream connect error or disconnect/reset before headers. reset reason: remote connection failure" {
		t.Errorf("%d %q", status, body)
	}
	if _, status := get("/inside"); status != 503 && status != 504 {
		t.Errorf("an address of the mesh was reached from outside: %d", status)
	}
}

// runOutdoors runs a proxy with a listener on port 18080 that nobody can reach but by the
// published socket, and clusters of addresses outside and inside.
func runOutdoors(t *testing.T, path, log string) {
	t.Helper()
	cluster := func(name, address string, port int) string {
		return fmt.Sprintf(`{"name": %q, "connect_timeout": "0.2s", "load_assignment": {"cluster_name": %q, "endpoints": [{"lb_endpoints": [
			{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %d}}}}]}]}}`, name, name, address, port)
	}
	route := func(prefix, cluster string) string {
		return fmt.Sprintf(`{"match": {"prefix": %q}, "route": {"cluster": %q}}`, prefix, cluster)
	}
	b, err := proxy.Load("", `{"static_resources": {
		"clusters": [`+cluster("site", "198.51.100.7", 80)+`,`+cluster("refused", "198.51.100.7", 81)+`,`+cluster("inside", "10.244.1.1", 80)+`],
		"listeners": [{"name": "l", "address": {"socket_address": {"address": "0.0.0.0", "port_value": 18080}}, "filter_chains": [{"filters": [
			{"name": "envoy.filters.network.http_connection_manager", "typed_config": {
				"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "x",
				"http_filters": [{"name": "envoy.filters.http.router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}],
				"route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": [`+route("/refused", "refused")+`,`+route("/inside", "inside")+`,`+route("/", "site")+`]}]}}}]}]}]}}`, false)
	if err != nil {
		t.Fatal(err)
	}
	o := proxy.DefaultOptions()
	o.DisableRestart, o.PublishSocket, o.DialSocket, o.DrainTime, o.LogPath = true, path, path, time.Second, log
	stop := make(chan struct{})
	o.Stop = stop
	ended := make(chan error, 1)
	go func() { ended <- proxy.Run(context.Background(), b, o, io.Discard) }()
	t.Cleanup(func() {
		close(stop)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
