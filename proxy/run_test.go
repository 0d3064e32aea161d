package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(builtIn)
		os.Exit(code)
	}))
}

// running is a proxy in this process, reached over its sockets only.
type running struct {
	t     *testing.T
	admin string
	drain context.CancelFunc
	done  chan error
	log   *syncBuffer
	http  http.Client
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

// start runs a proxy with a bootstrap in YAML, to which the admin address is added.
func start(t *testing.T, yaml string, args ...string) *running {
	t.Helper()
	r := launch(t, yaml, args...)
	r.eventually("/ready", "LIVE\n")
	return r
}

func launch(t *testing.T, yaml string, args ...string) *running {
	t.Helper()
	path := filepath.Join(t.TempDir(), "admin")
	o, err := ParseArgs(append([]string{"--disable-hot-restart", "--file-flush-interval-msec", "20", "--admin-address-path", path}, args...))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(yaml, "\nadmin:") {
		yaml += "\nadmin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n"
	}
	b, err := Load("", yaml, false)
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	o.Stop = stop
	ctx, drain := context.WithCancel(context.Background())
	r := &running{t: t, drain: drain, done: make(chan error, 1), log: &syncBuffer{}, http: http.Client{Transport: &http.Transport{}}}
	go func() { r.done <- Run(ctx, b, o, r.log) }()
	t.Cleanup(func() {
		close(stop)
		drain()
		<-r.done
		r.http.CloseIdleConnections()
	})
	for range 500 {
		if text, err := os.ReadFile(path); err == nil && len(text) > 0 {
			r.admin = string(text)
			return r
		}
		select {
		case err := <-r.done:
			r.done <- err
			t.Fatalf("proxy ended: %v\n%s", err, r.log)
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatal("no admin address")
	return nil
}

func (r *running) call(method, path string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, "http://"+r.admin+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func (r *running) get(path string) string {
	r.t.Helper()
	_, body := r.call(http.MethodGet, path)
	return body
}

// eventually waits until a page contains text.
func (r *running) eventually(path, text string) string {
	r.t.Helper()
	var body string
	for range 1000 {
		if body = r.get(path); strings.Contains(body, text) {
			return body
		}
		time.Sleep(5 * time.Millisecond)
	}
	r.t.Fatalf("%s never contained %q; last:\n%s\nlog:\n%s", path, text, body, r.log)
	return ""
}

// listener is the address of a listener.
func (r *running) listener(name string) string {
	r.t.Helper()
	for line := range strings.Lines(r.eventually("/listeners", name+"::")) {
		if addr, ok := strings.CutPrefix(line, name+"::"); ok {
			return strings.TrimSpace(addr)
		}
	}
	r.t.Fatalf("no listener %s", name)
	return ""
}

// backend echoes, each connection on its own.
func backend(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return accepting(t, ln, func(c net.Conn) { _, _ = io.Copy(c, c) })
}

// accepting has every connection of ln served until the test ends, and says its address.
func accepting(t *testing.T, ln net.Listener, serve func(net.Conn)) string {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				serve(c)
			})
		}
	})
	t.Cleanup(func() { _ = ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

func staticCluster(name, addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf(`{name: %s, type: STATIC, load_assignment: {cluster_name: %s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}}`, name, name, host, port)
}

func tcpListener(name, cluster string) string {
	return fmt.Sprintf(`{name: %s, address: {socket_address: {address: 127.0.0.1, port_value: 0}}, filter_chains: [{filters: [{name: tcp, typed_config:
      {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: p, cluster: %s}}]}]}`, name, cluster)
}

func tcpBootstrap(t *testing.T) string {
	return "node: {id: n, cluster: c}\nstatic_resources:\n  clusters: [" + staticCluster("echo", backend(t)) + "]\n  listeners: [" + tcpListener("tcp", "echo") + "]"
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c.(*net.TCPConn)
}

func echoes(t *testing.T, c net.Conn, text string) {
	t.Helper()
	b := make([]byte, len(text))
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("%q %v", b, err)
	}
}

func TestServesAndDrains(t *testing.T) {
	r := start(t, tcpBootstrap(t))
	addr := r.listener("tcp")
	c := dial(t, addr)
	echoes(t, c, "hello")
	t.Run("WI-031 the end of the context: readiness fails, no new connections, old ones finish, then the end", func(t *testing.T) {
		r.drain()
		r.eventually("/ready", "DRAINING\n")
		if code, _ := r.call(http.MethodGet, "/ready"); code != 503 {
			t.Error(code)
		}
		for range 500 {
			probe, err := net.Dial("tcp", addr)
			if errors.Is(err, syscall.ECONNREFUSED) {
				break
			}
			_ = probe.Close()
			time.Sleep(5 * time.Millisecond)
		}
		if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		echoes(t, c, "still here")
		_ = c.Close()
		if err := <-r.done; err != nil {
			t.Error(err)
		}
		r.done <- nil
	})
}

func TestDrainTimeEnds(t *testing.T) {
	r := start(t, tcpBootstrap(t), "--drain-time-s", "0")
	c := dial(t, r.listener("tcp"))
	echoes(t, c, "hello")
	r.drain()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Error(err)
	}
}

