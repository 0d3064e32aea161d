package agent

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// imageProxy is where the original's image has its proxy: ProxyConfig names it by default.
const imageProxy = "/usr/local/bin/envoy"

// endTimeout is how long another proxy has to end when it is told to.
const endTimeout = 2 * time.Second

// program is another proxy's, "" for the one in this process.
func (f *proxyFlags) program(p *pod) string {
	if f.proxy != "" {
		return f.proxy
	}
	if path := p.config.GetBinaryPath(); path != "" && path != imageProxy && exists(path) {
		return path
	}
	return ""
}

func (f *proxyFlags) foreign(p *pod) bool { return f.program(p) != "" }

// chosenProxy is the proxy in this process, or a program.
func (f *proxyFlags) chosenProxy(p *pod, own Proxy) (Proxy, error) {
	name := f.program(p)
	if name == "" {
		return own, nil
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("proxy: %w (user %d of this container is to run it: may it enter all directories of the path?)", err, os.Geteuid())
	}
	return func(ctx context.Context, args []string) error { return runProgram(ctx, path, args) }, nil
}

// runProgram runs a proxy as a child, which ends with this process whatever ends it.
func runProgram(ctx context.Context, path string, args []string) error {
	// The kernel sends the death signal when the thread ends that started the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // the program is the user's choice
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	// It is asked to end, so that it writes out its access log.
	cmd.Cancel, cmd.WaitDelay = func() error { return cmd.Process.Signal(syscall.SIGTERM) }, endTimeout
	err := cmd.Run()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// connections counts those that clients have to the proxy, but for its own pages.
func (a *agent) connections(ctx context.Context) (int, error) {
	var page bytes.Buffer
	if err := request(ctx, &page, a.admin(), http.MethodGet, `/stats?usedonly&filter=downstream_cx_active%24`, ""); err != nil {
		return 0, err
	}
	pages := []string{"." + "admin.", "_" + strconv.Itoa(a.pod.input.Health) + ".", "_" + strconv.Itoa(a.pod.input.Metrics) + "."}
	total := 0
	lines := bufio.NewScanner(&page)
next:
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ": ")
		if !strings.HasPrefix(name, "listener.") || strings.Contains(name, ".worker_") {
			continue
		}
		for _, own := range pages {
			if strings.Contains(name, own) {
				continue next
			}
		}
		n, _ := strconv.Atoi(value)
		total += n
	}
	return total, lines.Err()
}
