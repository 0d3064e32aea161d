package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/control/kube/kubetest"
)

func TestKubernetesFlags(t *testing.T) {
	api := kubetest.New(t).Start()
	api.Apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: web}\n")
	page := filepath.Join(filepath.Dir(api.Socket), "http")
	var out buffer
	cmd := newCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"discovery", "--kubeSocket", api.Socket, "--kubernetesApiQPS", "200", "--kubernetesApiBurst", "300", "--meshConfig", "",
		"--grpcAddr", "", "--httpAddr", "unix:" + page, "--monitoringAddr", "", "--secureGRPCAddr", "", "--httpsAddr", ""})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- cmd.ExecuteContext(ctx) }()
	t.Run("EN-023 EN-026 discovery reads the API that flags name, at the rate that they allow", func(t *testing.T) {
		status := ""
		for deadline := time.Now().Add(20 * time.Second); !strings.Contains(status, `"synced": true`); {
			if time.Now().After(deadline) {
				t.Fatalf("not synced: %s\n%s", status, &out)
			}
			time.Sleep(2 * time.Millisecond)
			status = get(page, "/debug/status")
		}
		if !strings.Contains(status, `"server": "`+api.Socket+`"`) || strings.Contains(out.String(), "no effect") {
			t.Errorf("status %s, log %s", status, &out)
		}
	})
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("discovery ended with %v, want a clean end", err)
	}

	for _, c := range []struct {
		name, want string
		args       []string
	}{
		{"a kubeconfig that is not there", "/nonexistent", []string{"--kubeconfig", "/nonexistent"}},
		{"two APIs", "only one can be meant", []string{"--kubeconfig", "/nonexistent", "--kubeSocket", api.Socket}},
	} {
		t.Run(c.name+" is refused", func(t *testing.T) {
			_, err := run(append([]string{"discovery", "--grpcAddr", "", "--httpAddr", "", "--monitoringAddr", "", "--secureGRPCAddr", ""}, c.args...)...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q in it", err, c.want)
			}
		})
	}
	t.Run("in a cluster its own API is meant, unless there are files", func(t *testing.T) {
		t.Setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
		for dir, want := range map[string]bool{"": true, t.TempDir(): false} {
			f := flags{}
			if dir != "" {
				f.configDir = []string{dir}
			}
			if o, err := f.options(nil); err != nil || (o.Kubernetes != nil) != want {
				t.Errorf("--configDir %q: %v, %v", dir, o.Kubernetes, err)
			}
		}
	})
}
