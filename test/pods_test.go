package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lateen-mesh/lateen/local"
	"github.com/lateen-mesh/lateen/local/namespace"
	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/material"
	"github.com/lateen-mesh/lateen/test/ports"
)

// nobody is the ordinary user of the tests.
const nobody = 65534

// TestPods runs the scripts of pods/, each on a mesh of its own, as root and as an
// ordinary user. A script drives it with stock kubectl; `up` starts it, and
// `eventually REGEXP COMMAND…` repeats a command until its output matches.
func TestPods(t *testing.T) {
	if testing.Short() {
		t.Skip("pods take their time: not in short runs")
	}
	bin := engineDir(t)
	var refusal *namespace.Refusal
	if _, err := namespace.Probe(t.Context(), filepath.Join(bin, "lateen-engine")); errors.As(err, &refusal) {
		t.Skipf("%v (%s)", err, refusal.Hint)
	}
	shared := material.Dir()
	for _, who := range []struct {
		name string
		uid  int
	}{{"root", 0}, {"user", nobody}} {
		if who.uid != os.Geteuid() && os.Geteuid() != 0 {
			continue // an ordinary user tests his own way
		}
		t.Run(who.name, func(t *testing.T) {
			testscript.Run(t, testscript.Params{
				Dir:                 "pods",
				WorkdirRoot:         openTemp(t),
				ContinueOnError:     false,
				RequireExplicitExec: true,
				Setup: func(e *testscript.Env) error {
					e.Vars = append(e.Vars, "PATH="+bin+":"+os.Getenv("PATH"), "KUBECONFIG="+e.WorkDir+"/state/kubeconfig",
						"STATE="+e.WorkDir+"/state", "SHARED="+shared, "SAMPLES="+absolute("../samples"), "HOME="+e.WorkDir, "UID="+strconv.Itoa(who.uid))
					if err := os.Chmod(e.WorkDir, 0o755); err != nil {
						return err
					}
					return os.Chown(e.WorkDir, who.uid, who.uid)
				},
				Condition: func(cond string) (bool, error) {
					switch cond {
					case "shared":
						return shared != "", nil
					case "root":
						return who.uid == 0, nil
					}
					return false, fmt.Errorf("unknown condition %q", cond)
				},
				Cmds: map[string]func(*testscript.TestScript, bool, []string){
					"up":          func(ts *testscript.TestScript, neg bool, args []string) { up(ts, neg, args, who.uid) },
					"eventually":  eventually,
					"kill9":       kill9,
					"nothingleft": nothingLeft,
					"remember":    remember,
				},
			})
		})
	}
}

// openTemp is a folder that other users can reach.
func openTemp(t *testing.T) string {
	dir, err := os.MkdirTemp("", "lateen-pods-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func absolute(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		panic(err)
	}
	return abs
}

// up is `lateen up --detach`, as the user of the run, with ports that are free. The mesh
// ends with the script; nothing of it may be left then.
func up(ts *testscript.TestScript, neg bool, args []string, uid int) {
	state := ts.Getenv("STATE")
	argv := []string{"up", "--detach", "--state", state}
	for _, port := range []string{"80", "443", "15021"} {
		host := strconv.Itoa(ports.One())
		argv = append(argv, "--publish", port+"="+host)
		ts.Setenv("PORT_"+port, host)
	}
	cmd := exec.Command(filepath.Join(strings.Split(ts.Getenv("PATH"), ":")[0], "lateen"), append(argv, args...)...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME")}
	if uid != os.Geteuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid), NoSetGroups: false}}
	}
	began := time.Now()
	out, err := cmd.CombinedOutput()
	ts.Logf("%s[up: %.2f s]", out, time.Since(began).Seconds())
	ts.Check(os.WriteFile(ts.MkAbs("up.out"), out, 0o644))
	switch {
	case neg && err == nil:
		ts.Fatalf("lateen up did not fail")
	case !neg && err != nil:
		for _, part := range []string{"up", "apiserver", "istiod", "node"} {
			if text, err := os.ReadFile(filepath.Join(state, "logs", part+".log")); err == nil {
				ts.Logf("log of %s:\n%s", part, text)
			}
		}
		ts.Fatalf("lateen up: %v", err)
	case neg:
		return
	}
	ts.Defer(func() {
		down := exec.Command(cmd.Path, "down", "--state", state)
		down.SysProcAttr = cmd.SysProcAttr
		if out, err := down.CombinedOutput(); err != nil && !strings.Contains(string(out), "no mesh runs in") {
			ts.Logf("lateen down: %v\n%s", err, out)
		}
	})
}

// kill9 kills one part of the mesh, the supervisor, or the program of a name in a pod whose name
// begins with the second argument.
func kill9(ts *testscript.TestScript, _ bool, args []string) {
	st, err := local.ReadRecord(ts.Getenv("STATE"))
	ts.Check(err)
	pid := 0
	if args[0] == "supervisor" {
		pid = st.PID
	}
	for _, p := range st.Parts {
		if p.Name == args[0] {
			pid = p.PID
		}
	}
	if pid == 0 && len(args) > 1 {
		pid = programOf(st.PID, args[0], args[1])
	}
	if pid == 0 {
		ts.Fatalf("no part or program %q runs: %+v", args, st.Parts)
	}
	ts.Check(syscall.Kill(pid, syscall.SIGKILL))
}

