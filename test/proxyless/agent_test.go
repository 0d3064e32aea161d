package proxyless

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"google.golang.org/grpc/xds"

	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/ports"
)

// TestAgent has programs start from the file that pilot-agent writes, and reach the control
// plane through its socket. The agent is an ordinary user's.
func TestAgent(t *testing.T) {
	p := start(t, nil)
	pod := p.pod("GRPC_XDS_BOOTSTRAP")
	s, err := xds.NewGRPCServer(xds.BootstrapContentsForTesting(pod))
	if err != nil {
		t.Fatal(err)
	}
	p.write("echo.yaml", echo(serveWith(t, "v1", s, ports.One())))
	c := p.dialFrom(pod, host)
	t.Run("EN-045 client and server start from the agent's file", func(t *testing.T) {
		eventually(t, "an answer", func() bool { name, err := c.call(context.Background(), "hello"); return err == nil && name == "v1" })
	})
	nodes := map[string]bool{}
	for _, proxy := range p.server.Status().Proxies {
		nodes[proxy.Node] = true
	}
	if want := "sidecar~127.0.0.1~web-1.default~default.svc.cluster.local"; len(nodes) != 1 || !nodes[want] {
		t.Errorf("nodes %v, want %s", nodes, want)
	}
}

// pod runs an agent that is told by a variable where to write the bootstrap of programs, and
// returns what it writes.
func (p *plane) pod(variable string) []byte {
	p.t.Helper()
	dir, err := os.MkdirTemp("", "pod") // t.TempDir may be too long for a socket
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { os.RemoveAll(dir) })
	file, program := filepath.Join(dir, "xds", "bootstrap.json"), filepath.Join(dir, "pilot-agent")
	if out, err := exec.Command("cp", build.Command(p.t, "pilot-agent"), program).CombinedOutput(); err != nil { // where every user can run it
		p.t.Fatalf("%v: %s", err, out)
	}
	n := ports.Claim(4)
	cmd := exec.Command(program, "proxy", "sidecar", "--domain", "default.svc.cluster.local", "--configPath", filepath.Join(dir, "proxy"),
		"--podInfo", dir, "--sockets", filepath.Join(dir, "none"), "--identity", filepath.Join(dir, "identity"), "--meshConfig", filepath.Join(dir, "mesh"), "--concurrency", "1")
	cmd.Env = append(os.Environ(), "POD_NAME=web-1", "POD_NAMESPACE=default", "INSTANCE_IP=127.0.0.1", variable+"="+file,
		"ENVOY_STATUS_PORT="+strconv.Itoa(n[0]), "ENVOY_PROMETHEUS_PORT="+strconv.Itoa(n[1]),
		fmt.Sprintf(`PROXY_CONFIG={"discoveryAddress": %q, "proxyAdminPort": %d, "statusPort": %d}`, p.address, n[2], n[3]))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Getuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
		if err := os.Chown(dir, 65534, 65534); err != nil {
			p.t.Fatal(err)
		}
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	var text []byte
	eventually(p.t, "the file of the agent", func() bool { text, err = os.ReadFile(file); return err == nil })
	return slices.Clip(text)
}
