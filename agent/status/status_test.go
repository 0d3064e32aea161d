package status

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// application is an HTTP server of a test.
func application(t *testing.T, h http.HandlerFunc) (address, port string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	address = strings.TrimPrefix(s.URL, "http://")
	_, port, _ = net.SplitHostPort(address)
	return address, port
}

// serve runs the agent's pages and returns their address.
func serve(t *testing.T, o Options) string {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

func do(t *testing.T, method, address, path string, header ...string) (status int, body string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://"+address+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}

func TestReady(t *testing.T) {
	var stats atomic.Value
	admin, _ := application(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/stats" || r.URL.Query().Get("filter") != readyStats {
			http.Error(w, r.URL.String(), http.StatusNotFound)
			return
		}
		_, _ = io.WriteString(w, stats.Load().(string))
	})
	leaving := false
	at := serve(t, Options{Admin: admin, Leaving: func() bool { return leaving }})
	const live = "server.state: 0\nlistener_manager.workers_started: 1\n"
	const refused = "cluster_manager.cds.update_success: 1\nlistener_manager.lds.update_rejected: 1\n"
	const configured = refused + "listener_manager.total_listeners_active: 3\n"
	for _, tt := range []struct {
		name, stats string
		status      int
		says        string
	}{
		{"nothing received", live, 503, "config not received from XDS server (is Istiod running?): cds updates: 0 successful, 0 rejected; lds updates: 0 successful, 0 rejected"},
		{"clusters only", live + "cluster_manager.cds.update_success: 3\n", 503, "cds updates: 3 successful, 0 rejected; lds updates: 0 successful, 0 rejected"},
		{"all listeners were refused", live + refused + "listener_manager.total_listeners_active: 2\n", 503,
			"config received from XDS server, but was rejected: cds updates: 1 successful, 0 rejected; lds updates: 0 successful, 1 rejected"},
		{"initializing", configured + "server.state: 2\n", 503, "server is not live, current state is: 2"},
		{"no workers", configured + "server.state: 0\nlistener_manager.workers_started: 0\n", 503, "workers have not yet started"},
		{"ready, though the proxy refused some listeners", configured + live, 200, ""},
		{"counters that were reset do not count", live, 200, ""},
		{"draining", "server.state: 1\nlistener_manager.workers_started: 1\n", 503, "current state is: 1"},
		{"no answer that makes sense", "<html>", 503, "server is not live"},
	} {
		t.Run("EN-013 "+tt.name, func(t *testing.T) {
			stats.Store(tt.stats)
			status, body := do(t, http.MethodGet, at, "/healthz/ready")
			if status != tt.status || !strings.Contains(body, tt.says) {
				t.Errorf("%d %q, want %d %q", status, body, tt.status, tt.says)
			}
		})
	}
	leaving = true
	stats.Store(configured + live)
	if status, body := do(t, http.MethodGet, at, "/healthz/ready"); status != 503 || !strings.Contains(body, "about to end") {
		t.Errorf("while the pod ends: %d %q", status, body)
	}
	t.Run("the proxy is not there", func(t *testing.T) {
		status, body := do(t, http.MethodGet, serve(t, Options{Admin: "127.0.0.1:1"}), "/healthz/ready")
		if status != 503 || !strings.Contains(body, "proxy: ") {
			t.Errorf("%d %q", status, body)
		}
	})
}