// programOf is the process of a program in a pod, 0 where there is none.
func programOf(supervisor int, program, pod string) int {
	for _, p := range descendants(supervisor) {
		environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", p.pid))
		words := strings.Fields(p.run)
		if err == nil && len(words) > 0 && filepath.Base(words[0]) == program && strings.Contains("\x00"+string(environ), "\x00HOSTNAME="+pod) {
			return p.pid
		}
	}
	return 0
}

// remember writes down all processes of the mesh, for nothingleft.
func remember(ts *testscript.TestScript, _ bool, _ []string) {
	st, err := local.ReadRecord(ts.Getenv("STATE"))
	ts.Check(err)
	var lines []string
	for _, p := range append(descendants(st.PID), process{pid: st.PID, started: startOf(st.PID)}) {
		lines = append(lines, fmt.Sprintf("%d %s", p.pid, p.started))
	}
	ts.Logf("%d processes", len(lines))
	ts.Check(os.WriteFile(ts.MkAbs("processes"), []byte(strings.Join(lines, "\n")), 0o600))
}

// nothingLeft waits until no process that was remembered is there any more.
func nothingLeft(ts *testscript.TestScript, _ bool, _ []string) {
	text := ts.ReadFile("processes")
	var left []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		left = nil
		for line := range strings.SplitSeq(text, "\n") {
			id, started, _ := strings.Cut(line, " ")
			pid, err := strconv.Atoi(id)
			ts.Check(err)
			if startOf(pid) == started {
				left = append(left, line)
			}
		}
		if len(left) == 0 {
			return
		}
	}
	ts.Fatalf("still there: %q", left)
}

// A process is one that lives, told from a later one of the same id by its start.
type process struct {
	pid, parent  int
	started, run string
}

// descendants are all processes below one.
func descendants(top int) (all []process) {
	below := map[int]bool{top: true}
	var every []process
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range entries {
		if pid, err := strconv.Atoi(filepath.Base(dir)); err == nil {
			if fields := statOf(pid); len(fields) > 19 {
				parent, _ := strconv.Atoi(fields[1])
				line, _ := os.ReadFile(filepath.Join(dir, "cmdline"))
				every = append(every, process{pid, parent, startOf(pid), strings.ReplaceAll(strings.TrimRight(string(line), "\x00"), "\x00", " ")})
			}
		}
	}
	for found := true; found; {
		found = false
		for _, p := range every {
			if below[p.parent] && !below[p.pid] {
				below[p.pid], found = true, true
				all = append(all, p)
			}
		}
	}
	return all
}

// startOf is when a process started, "" for none and for zombies.
func startOf(pid int) string {
	fields := statOf(pid)
	if len(fields) < 20 || fields[0] == "Z" {
		return ""
	}
	return fields[19]
}

// statOf are the fields of /proc/PID/stat from the state on.
func statOf(pid int) []string {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}

// eventually repeats a command until its output matches (with ! until it does not), for
// half a minute.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: eventually REGEXP COMMAND…")
	}
	want, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	program, err := lookPath(args[1], ts.Getenv("PATH"))
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		cmd := exec.CommandContext(ctx, program, args[2:]...)
		cmd.Dir = ts.MkAbs(".")
		cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME"), "KUBECONFIG=" + ts.Getenv("KUBECONFIG")}
		out, err := cmd.CombinedOutput()
		if want.Match(out) != neg {
			ts.Logf("%s", out)
			return
		}
		if ctx.Err() != nil {
			ts.Fatalf("never: %s\nlast output of %v (%v):\n%s", args[0], args[1:], err, out)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func lookPath(name, path string) (string, error) {
	for dir := range strings.SplitSeq(path, ":") {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", errors.New("not found: " + name)
}

// apiBuilt is done once: the API's own module gives the server, and stock kubectl where
// the machine has none.
var apiBuilt struct {
	once sync.Once
	err  error
}

// engine builds all that a mesh with pods needs into one folder and returns it.
func engineDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Dir(binary(t, "lateen"))
	apiBuilt.once.Do(func() {
		programs := []func(string) (string, error){build.APIServer}
		if _, err := exec.LookPath("kubectl"); err != nil {
			programs = append(programs, build.Kubectl)
		}
		for _, program := range programs {
			if _, apiBuilt.err = program(dir); apiBuilt.err != nil {
				return
			}
		}
		if err := os.Symlink("lateen", filepath.Join(dir, "istioctl")); err != nil && !errors.Is(err, os.ErrExist) {
			apiBuilt.err = err
			return
		}
		apiBuilt.err = os.Chmod(dir, 0o755)
	})
	if apiBuilt.err != nil {
		t.Fatal(apiBuilt.err)
	}
	return dir
}
