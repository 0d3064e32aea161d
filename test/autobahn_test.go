package test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/test/ports"
)

// wstest is the program of the Autobahn suite, "" where it is not installed. It wants
// Python 2.7: python2.7 -m virtualenv ~/.cache/lateen/autobahn, then the pip of that
// environment installs autobahntestsuite.
func wstest() string {
	if path, err := exec.LookPath("wstest"); err == nil {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	path := filepath.Join(home, ".cache", "lateen", "autobahn", "bin", "wstest")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// TestAutobahn runs the Autobahn suite's clients through our proxy to the suite's own
// echo server, and once straight to it: what the proxy does to frames of any kind, whole
// and broken, must not be seen.
func TestAutobahn(t *testing.T) {
	tool := wstest()
	if tool == "" {
		t.Skip("the Autobahn suite is not installed (PyPI autobahntestsuite, Python 2.7)")
	}
	// The server looks at the port in the host field: the proxy rewrites it.
	cases := []string{"1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "10.*"}
	if !testing.Short() {
		cases = append(cases, "9.*")
	}
	server, proxied := ports.One(), ports.One()
	run(t, server, tool, "-m", "echoserver", "-w", fmt.Sprintf("ws://127.0.0.1:%d", server))
	boot := filepath.Join(t.TempDir(), "bootstrap.yaml")
	if err := os.WriteFile(boot, []byte(fmt.Sprintf(webSocketBootstrap, proxied, server)), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, proxied, binary(t, "lateen-proxy"), "-c", boot, "--disable-hot-restart", "-l", "error")
	direct, through := verdicts(t, tool, server, cases), verdicts(t, tool, proxied, cases)
	if len(through) < 200 || len(through) != len(direct) {
		t.Fatalf("%d cases through the proxy, %d without", len(through), len(direct))
	}
	for _, name := range sorted(through) {
		t.Run("case "+name, func(t *testing.T) {
			got := through[name]
			if got.Behavior == "FAILED" || got.BehaviorClose == "FAILED" {
				t.Errorf("%+v", got)
			}
			// OK and NON-STRICT are both right: which it is depends on how bytes arrive.
			if strict := direct[name]; got.Behavior == "UNIMPLEMENTED" && strict.Behavior != got.Behavior {
				t.Errorf("%+v, without the proxy %+v", got, strict)
			}
		})
	}
}

const webSocketBootstrap = `
static_resources:
  listeners:
  - name: l
    address: {socket_address: {address: 127.0.0.1, port_value: %[1]d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          upgrade_configs: [{upgrade_type: websocket}]
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: up, timeout: 0s, host_rewrite_literal: "127.0.0.1:%[2]d"}}]}]}
          http_filters: [{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
  clusters:
  - name: up
    type: STATIC
    load_assignment: {cluster_name: up, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[2]d}}}}]}]}
`

// A verdict is what the suite says of one case.
type verdict struct {
	Behavior      string `json:"behavior"`
	BehaviorClose string `json:"behaviorClose"`
}

// verdicts runs the suite against a port.
func verdicts(t *testing.T, tool string, port int, cases []string) map[string]verdict {
	t.Helper()
	dir := t.TempDir()
	spec, err := json.Marshal(map[string]any{
		"outdir": dir, "servers": []any{map[string]any{"agent": "peer", "url": fmt.Sprintf("ws://127.0.0.1:%d", port)}},
		"cases": cases, "exclude-cases": []string{}, "exclude-agent-cases": map[string]any{},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "spec.json")
	if err := os.WriteFile(file, spec, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(tool, "-m", "fuzzingclient", "-s", file).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]map[string]verdict
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	return all["peer"]
}

func sorted(all map[string]verdict) (names []string) {
	for name := range all {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// run starts a program and waits until it listens on the port; it ends with the test.
func run(t *testing.T, port int, argv ...string) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for range 400 {
		if c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(25 * time.Millisecond)
	}
	t.Fatalf("%s does not listen on %d: %s", argv[0], port, out.String())
}