func TestBadBootstraps(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, port, _ := net.SplitHostPort(taken.Addr().String())
	for _, c := range []struct{ name, yaml, want string }{
		{"port in use", "static_resources: {listeners: [" + strings.Replace(tcpListener("l", "c"), "port_value: 0", "port_value: "+port, 1) + "]}",
			`static_resources.listeners[0] "l": cannot bind '127.0.0.1:` + port + `': Address already in use`},
		{"unknown network filter", "static_resources: {listeners: [" + strings.Replace(tcpListener("l", "c"), "filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: p, cluster: c", "filters.http.router.v3.Router", 1) + "]}",
			`filter_chains[0]: filters[0] tcp: Didn't find a registered implementation for 'tcp' with type URL: 'envoy.extensions.filters.http.router.v3.Router'`},
		{"cluster without a name", "static_resources: {clusters: [{type: STATIC}]}", "static_resources.clusters[0]: cluster : name:"},
		{"bad stats tag", "stats_config: {stats_tags: [{tag_name: x, regex: '('}]}", `stats_config: stats_tags[0] "x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := Load("", c.yaml, false)
			if err != nil {
				t.Fatal(err)
			}
			o := DefaultOptions()
			o.DisableRestart = true
			if err := Run(t.Context(), b, o, io.Discard); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

func TestValidate(t *testing.T) {
	b, err := Load("", "static_resources: {listeners: ["+strings.Replace(tcpListener("l", "c"), "127.0.0.1, port_value: 0", "192.0.2.1, port_value: 1", 1)+"]}", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := Validate(b, DefaultOptions(), io.Discard); err != nil {
		t.Errorf("opened a socket? %v", err)
	}
}

func TestBaseID(t *testing.T) {
	o := DefaultOptions()
	o.BaseID = 900 + os.Getpid()%90
	release, err := lockBaseID(o)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("unable to bind domain socket with base_id=%d, id=%d, errno=98 (see --base-id option)", o.BaseID, o.BaseID*10)
	if _, err := lockBaseID(o); err == nil || err.Error() != want {
		t.Error(err)
	}
	release()
	again, err := lockBaseID(o)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestAdminPages(t *testing.T) {
	r := start(t, tcpBootstrap(t)+"\nlayered_runtime: {layers: [{name: base, static_layer: {a.b: 1}}, {name: admin, admin_layer: {}}]}")
	echoes(t, dial(t, r.listener("tcp")), "hello")
	for _, c := range []struct {
		name, method, path string
		status             int
		contains           []string
	}{
		{"ready", "GET", "/ready", 200, []string{"LIVE\n"}},
		{"stats", "GET", "/stats?usedonly", 200, []string{"cluster_manager.active_clusters: 1\n", "server.live: 1\n", "tcp.p.downstream_cx_total: 1\n", "listener_manager.listener_added: 1\n"}},
		{"OB-023 stats of the process", "GET", "/stats?filter=^server", 200, []string{"server.live: 1\n", "server.state: 0\n", "server.uptime: ", "server.memory_allocated: ",
			"server.total_connections: ", "server.concurrency: ", "server.days_until_first_cert_expiring: 4294967295\n", "server.hot_restart_epoch: 0\n", "server.initialization_time_ms: P0(", "server.version: "}},
		{"stats by filter", "GET", "/stats?filter=^tcp.*total$&usedonly", 200, []string{"tcp.p.downstream_cx_total: 1\n"}},
		{"stats as JSON", "GET", "/stats?format=json&filter=^server.state$", 200, []string{`{"stats":[{"name":"server.state","value":0}]}`}},
		{"stats with a broken filter", "GET", "/stats?filter=(", 400, []string{"Invalid re2 regex: missing ): ("}},
		{"EN-016 prometheus", "GET", "/stats/prometheus?usedonly", 200, []string{"# TYPE envoy_tcp_downstream_cx_total counter\nenvoy_tcp_downstream_cx_total{envoy_tcp_prefix=\"p\"} 1\n"}},
		{"clusters", "GET", "/clusters", 200, []string{"echo::observability_name::echo\n", "echo::default_priority::max_connections::1024\n", "::cx_total::1\n", "::health_flags::healthy\n"}},
		{"clusters as JSON", "GET", "/clusters?format=json", 200, []string{`"observability_name": "echo"`, `"eds_health_status": "HEALTHY"`}},
		{"listeners as JSON", "GET", "/listeners?format=json", 200, []string{`"listener_statuses": [`, `"name": "tcp"`, `"address": "127.0.0.1"`}},
		{"a form that there is not is text", "GET", "/listeners?format=xml", 200, []string{"tcp::127.0.0.1:"}},
		{"config dump", "GET", "/config_dump", 200, []string{"envoy.admin.v3.BootstrapConfigDump", "envoy.admin.v3.ClustersConfigDump", "envoy.admin.v3.ListenersConfigDump", "envoy.admin.v3.RoutesConfigDump", "envoy.admin.v3.SecretsConfigDump"}},
		{"config dump with endpoints", "GET", "/config_dump?include_eds", 200, []string{"envoy.admin.v3.EndpointsConfigDump", `"overprovisioning_factor": 140`}},
		{"config dump, one list, masked", "GET", "/config_dump?resource=static_clusters&mask=cluster.name,cluster.type", 200,
			[]string{"{\n \"configs\": [\n  {\n   \"@type\": \"type.googleapis.com/envoy.admin.v3.ClustersConfigDump.StaticCluster\",\n   \"cluster\": {\n    \"@type\": \"type.googleapis.com/envoy.config.cluster.v3.Cluster\",\n    \"name\": \"echo\",\n    \"type\": \"STATIC\"\n   }\n  }\n ]\n}\n"}},
		{"config dump by name", "GET", "/config_dump?resource=static_listeners&name_regex=nothing", 200, []string{"{}\n"}},
		{"config dump of what is not there", "GET", "/config_dump?resource=nope", 404, []string{"nope not found in config dump"}},
		{"server info", "GET", "/server_info", 200, []string{`"state": "LIVE"`, `"id": "n"`, `"drain_time": "600s"`, `"name": "envoy.filters.network.tcp_proxy"`}},
		{"runtime", "GET", "/runtime", 200, []string{`"a.b": {`, `"final_value": "1"`, `"layers": [`}},
		{"memory", "GET", "/memory", 200, []string{`"allocated": "`}},
		{"certs", "GET", "/certs", 200, []string{`"certificates": []`}},
		{"init dump", "GET", "/init_dump", 200, []string{"{}\n"}},
		{"help", "GET", "/help", 200, []string{"admin commands are:\n  /: Admin home page\n", "  /quitquitquit (POST): exit the server\n"}},
		{"home", "GET", "/", 200, []string{"<a href=\"/clusters\">"}},
		{"unknown", "GET", "/nosuch", 404, []string{"invalid path. admin commands are:\n"}},
		{"GET where POST is needed", "GET", "/quitquitquit", 405, []string{"Method GET not allowed, POST required."}},
		{"logging", "POST", "/logging", 200, []string{"active loggers:\n  a2a: info\n  admin: info\n"}},
		{"all loggers", "POST", "/logging?level=warning", 200, []string{"  admin: warning\n", "  upstream: warning\n"}},
		{"one logger", "POST", "/logging?upstream=debug", 200, []string{"  admin: warning\n", "  upstream: debug\n"}},
		{"several loggers", "POST", "/logging?paths=config:error,http:off", 200, []string{"  config: error\n", "  http: off\n"}},
		{"unknown logger", "POST", "/logging?foo=info", 400, []string{"error: unknown logger name\n\nusage: /logging?<name>=<level>"}},
		{"unknown level", "POST", "/logging?level=loud", 400, []string{"error: unknown logger level"}},
		{"health check fails", "POST", "/healthcheck/fail", 200, []string{"OK\n"}},
		{"and is not ready", "GET", "/ready", 503, []string{"DRAINING\n"}},
		{"health check passes", "POST", "/healthcheck/ok", 200, []string{"OK\n"}},
		{"and is ready", "GET", "/ready", 200, []string{"LIVE\n"}},
		{"reopen logs", "POST", "/reopen_logs", 200, []string{"OK\n"}},
		{"reset counters", "POST", "/reset_counters", 200, []string{"OK\n"}},
		{"counters are zero", "GET", "/stats?filter=^tcp.p.downstream_cx_total$", 200, []string{"tcp.p.downstream_cx_total: 0\n"}},
		{"inbound listeners drain: this is none", "POST", "/drain_listeners?inboundonly", 200, []string{"OK\n"}},
	} {
		t.Run("EN-001 "+c.name, func(t *testing.T) {
			status, body := r.call(c.method, c.path)
			if status != c.status {
				t.Errorf("status %d", status)
			}
			for _, x := range c.contains {
				if !strings.Contains(body, x) {
					t.Errorf("missing %q in\n%s", x, body[:min(len(body), 3000)])
				}
			}
		})
	}
	t.Run("EN-001 drain stops accepting, the process stays", func(t *testing.T) {
		addr := r.listener("tcp")
		r.call(http.MethodPost, "/drain_listeners")
		if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Error(err)
		}
		r.eventually("/ready", "LIVE\n")
	})
	t.Run("EN-001 quit", func(t *testing.T) {
		if status, body := r.call(http.MethodPost, "/quitquitquit"); status != 200 || body != "OK\n" {
			t.Error(status, body)
		}
		if err := <-r.done; err != nil {
			t.Error(err)
		}
		r.done <- nil
	})
}
