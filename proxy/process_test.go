package proxy

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/test/material"
	"github.com/lateen-mesh/lateen/wellknown"
)

// build makes the program as users have it, once for all tests.
func build(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and runs the program")
	}
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var (
	builtIn string // a folder that TestMain removes, "" when no test needed the program
	built   = sync.OnceValues(func() (path string, err error) {
		if builtIn, err = os.MkdirTemp("", "lateen-proxy-test-"); err != nil {
			return "", err
		}
		path = filepath.Join(builtIn, "lateen-proxy")
		if out, err := exec.Command("go", "build", "-o", path, "../cmd/lateen-proxy").CombinedOutput(); err != nil {
			return "", fmt.Errorf("%w\n%s", err, out)
		}
		return path, nil
	})
)

// process starts the program, by a shell's command if there is one; it is killed at the
// end if it still runs.
func process(t *testing.T, program, yaml string, shell ...string) (*running, *exec.Cmd) {
	t.Helper()
	dir := t.TempDir()
	address := filepath.Join(dir, "admin")
	r := &running{t: t, log: &syncBuffer{}, http: http.Client{Transport: &http.Transport{}}}
	run := append(shell, program)
	cmd := exec.Command(run[0], append(run[1:], "--config-yaml", yaml+"\nadmin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}\n",
		"--admin-address-path", address, "--use-dynamic-base-id", "--concurrency", "1", "--drain-time-s", "20", "--file-flush-interval-msec", "20")...)
	cmd.Stderr = r.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails when it has ended
		_ = cmd.Wait()
		r.http.CloseIdleConnections()
	})
	for range 1000 {
		if text, err := os.ReadFile(address); err == nil && len(text) > 0 {
			r.admin = string(text)
			return r, cmd
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("no admin address\n%s", r.log)
	return nil, nil
}

// TestMemory: the bound of a sidecar with Bookinfo's configuration at rest, which is its own
// share of what it has in memory. It is ready at once.
func TestMemory(t *testing.T) {
	t.Parallel() // it waits for the collector of another process
	m := newManagement(t)
	goldenSidecar(t, m)
	r, cmd := process(t, build(t), m.bootstrap(""))
	r.eventually("/ready", "LIVE\n")
	limit, share := 12<<10, 0
	deadline := time.Now().Add(15 * time.Second)
	for time.Now().Before(deadline) { // the bound holds 10 s after ready; earlier is as good
		if share = shareKB(t, cmd.Process.Pid); share < limit {
			return
		}
		time.Sleep(250 * time.Millisecond)
	}
	t.Errorf("proportional share: %d KB, bound %d KB", share, limit)
}

// shareKB is a process's proportional share of memory (PSS).
func shareKB(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Skipf("this kernel does not tell the share of a process: %v", err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "Pss:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no Pss")
	return 0
}

func TestSignals(t *testing.T) {
	program := build(t)
	t.Run("WI-031 SIGTERM drains, then the process ends in order", func(t *testing.T) {
		r, cmd := process(t, program, tcpBootstrap(t))
		r.eventually("/ready", "LIVE\n")
		c := dial(t, r.listener("tcp"))
		echoes(t, c, "hello")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		r.eventually("/ready", "DRAINING\n")
		echoes(t, c, "still here")
		_ = c.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Run("SIGINT ends it at once", func(t *testing.T) {
		r, cmd := process(t, program, tcpBootstrap(t))
		r.eventually("/ready", "LIVE\n")
		c := dial(t, r.listener("tcp"))
		echoes(t, c, "hello")
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("the connection lives on")
		}
	})
	t.Run("a second proxy with the same base id is refused, --version and validation need none", func(t *testing.T) {
		out, err := exec.Command(program, "--config-yaml", tcpBootstrap(t), "--mode", "validate").CombinedOutput()
		if err != nil || string(out) != "configuration '' OK\n" {
			t.Errorf("%v %s", err, out)
		}
		out, err = exec.Command(program, "--version").CombinedOutput()
		if err != nil || !strings.Contains(string(out), "version: ") || strings.Count(string(out), "/") < 4 {
			t.Errorf("%v %s", err, out)
		}
		out, err = exec.Command(program, "--no-such-flag").CombinedOutput()
		if err == nil || !strings.HasPrefix(string(out), "PARSE ERROR: Argument: --no-such-flag\n") {
			t.Errorf("%v %s", err, out)
		}
	})
	t.Run("SIGTERM ends it though nobody reads its access log", func(t *testing.T) {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer read.Close() // never read
		defer write.Close()
		_ = write.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		if n, err := write.Write(make([]byte, 1<<20)); err == nil {
			t.Fatalf("the pipe took %d bytes", n)
		}
		r, cmd := process(t, program, `
static_resources:
  clusters: [`+staticCluster("none", "127.0.0.1:1")+`]
  listeners: [`+strings.Replace(tcpListener("l", "none"), "stat_prefix: p", "stat_prefix: p, access_log: "+strings.Replace(accessLog, "PATH", "/dev/stdout", 1), 1)+`]
`, "sh", "-c", fmt.Sprintf(`exec "$0" "$@" >/proc/%d/fd/%d`, os.Getpid(), write.Fd()))
		r.eventually("/ready", "LIVE\n")
		_, _ = dial(t, r.listener("l")).Read(make([]byte, 1)) // refused: one line
		r.eventually("/stats?filter=write_buffered", "filesystem.write_buffered: 1\n")
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	t.Run("SIGUSR1 opens the log files anew", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "access.log")
		logs := strings.Replace(accessLog, "PATH", path, 1)
		r, cmd := process(t, program, `
static_resources:
  clusters: [`+staticCluster("none", "127.0.0.1:1")+`]
  listeners: [`+strings.Replace(tcpListener("l", "none"), "stat_prefix: p", "stat_prefix: p, access_log: "+logs, 1)+`]
`)
		r.eventually("/ready", "LIVE\n")
		_, _ = dial(t, r.listener("l")).Read(make([]byte, 1)) // refused: one line
		logLines(t, path, 1)
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		for range 1000 {
			if _, err := os.Stat(path); err == nil {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		_, _ = dial(t, r.listener("l")).Read(make([]byte, 1))
		logLines(t, path, 1)
	})
}

// goldenSidecar loads m with what the original sent to a sidecar.
func goldenSidecar(t *testing.T, m *management) {
	t.Helper()
	dir := material.Path(t, "golden", "s001a-bookinfo-all-v1", "sidecar")
	for file, kind := range goldenTypes {
		m.set(t, kind.url, golden(t, filepath.Join(dir, file+".json"), kind.fresh)...)
	}
	m.set(t, wellknown.SecretType, secrets(t)...)
}
