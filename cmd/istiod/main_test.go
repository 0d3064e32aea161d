package main

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/wellknown"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// run executes a command line to its end.
func run(args ...string) (string, error) {
	var out buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.Execute()
	return out.String(), err
}

func TestDiscovery(t *testing.T) {
	dir, err := os.MkdirTemp("", "istiod")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "ns.yaml"), []byte("apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	page := filepath.Join(dir, "http")
	var out buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"discovery", "--configDir", dir, "--meshConfig", filepath.Join(dir, "mesh"), "--grpcAddr", "unix:" + filepath.Join(dir, "grpc") + ",unix:" + filepath.Join(dir, "grpc2"),
		"--httpAddr", "unix:" + page + ",unix:" + page + "2", "--monitoringAddr", "127.0.0.1:0", "--secureGRPCAddr", "", "--registries", "Mock", "--log_as_json", "--log_output_level", "adz:debug,ads:debug"})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	t.Run("EN-019 discovery runs the control plane", func(t *testing.T) {
		body := ""
		for deadline := time.Now().Add(20 * time.Second); body != "ok\n"; {
			if time.Now().After(deadline) {
				t.Fatalf("not ready: %q\n%s", body, &out)
			}
			time.Sleep(2 * time.Millisecond)
			body = get(page, "/ready")
		}
		if got := get(page, "/debug/status"); !strings.Contains(got, `"objects": 1`) {
			t.Errorf("status: %s", got)
		}
	})
	t.Run("EN-024 several addresses serve the same", func(t *testing.T) {
		if body := get(page+"2", "/ready"); body != "ok\n" {
			t.Errorf("second address of the pages: %q", body)
		}
		c, err := net.Dial("unix", filepath.Join(dir, "grpc2"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
	})
	t.Run("flags without effect are said, those of value \"\" are not", func(t *testing.T) {
		if !strings.Contains(out.String(), `"msg":"flag has no effect yet","flag":"--registries"`) || strings.Contains(out.String(), "secureGRPCAddr") {
			t.Errorf("log:\n%s", &out)
		}
	})
	t.Run("EN-025 a scope that does not exist is said", func(t *testing.T) {
		if !strings.Contains(out.String(), `"msg":"--log_output_level names scopes that do not exist","scopes":"[adz]"`) {
			t.Errorf("log:\n%s", &out)
		}
	})
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("discovery ended with %v, want a clean end", err)
	}
}

func get(socket, path string) string {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	r, err := client.Get("http://control" + path)
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	var b bytes.Buffer
	_, _ = b.ReadFrom(r.Body)
	return b.String()
}

func TestDefaults(t *testing.T) {
	flags := newDiscovery().Flags()
	for name, want := range map[string]string{
		"meshConfig": "/etc/istio/config/mesh", "networksConfig": "/etc/istio/config/meshNetworks", "domain": "cluster.local",
		"clusterID": "Kubernetes", "namespace": "istio-system", "registries": "[Kubernetes]", "httpAddr": ":8080", "httpsAddr": ":15017",
		"grpcAddr": ":15010", "secureGRPCAddr": ":15012", "monitoringAddr": ":15014", "ctrlz_port": "9876", "ctrlz_address": "localhost",
		"shutdownDuration": "10s", "keepaliveInterval": "30s", "keepaliveTimeout": "10s", "keepaliveMaxServerConnectionAge": "30m0s",
		"kubernetesApiQPS": "80", "kubernetesApiBurst": "160", "log_output_level": "default:info",
	} {
		if f := flags.Lookup(name); f == nil || f.DefValue != want {
			t.Errorf("--%s: %+v, want default %s", name, f, want)
		}
	}
}

func TestFailures(t *testing.T) {
	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"unknown flag", "unknown flag: --confgDir", []string{"discovery", "--confgDir", "x"}},
		{"an argument too many", "unknown command", []string{"discovery", "x"}},
		{"EN-025 a level that does not exist", `--log_output_level: log level "ads:loud"`, []string{"discovery", "--log_output_level", "ads:loud"}},
		{"a directory that does not exist", "no-such-dir", []string{"discovery", "--configDir", "no-such-dir"}},
		{"EN-024 an address that is none", "--grpcAddr", []string{"discovery", "--grpcAddr", "nonsense"}},
		{"request where nobody listens", "connection refused", []string{"request", "GET", "/version", "--address", "127.0.0.1:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := run(c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	t.Run("a MeshConfig that is named and not there is said", func(t *testing.T) {
		out, _ := run("discovery", "--meshConfig", "no-such.yaml", "--configDir", "no-such-dir")
		if !strings.Contains(out, "no MeshConfig: the defaults are in force") || !strings.Contains(out, "no-such.yaml") {
			t.Errorf("log %q", out)
		}
		if out, _ := run("discovery", "--configDir", "no-such-dir"); strings.Contains(out, "MeshConfig") {
			t.Errorf("log without the flag %q", out)
		}
	})
	for name, value := range map[string]string{"PILOT_DEBOUNCE_AFTER": "soon", "PILOT_TRACE_SAMPLING": "101"} {
		t.Run(name+" that is none", func(t *testing.T) {
			t.Setenv(name, value)
			if _, err := run("discovery"); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestRequestAndVersion(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/version" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = w.Write([]byte(r.Method + " " + r.URL.Path))
	})}
	go func() { _ = server.Serve(l) }()
	defer server.Close()
	t.Run("EN-027 request and version", func(t *testing.T) {
		if out, err := run("request", "get", "version", "--address", l.Addr().String()); err != nil || out != "GET /version" {
			t.Errorf("request: %q %v", out, err)
		}
		if _, err := run("request", "GET", "/none", "--address", l.Addr().String()); err == nil || !strings.Contains(err.Error(), "404") {
			t.Errorf("request of a page that is not there: %v", err)
		}
		if out, err := run("version"); err != nil || out != wellknown.Version()+"\n" {
			t.Errorf("version: %q %v", out, err)
		}
	})
	http.DefaultClient.CloseIdleConnections()
}
