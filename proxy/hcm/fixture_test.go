package hcm_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/accesslog"
	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/filter/router"
	"github.com/lateen-mesh/lateen/proxy/hcm"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// logFormat is Istio's default text format without its first field, the time.
const logFormat = `"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ` +
	`%RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% "%UPSTREAM_TRANSPORT_FAILURE_REASON%" %BYTES_RECEIVED% %BYTES_SENT% ` +
	`"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %UPSTREAM_CLUSTER_RAW% %ROUTE_NAME%` + "\n"

// self is the gateway's own address in x-forwarded-for.
var self = netip.MustParseAddr("192.0.2.2")

// A gateway is a connection manager on a socket of this machine, with real clusters.
type gateway struct {
	t        testing.TB
	addr     string
	store    *stats.Store
	files    *accesslog.Files
	log      string
	draining chan struct{}
	conns    sync.WaitGroup
}

// A setup is what a gateway is made of. manager and routes are JSON.
type setup struct {
	manager   string // fields of the HttpConnectionManager beside filters, log and routes
	routes    string // routes of the only virtual host
	clusters  map[string]string
	direction string
	filters   []http.Factory // before the router

	cluster func(router.Cluster) router.Cluster // what the router gets for a cluster; nil: itself
	faults  chan any                            // takes the panics of connections; nil: they are not caught
}

const listOfFilters = `"http_filters": [%s{"name": "envoy.filters.http.router", "typed_config":
	{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]`

func start(t testing.TB, s setup) *gateway {
	t.Helper()
	g := &gateway{t: t, store: stats.NewStore(), log: filepath.Join(t.TempDir(), "log"), draining: make(chan struct{})}
	clusters := cluster.New(cluster.Options{Stats: g.store})
	t.Cleanup(clusters.Close)
	for name, address := range s.clusters {
		if err := clusters.AddStatic(staticCluster(t, name, address)); err != nil {
			t.Fatal(err)
		}
	}
	clusters.Start(nil, 0)
	g.files = accesslog.NewFiles(g.store.Scope("access_log_file."), time.Millisecond)
	t.Cleanup(g.files.Close)
	var names strings.Builder
	for _, f := range s.filters {
		fmt.Fprintf(&names, `{"name": %q},`, f.Name)
	}
	cfg := fmt.Sprintf(`{"@type": %q, "stat_prefix": "test", %s, %s
		"access_log": [{"name": "envoy.access_loggers.file", "typed_config": {
			"@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog", "path": %q,
			"log_format": {"text_format_source": {"inline_string": %q}}}}],
		"route_config": {"name": "r", "validate_clusters": false, "ignore_port_in_host_matching": true, "virtual_hosts": [
			{"name": "v", "domains": ["*"], "include_request_attempt_count": true, "routes": [%s]}]}}`,
		hcm.TypeURL, fmt.Sprintf(listOfFilters, names.String()), fields(s.manager), g.log, logFormat, s.routes)
	get := func(name string) router.Cluster {
		c := clusters.Get(name)
		switch {
		case c == nil:
			return nil
		case s.cluster != nil:
			return s.cluster(c)
		}
		return c
	}
	a := &anypb.Any{}
	if err := protojson.Unmarshal([]byte(cfg), a); err != nil {
		t.Fatalf("%v in %s", err, cfg)
	}
	built, err := hcm.Factory(hcm.Deps{
		Filters:    append(s.filters, router.Factory(router.Deps{Cluster: get, LocalAddress: self})),
		HasCluster: func(n string) bool { return clusters.Get(n) != nil },
		Stats:      g.store, LocalAddress: self, AccessLog: accesslog.Env{Files: g.files},
	}).New(a, network.Env{Direction: s.direction, Listener: "test"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(built.Close)
	g.listen(built.Terminal, s.faults)
	return g
}

func fields(json string) string {
	if json == "" {
		return ""
	}
	return json + ","
}

func staticCluster(t testing.TB, name, spec string) *clusterv3.Cluster {
	t.Helper()
	address, extra, _ := strings.Cut(spec, " ")
	endpoints := ""
	if address != "" {
		host, port, _ := net.SplitHostPort(address)
		endpoints = fmt.Sprintf(`{"endpoint": {"address": {"socket_address": {"address": %q, "port_value": %s}}}}`, host, port)
	}
	if extra != "" {
		extra = "," + extra
	}
	c := &clusterv3.Cluster{}
	text := fmt.Sprintf(`{"name": %q, "type": "STATIC", "connect_timeout": "1s", "load_assignment": {"cluster_name": %q,
		"endpoints": [{"lb_endpoints": [%s]}]}%s}`, name, name, endpoints, extra)
	if err := protojson.Unmarshal([]byte(text), c); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return c
}

func (g *gateway) listen(f network.Terminal, faults chan any) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		g.t.Fatal(err)
	}
	g.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	g.conns.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			g.conns.Go(func() {
				defer func() { // as a listener does
					if faults != nil {
						faults <- recover()
						_ = c.Close()
					}
				}()
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				defer stop()
				tc := transport.NewConn(c)
				info := &streaminfo.Info{Start: time.Now(), DownstreamLocal: tc.LocalAddr(), DownstreamDirectLocal: tc.LocalAddr(),
					DownstreamRemote: tc.RemoteAddr(), DownstreamDirectRemote: tc.RemoteAddr()}
				f.Serve(ctx, &network.Conn{Conn: tc, Info: info, Draining: g.draining})
				_ = tc.Close()
			})
		}
	})
	g.t.Cleanup(func() {
		_ = l.Close()
		cancel()
		g.conns.Wait()
	})
}