func TestProbes(t *testing.T) {
	var seen atomic.Pointer[http.Request]
	handler := func(w http.ResponseWriter, r *http.Request) {
		seen.Store(r)
		switch r.URL.Path {
		case "/moved":
			http.Redirect(w, r, "/fine", http.StatusFound)
		case "/away":
			http.Redirect(w, r, "http://elsewhere.example.com/", http.StatusFound)
		case "/broken":
			w.WriteHeader(http.StatusTeapot)
		}
	}
	_, plain := application(t, handler)
	secure := httptest.NewTLSServer(http.HandlerFunc(handler))
	t.Cleanup(secure.Close)
	_, tlsPort, _ := net.SplitHostPort(secure.Listener.Addr().String())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, grpcPort, _ := net.SplitHostPort(l.Addr().String())
	g := grpc.NewServer()
	h := health.NewServer()
	h.SetServingStatus("sick", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	grpc_health_v1.RegisterHealthServer(g, h)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	tests := []struct {
		name, probe string
		status      int
	}{
		{"HTTP", `{"httpGet": {"path": "/fine?a=b", "port": ` + plain + `, "httpHeaders": [{"name": "X-Probe", "value": "v"}, {"name": "Host", "value": "web"}]}, "timeoutSeconds": 5}`, 200},
		{"HTTP, no slash", `{"httpGet": {"path": "fine", "port": ` + plain + `}}`, 200},
		{"HTTP, an error of the application", `{"httpGet": {"path": "/broken", "port": ` + plain + `}}`, 418},
		{"HTTP, a redirect", `{"httpGet": {"path": "/moved", "port": ` + plain + `}}`, 200},
		{"HTTP, a redirect to elsewhere", `{"httpGet": {"path": "/away", "port": ` + plain + `}}`, 302},
		{"HTTPS", `{"httpGet": {"path": "/fine", "port": ` + tlsPort + `, "scheme": "HTTPS"}}`, 200},
		{"HTTP, nobody there", `{"httpGet": {"path": "/", "port": 1}}`, 500},
		{"TCP", `{"tcpSocket": {"port": ` + plain + `}}`, 200},
		{"TCP, nobody there", `{"tcpSocket": {"port": 1}}`, 500},
		{"gRPC", `{"grpc": {"port": ` + grpcPort + `}}`, 200},
		{"gRPC, a service", `{"grpc": {"port": ` + grpcPort + `, "service": "sick"}}`, 500},
		{"gRPC, an unknown service", `{"grpc": {"port": ` + grpcPort + `, "service": "none"}}`, 500},
	}
	for _, tt := range tests {
		t.Run("AN-004 EN-013 "+tt.name, func(t *testing.T) {
			at := serve(t, Options{Address: "127.0.0.1", Probes: `{"/app-health/web/readyz": ` + tt.probe + `}`})
			status, body := do(t, http.MethodGet, at, "/app-health/web/readyz", "User-Agent", "kube-probe/1.36")
			if status != tt.status {
				t.Errorf("%d %s, want %d", status, body, tt.status)
			}
			if tt.name != "HTTP" {
				return
			}
			r := seen.Load()
			if r.URL.RawQuery != "a=b" || r.Header.Get("X-Probe") != "v" || r.Host != "web" || r.Header.Get("User-Agent") != "kube-probe/1.36" {
				t.Errorf("the application saw %s of %s, %v", r.URL, r.Host, r.Header)
			}
			if !strings.HasPrefix(r.RemoteAddr, "127.0.0.6:") {
				t.Errorf("asked from %s, which the redirection does not let pass", r.RemoteAddr)
			}
		})
	}
	t.Run("a path that nobody has", func(t *testing.T) {
		if status, _ := do(t, http.MethodGet, serve(t, Options{}), "/app-health/web/livez"); status != 404 {
			t.Error(status)
		}
	})
	t.Run("a hook", func(t *testing.T) {
		at := serve(t, Options{Probes: `{"/app-lifecycle/web/prestopz": {"httpGet": {"path": "/fine", "port": ` + plain + `}}}`})
		if status, _ := do(t, http.MethodGet, at, "/app-lifecycle/web/prestopz"); status != 200 {
			t.Error(status)
		}
	})
}

func TestMistakes(t *testing.T) {
	for _, tt := range []struct{ probes, scrape, want string }{
		{`[]`, "", "ISTIO_KUBE_APP_PROBERS: json:"},
		{`{"/other": {"tcpSocket": {"port": 1}}}`, "", `"/other" is not /app-health/CONTAINER/{livez,readyz,startupz}`},
		{`{"/app-health/a/livez": {}}`, "", "exactly one of httpGet, tcpSocket, grpc is wanted"},
		{`{"/app-health/a/livez": null}`, "", "exactly one of"},
		{`{"/app-health/a/livez": {"tcpSocket": {"port": 1}, "grpc": {"port": 2}}}`, "", "exactly one of"},
		{`{"/app-health/a/livez": {"tcpSocket": {"port": "http"}}}`, "", "is not a number from 1 to 65535"},
		{"", `{`, "ISTIO_PROMETHEUS_ANNOTATIONS"},
		{"", `{"scrape": "true", "targets": [` + strings.Repeat(`{},`, 32) + `{}]}`, "33 targets: there may be 32"},
		{"", `{"scrape": "true", "port": "0"}`, `port "0" is not a number from 1 to 65535`},
	} {
		if _, err := New(Options{Probes: tt.probes, Scrape: tt.scrape}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s%s: error %v, want %q", tt.probes, tt.scrape, err, tt.want)
		}
	}
}

func TestMetrics(t *testing.T) {
	admin, _ := application(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stats/prometheus" {
			_, _ = io.WriteString(w, "envoy_one 1\n")
		}
	})
	_, app := application(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/m" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, "app_two 2\n# EOF\n")
	})
	own := func(w io.Writer) { fmt.Fprintln(w, "agent_three 3") }
	for _, tt := range []struct{ name, admin, scrape, has, lacks string }{
		{"all three", admin, `{"scrape": "true", "path": "/m", "port": "` + app + `"}`, "agent_three 3\nenvoy_one 1\napp_two 2\n", "# EOF"},
		{"several pages of the application, one of them broken", admin, `{"scrape": "true", "targets": [{"port": "` + app + `", "path": "/none"}, {"port": "` + app + `", "path": "/m"}]}`,
			"envoy_one 1\napp_two 2\n", "404"},
		{"the application is not to be asked", admin, `{"scrape": "false", "port": "` + app + `"}`, "agent_three 3\nenvoy_one 1\n", "app_two"},
		{"the application answers an error", admin, `{"scrape": "true", "path": "/none", "port": "` + app + `"}`, `istio_agent_scrape_failures_total{type="application"} 1`, "404"},
		{"the proxy is not there", "127.0.0.1:1", `{"scrape": "true", "path": "m", "port": "` + app + `"}`, `istio_agent_scrape_failures_total{type="envoy"} 1`, "envoy_one"},
	} {
		t.Run("MC-033 AN-030 "+tt.name, func(t *testing.T) {
			at := serve(t, Options{Admin: tt.admin, Scrape: tt.scrape, Metrics: own})
			_, _ = do(t, http.MethodGet, at, "/stats/prometheus") // counts what it misses
			status, page := do(t, http.MethodGet, at, "/stats/prometheus")
			if status != 200 || !strings.Contains(page, tt.has) || strings.Contains(page, tt.lacks) {
				t.Errorf("%d\n%s", status, page)
			}
		})
	}
}

