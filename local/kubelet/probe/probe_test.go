package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// target is a container of this machine whose ports are those of servers.
func target(ports ...corev1.ContainerPort) Target {
	return Target{Address: "127.0.0.1", Container: &corev1.Container{Name: "a", Ports: ports}, Dial: (&net.Dialer{}).DialContext}
}

func portOf(t *testing.T, address string) intstr.IntOrString {
	t.Helper()
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return intstr.Parse(port)
}

func closedPort(t *testing.T) intstr.IntOrString {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return portOf(t, l.Addr().String())
}

// check compares an error with the words that it is to have; "" is no error.
func check(t *testing.T, err error, words string) {
	t.Helper()
	switch {
	case words == "" && err != nil:
		t.Errorf("unwell: %v", err)
	case words != "" && (err == nil || !strings.Contains(err.Error(), words)):
		t.Errorf("%v does not say %q", err, words)
	}
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/down", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/down", http.StatusFound) })
	mux.HandleFunc("/away", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
	})
	mux.HandleFunc("/asked", func(w http.ResponseWriter, r *http.Request) {
		if r.Host != "example.org" || r.Header.Get("X-A") != "1" || !strings.HasPrefix(r.UserAgent(), "kube-probe/") || r.URL.RawQuery != "q=1" {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	mux.HandleFunc("/slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	plain, secure := httptest.NewServer(mux), httptest.NewTLSServer(mux)
	defer plain.Close()
	defer secure.Close()
	port, tlsPort := portOf(t, plain.Listener.Addr().String()), portOf(t, secure.Listener.Addr().String())
	named := corev1.ContainerPort{Name: "web", ContainerPort: port.IntVal}
	for _, c := range []struct {
		name   string
		action corev1.HTTPGetAction
		words  string
	}{
		{"an answer below 400 is well", corev1.HTTPGetAction{Path: "/ok", Port: port}, ""},
		{"a named port", corev1.HTTPGetAction{Path: "/ok", Port: intstr.FromString("web")}, ""},
		{"a name that no port has", corev1.HTTPGetAction{Path: "/ok", Port: intstr.FromString("other")}, `no port "other"`},
		{"a host", corev1.HTTPGetAction{Path: "ok", Host: "127.0.0.1", Port: port}, ""},
		{"another answer is not", corev1.HTTPGetAction{Path: "/down", Port: port}, "HTTP probe failed with statuscode: 503"},
		{"a redirect on the same host is followed", corev1.HTTPGetAction{Path: "/moved", Port: port}, "statuscode: 503"},
		{"one to elsewhere is an answer", corev1.HTTPGetAction{Path: "/away", Port: port}, ""},
		{"HTTPS with any certificate", corev1.HTTPGetAction{Path: "/ok", Port: tlsPort, Scheme: corev1.URISchemeHTTPS}, ""},
		{"headers, Host and query", corev1.HTTPGetAction{Path: "/asked?q=1", Port: port,
			HTTPHeaders: []corev1.HTTPHeader{{Name: "Host", Value: "example.org"}, {Name: "x-a", Value: "1"}}}, ""},
		{"nobody listens", corev1.HTTPGetAction{Path: "/", Port: closedPort(t)}, "connection refused"},
		{"no answer in time", corev1.HTTPGetAction{Path: "/slow", Port: port}, "deadline exceeded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			if strings.Contains(c.words, "deadline") {
				cancel()
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
			}
			defer cancel()
			check(t, target(named).Ask(ctx, corev1.ProbeHandler{HTTPGet: &c.action}), c.words)
		})
	}
	t.Run("a hook takes any answer", func(t *testing.T) {
		check(t, target().Hook(t.Context(), &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/down", Port: port}}), "")
	})
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	check(t, target().Ask(t.Context(), corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: portOf(t, l.Addr().String())}}), "")
	check(t, target().Ask(t.Context(), corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: closedPort(t)}}), "refused")
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, states := grpc.NewServer(), health.NewServer()
	healthpb.RegisterHealthServer(server, states)
	states.SetServingStatus("down", healthpb.HealthCheckResponse_NOT_SERVING)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	defer func() { server.Stop(); <-served }()
	port := portOf(t, l.Addr().String()).IntVal
	for service, words := range map[string]string{"": "", "down": `responded with "NOT_SERVING"`, "unknown": "health rpc failed"} {
		check(t, target().Ask(t.Context(), corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: port, Service: &service}}), words)
	}
}

func TestExec(t *testing.T) {
	for _, c := range []struct {
		name  string
		exec  func(context.Context, []string) ([]byte, int, error)
		words string
	}{
		{"well", func(context.Context, []string) ([]byte, int, error) { return nil, 0, nil }, ""},
		{"its output tells why", func(context.Context, []string) ([]byte, int, error) { return []byte("no such file\n"), 1, nil }, "no such file"},
		{"without output, its code does", func(context.Context, []string) ([]byte, int, error) { return nil, 7, nil }, "exited with 7"},
		{"it cannot run", func(context.Context, []string) ([]byte, int, error) { return nil, 0, errors.New("not found") }, "not found"},
		{"it takes too long", func(ctx context.Context, _ []string) ([]byte, int, error) { <-ctx.Done(); return nil, 137, nil }, "timed out"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			check(t, Target{Exec: c.exec}.Ask(ctx, corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "/x"}}}), c.words)
		})
	}
}