// dial connects a client.
func (g *gateway) dial(t testing.TB) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", g.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// logged waits for the n-th line of the access log, from 0.
func (g *gateway) logged(t testing.TB, n int) string {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		b, _ := os.ReadFile(g.log)
		if lines := strings.Split(string(b), "\n"); len(lines) > n+1 {
			return lines[n]
		}
	}
	t.Fatal("no such line in the access log")
	return ""
}

// A backend is an upstream that answers by the path of the request.
type backend struct {
	addr  string
	mu    sync.Mutex
	heads []string // with the bodies behind them
	open  sync.Map // net.Conn
	wg    sync.WaitGroup
	stop  chan struct{}
}

// hangUp ends all connections.
func (b *backend) hangUp() {
	b.open.Range(func(c, _ any) bool { _ = c.(net.Conn).Close(); return true })
}

func newBackend(t testing.TB) *backend {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{addr: l.Addr().String(), stop: make(chan struct{})}
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.open.Store(c, nil)
			b.wg.Go(func() {
				b.serve(c)
				_ = c.Close()
				b.open.Delete(c)
			})
		}
	})
	t.Cleanup(func() {
		close(b.stop)
		_ = l.Close()
		b.hangUp()
		b.wg.Wait()
	})
	return b
}

// seen returns what has arrived so far.
func (b *backend) seen() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.heads...)
}

func (b *backend) serve(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		head, err := readHead(r)
		if err != nil {
			return
		}
		body := readBody(r, head)
		b.mu.Lock()
		b.heads = append(b.heads, head+body)
		b.mu.Unlock()
		if !b.answer(c, r, head, body) {
			return
		}
	}
}

func readHead(r *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" {
			return head.String(), err
		}
	}
}

// readBody reads a body as it was framed, chunk lines included.
func readBody(r *bufio.Reader, head string) string {
	low := strings.ToLower(head)
	if _, after, ok := strings.Cut(low, "\r\ncontent-length: "); ok {
		n, _ := strconv.Atoi(after[:strings.IndexByte(after, '\r')])
		b := make([]byte, n)
		n, _ = io.ReadFull(r, b)
		return string(b[:n])
	}
	if !strings.Contains(low, "\r\ntransfer-encoding: chunked") {
		return ""
	}
	var body strings.Builder
	for last := false; ; { // trailers come between the last chunk and an empty line
		line, err := r.ReadString('\n')
		body.WriteString(line)
		if err != nil || last && line == "\r\n" {
			return body.String()
		}
		last = last || line == "0\r\n"
	}
}

// answer is what the backend does for a path: its last element names it.
func (b *backend) answer(c net.Conn, r *bufio.Reader, head, body string) bool {
	path := strings.Split(head, " ")[1]
	if _, raw, ok := strings.Cut(path, "raw:"); ok {
		raw, _ = url.PathUnescape(raw)
		_, _ = io.WriteString(c, strings.ReplaceAll(raw, `\n`, "\r\n"))
		return !strings.Contains(path, "close")
	}
	path, _, _ = strings.Cut(path, "?")
	switch path[strings.LastIndexByte(path, '/')+1:] {
	case "close":
		return false
	case "slow":
		<-b.stop
		return false
	case "ws":
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Z: 1\r\n\r\n")
		_, _ = io.Copy(c, r)
		return false
	case "s503":
		_, _ = io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")
		return true
	case "fast": // for measurements: no echo
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-b: 1\r\n\r\nhello")
		return true
	}
	echo := head[:len(head)-4] + "\n" + body
	if strings.HasPrefix(head, "HEAD") {
		echo = ""
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "HTTP/1.1 200 OK\r\nX-Backend: b\r\nContent-Length: %d\r\n\r\n%s", len(echo), echo)
	_, _ = c.Write(out.Bytes())
	return true
}
