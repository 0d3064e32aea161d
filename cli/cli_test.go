package cli_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lateen-mesh/lateen/cli"
	"github.com/lateen-mesh/lateen/local"
	"github.com/lateen-mesh/lateen/test/ports"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"lateen": lateen, "istioctl": lateen})
}

// lateen is the program under test, as cmd/lateen has it.
func lateen() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cli.Run(ctx, os.Args, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr})
	stop()
	os.Exit(code)
}

// TestScripts runs the files of testdata. Beside testscript's own commands they have
//
//	fetch URL HOST WANT          GET with a Host header until "STATUS BODY" holds WANT
//	until TEXT COMMAND…          run a command until its output holds TEXT
//	kill9 PART STATE PID-FILE    kill a part of a mesh, or its supervisor ("up"); list who must be gone then
//	gone PID-FILE                wait until none of the listed processes is alive
//	occupy PORT                  take a port
func TestScripts(t *testing.T) {
	bin := build(t)
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("BIN", bin)
			e.Setenv("PROXY", gatewayProgram(bin))
			e.Setenv("STATE", filepath.Join(e.WorkDir, "state"))
			for _, dir := range []string{"state", "second"} { // what a failed script leaves
				e.Defer(func() { _ = local.Down(context.Background(), filepath.Join(e.WorkDir, dir)) })
			}
			for i := 1; i <= 4; i++ {
				e.Setenv("PORT"+strconv.Itoa(i), strconv.Itoa(ports.One()))
			}
			return nil
		},
		Condition: func(name string) (bool, error) {
			if name == "gateway" {
				return gatewayProgram(bin) != "", nil
			}
			return false, fmt.Errorf("unknown condition %s", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fetch": fetch, "until": until, "kill9": kill9, "gone": gone, "occupy": occupy,
		},
	})
}

// build makes the programs that lateen up runs.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("go", "build", "-ldflags", "-s -w", "-o", dir, "../cmd/istiod", "../cmd/lateen-engine", "../cmd/lateen-proxy").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

// gatewayProgram is what LATEEN_GATEWAY names, else lateen-proxy, else the real
// Envoy where it is installed.
func gatewayProgram(bin string) string {
	if path := os.Getenv("LATEEN_GATEWAY"); path != "" {
		return path
	}
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, _ := os.UserHomeDir()
		cache = filepath.Join(home, ".cache")
	}
	for _, path := range []string{filepath.Join(bin, "lateen-proxy"), filepath.Join(cache, "lateen", "envoy-1.40.0", "envoy")} {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

const patience = 30 * time.Second

// poll repeats a check until it passes.
func poll(ts *testscript.TestScript, check func() error) {
	deadline := time.Now().Add(patience)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func get(url, host string) (string, error) {
	r, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	r.Host = host
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	reply, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(io.LimitReader(reply.Body, 1<<20))
	return fmt.Sprintf("%d %s", reply.StatusCode, body), err
}

// fetch URL HOST WANT waits for an answer that holds WANT.
func fetch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: fetch URL HOST WANT")
	}
	poll(ts, func() error {
		got, err := get(args[0], args[1])
		if err == nil && !strings.Contains(got, args[2]) {
			err = fmt.Errorf("got %q, want %q", got, args[2])
		}
		return err
	})
}

// until PATTERN COMMAND… runs a command until its output holds PATTERN.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until TEXT COMMAND...")
	}
	poll(ts, func() error {
		err := ts.Exec(args[1], args[2:]...)
		if out := ts.ReadFile("stdout"); err == nil && !strings.Contains(out, args[0]) {
			err = fmt.Errorf("no %q in %s", args[0], out)
		}
		return err
	})
}

// pids lists the processes of a mesh, by part, its supervisor as "up".
func pids(dir string) (map[string]int, error) {
	text, err := os.ReadFile(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	up, err := strconv.Atoi(string(text))
	if err != nil {
		return nil, err
	}
	all := map[string]int{"up": up}
	parts, err := os.ReadFile(filepath.Join(dir, "parts.json"))
	if err != nil {
		return nil, err
	}
	name := ""
	for line := range strings.SplitSeq(string(parts), "\n") {
		key, value, _ := strings.Cut(strings.Trim(strings.TrimSpace(line), ","), ": ")
		switch key {
		case `"name"`:
			name = strings.Trim(value, `"`)
		case `"pid"`:
			if all[name], err = strconv.Atoi(value); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func kill9(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: kill9 PART STATE PID-FILE")
	}
	all, err := pids(args[1])
	ts.Check(err)
	pid := all[args[0]]
	if pid == 0 {
		ts.Fatalf("no process %s in %v", args[0], all)
	}
	var list []string
	for name, p := range all {
		if args[0] == "up" || name == args[0] {
			list = append(list, strconv.Itoa(p))
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), []byte(strings.Join(list, "\n")), 0o600))
	ts.Check(syscall.Kill(pid, syscall.SIGKILL))
}

func gone(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: gone PID-FILE")
	}
	for line := range strings.SplitSeq(ts.ReadFile(args[0]), "\n") {
		pid, err := strconv.Atoi(line)
		ts.Check(err)
		poll(ts, func() error {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if errors.Is(err, os.ErrNotExist) || err == nil && strings.Contains(string(stat), ") Z ") {
				return nil
			}
			return fmt.Errorf("process %d is alive", pid)
		})
	}
}

// occupy PORT takes a port of all addresses until the script ends.
func occupy(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: occupy PORT")
	}
	l, err := net.Listen("tcp4", "0.0.0.0:"+args[0])
	ts.Check(err)
	ts.Defer(func() { l.Close() })
}
