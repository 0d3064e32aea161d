package health

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	networking "istio.io/api/networking/v1alpha3"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An application answers 200 to who says who they are, for the host that is meant.
func application(t *testing.T) uint32 {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/moved":
			http.Redirect(w, r, "/down", http.StatusFound)
		case r.URL.RequestURI() != "/well?deep=1" || r.Header.Get("X-Who") != "agent" || r.Host != "shop.test":
			http.Error(w, "no", http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(s.Close)
	return portOf(t, s.Listener)
}

func portOf(t *testing.T, l net.Listener) uint32 {
	t.Helper()
	_, text, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(port)
}

func greeter(t *testing.T) uint32 {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s, h := grpc.NewServer(), grpchealth.NewServer()
	h.SetServingStatus("shop", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	grpc_health_v1.RegisterHealthServer(s, h)
	ended := make(chan struct{})
	go func() { defer close(ended); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-ended })
	return portOf(t, l)
}

func overHTTPTo(get *networking.HTTPHealthCheckConfig) *networking.ReadinessProbe {
	return &networking.ReadinessProbe{HealthCheckMethod: &networking.ReadinessProbe_HttpGet{HttpGet: get}}
}

func overTCPTo(host string, port uint32) *networking.ReadinessProbe {
	return &networking.ReadinessProbe{HealthCheckMethod: &networking.ReadinessProbe_TcpSocket{TcpSocket: &networking.TCPHealthCheckConfig{Host: host, Port: port}}}
}

func running(argv ...string) *networking.ReadinessProbe {
	return &networking.ReadinessProbe{HealthCheckMethod: &networking.ReadinessProbe_Exec{Exec: &networking.ExecHealthCheckConfig{Command: argv}}}
}

func overGRPCTo(port uint32, service string) *networking.ReadinessProbe {
	return &networking.ReadinessProbe{HealthCheckMethod: &networking.ReadinessProbe_Grpc{Grpc: &networking.GrpcHealthCheckConfig{Port: port, Service: service}}}
}

func TestProbes(t *testing.T) {
	web, calls := application(t), greeter(t)
	headers := []*networking.HTTPHeader{{Name: "X-Who", Value: "agent"}, {Name: "Host", Value: "shop.test"}}
	for _, c := range []struct {
		name  string
		probe *networking.ReadinessProbe
		wrong string
	}{
		{"SE-021 httpGet", overHTTPTo(&networking.HTTPHealthCheckConfig{Path: "/well?deep=1", Port: web, HttpHeaders: headers}), ""},
		{"SE-021 a path without its slash, and a host", overHTTPTo(&networking.HTTPHealthCheckConfig{Path: "well?deep=1", Host: "localhost", Scheme: "HTTP", Port: web, HttpHeaders: headers}), ""},
		{"SE-021 another status", overHTTPTo(&networking.HTTPHealthCheckConfig{Path: "/well", Port: web}), "answers 503"},
		{"SE-021 a redirect is an answer", overHTTPTo(&networking.HTTPHealthCheckConfig{Path: "/moved", Port: web}), ""},
		{"SE-021 another protocol", overHTTPTo(&networking.HTTPHealthCheckConfig{Path: "/well", Scheme: "https", Port: web}), "server gave HTTP response"},
		{"SE-022 tcpSocket", overTCPTo("", web), ""},
		{"SE-022 host", overTCPTo("localhost", web), ""},
		{"SE-022 nobody listens", overTCPTo("127.0.0.1", 1), "refused"},
		{"SE-023 exec", running("true"), ""},
		{"SE-023 exec with arguments", running("sh", "-c", "test $0 = one", "one"), ""},
		{"SE-023 exec fails", running("sh", "-c", "echo not yet; exit 3"), "exit status 3: not yet"},
		{"SE-023 what is no program", running("/nowhere/at/all"), "no such file"},
		{"SE-024 grpc", overGRPCTo(calls, ""), ""},
		{"SE-024 a service that does not serve", overGRPCTo(calls, "shop"), "NOT_SERVING"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ask, err := Options{Probe: c.probe, Address: "127.0.0.1"}.asker()
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			switch err := ask(ctx); {
			case c.wrong == "" && err != nil:
				t.Errorf("is not healthy: %v", err)
			case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
				t.Errorf("got %v, want %s", err, c.wrong)
			}
		})
	}
}

func TestThresholds(t *testing.T) {
	for _, c := range []struct {
		name                string
		successes, failures int
		outcomes            string // + and -
		told                string
	}{
		{"SE-020 defaults: healthy at once", defaultSuccesses, defaultFailures, "+", "+"},
		{"SE-020 defaults: unhealthy after three", defaultSuccesses, defaultFailures, "--", ""},
		{"SE-020 defaults: and told once", defaultSuccesses, defaultFailures, "------", "-"},
		{"SE-020 changes", defaultSuccesses, defaultFailures, "+++--+---+", "+-+"},
		{"SE-020 several successes", 3, 1, "++-++", "-"},
		{"SE-020 several successes in a row", 3, 1, "-+++++", "-+"},
	} {
		t.Run(c.name, func(t *testing.T) {
			told := ""
			w := watcher{successes: c.successes, failures: c.failures, tell: func(wrong string) {
				if wrong == "" {
					told += "+"
				} else {
					told += "-"
				}
			}}
			for _, o := range c.outcomes {
				if o == '+' {
					w.take(nil)
				} else {
					w.take(errors.New("down"))
				}
			}
			if told != c.told {
				t.Errorf("told %q, want %q", told, c.told)
			}
		})
	}
}

// TestRun: what changes is told.
func TestRun(t *testing.T) {
	t.Run("SE-020 periods", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "well")
		probe := running("test", "-e", file)
		probe.PeriodSeconds, probe.FailureThreshold = 1, 1
		told := make(chan bool, 10)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, Options{Probe: probe, Tell: func(wrong string) { told <- wrong == "" }})
		}()
		got := []bool{<-told}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		got = append(got, <-told)
		cancel()
		if err := <-ended; err != nil || !slices.Equal(got, []bool{false, true}) {
			t.Errorf("told %v; %v", got, err)
		}
	})
	t.Run("SE-020 a probe of nothing", func(t *testing.T) {
		if err := Run(t.Context(), Options{Probe: &networking.ReadinessProbe{}}); err == nil {
			t.Error("is carried out")
		}
	})
}