func TestOrders(t *testing.T) {
	orders := make(chan string, 2)
	s, err := New(Options{Quit: func() { orders <- "quit" }, Drain: func() { orders <- "drain" }})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		method, path, from string
		status             int
		order              string
	}{
		{"POST", "/quitquitquit", "127.0.0.1:1", 200, "quit"},
		{"POST", "/drain", "[::1]:1", 200, "drain"},
		{"POST", "/quitquitquit", "10.0.0.1:1", 403, ""},
		{"POST", "/drain", "[::ffff:10.0.0.1]:1", 403, ""},
		{"GET", "/quitquitquit", "127.0.0.1:1", 405, ""},
		{"GET", "/debug/ndsz", "10.0.0.1:1", 403, ""},
		{"GET", "/debug/pprof/", "127.0.0.1:1", 404, ""},
		// What a sidecar hands on of others comes from a loopback address, too.
		{"POST", "/quitquitquit", "127.0.0.6:1", 403, ""},
		{"GET", "/debug/ndsz", "127.0.0.6:1", 403, ""},
		// The proxy's port 15021 hands on what begins with /healthz/ready, from 127.0.0.1.
		{"POST", "/healthz/ready/../../quitquitquit", "127.0.0.1:1", 307, ""},
		{"POST", "/healthz/ready/%2e%2e/%2E%2E/quitquitquit", "127.0.0.1:1", 404, ""},
		{"POST", "/healthz/ready/..%2f..%2fquitquitquit", "127.0.0.1:1", 404, ""},
		{"POST", "/healthz/ready\\..\\..\\quitquitquit", "127.0.0.1:1", 404, ""},
		{"POST", "/healthz/ready", "10.0.0.1:1", 405, ""},
		{"POST", "/stats/prometheus", "10.0.0.1:1", 405, ""},
		{"POST", "/app-health/main/livez", "10.0.0.1:1", 405, ""},
		{"DELETE", "/app-lifecycle/main/prestopz", "10.0.0.1:1", 405, ""},
		{"GET", "/config_dump", "10.0.0.1:1", 404, ""},
	} {
		r := httptest.NewRequest(tt.method, tt.path, nil)
		r.RemoteAddr = tt.from
		w := httptest.NewRecorder()
		s.mux.ServeHTTP(w, r)
		got := ""
		if len(orders) > 0 {
			got = <-orders
		}
		if w.Code != tt.status || got != tt.order {
			t.Errorf("%s %s from %s: %d %q, want %d %q", tt.method, tt.path, tt.from, w.Code, got, tt.status, tt.order)
		}
	}
}

// FuzzProbes: what an injector writes may be anything.
func FuzzProbes(f *testing.F) {
	f.Add(`{"/app-health/web/readyz": {"httpGet": {"path": "/", "port": 80}}}`)
	f.Add(`{"/app-health/web/livez": {"grpc": {"port": "90"}}}`)
	f.Fuzz(func(t *testing.T, text string) {
		all, err := parseProbes(text, "10.0.0.1")
		for name, p := range all {
			if err == nil && p.kinds() != 1 {
				t.Errorf("%s has %d kinds", name, p.kinds())
			}
		}
	})
}
