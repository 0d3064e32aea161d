package namespace

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.uber.org/goleak"
)

// partVariable says which program the test binary is: beside the test there are the starter of
// an inner half, and the inner half.
const partVariable = "LATEEN_TEST_PART"

const nobody = 65534

func TestMain(m *testing.M) {
	Child()
	switch os.Getenv(partVariable) {
	case "probe":
		_, err := Probe(context.Background(), "/proc/self/exe")
		if err != nil {
			fmt.Print(err)
		}
		os.Exit(0)
	case "limited":
		setting := "/proc/sys/" + strings.ReplaceAll(os.Getenv("LATEEN_TEST_LIMIT"), ".", "/")
		if err := os.WriteFile(setting, []byte("0"), 0); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		_, err := Probe(context.Background(), "/proc/self/exe")
		fmt.Print(err)
		os.Exit(0)
	case "starter":
		os.Exit(startInner())
	case "inner":
		os.Exit(inner())
	}
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/lateen-mesh/lateen/local/namespace.(*Thread).run"))
}

// startInner runs the inner half and waits for its end.
func startInner() int {
	cmd := Command(context.Background(), "/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), partVariable+"=inner")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := NewThread().Start(cmd); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode()
}

// An insight is what the inner half sees.
type insight struct {
	PID       int
	Processes []string // in /proc
	Links     []string // in /sys
	LoopUp    bool
	Child     int // a process in a session of its own, in this PID namespace
}

// inner tells what it sees and then waits for the end of its input.
func inner() int {
	if err := Enter(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if limit := os.Getenv("LATEEN_TEST_LIMIT"); limit != "" {
		return probeWithout(limit)
	}
	child := exec.Command("sleep", "1000")
	child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	sees := insight{PID: os.Getpid(), Child: child.Process.Pid}
	sees.Processes, _ = filepath.Glob("/proc/[0-9]*")
	sees.Links, _ = filepath.Glob("/sys/class/net/*")
	flags, _ := os.ReadFile("/sys/class/net/lo/flags")
	sees.LoopUp = string(flags) == "0x9\n"
	if err := json.NewEncoder(os.Stdout).Encode(sees); err != nil {
		return 1
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 7
}

// probeWithout probes with a limit of namespaces set to 0, which counts in here only for who has
// a user namespace of his own. As root it is therefore tried in one.
func probeWithout(limit string) int {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), partVariable+"=limited")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	if err := cmd.Run(); err != nil {
		fmt.Fprintln(os.Stderr, limit, err)
		return 1
	}
	return 0
}

// A way is whose rights a mesh has.
type way struct {
	name string
	uid  int
}

// ways are as root and as an ordinary user, or the latter only where we are one.
func ways() []way {
	if uid := os.Getuid(); uid != 0 {
		return []way{{"as an ordinary user", uid}}
	}
	return []way{{"as root", 0}, {"as an ordinary user", nobody}}
}

// command is this binary as one of its other programs, from a copy that everybody may execute.
func (w way) command(t *testing.T, part string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(copied(t))
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), partVariable+"="+part)
	cmd.Stderr = os.Stderr
	if w.uid != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.uid)}}
	}
	return cmd
}

// permitted skips where the machine does not let this way have namespaces.
func (w way) permitted(t *testing.T) {
	t.Helper()
	refusal, err := w.command(t, "probe").Output()
	if err != nil {
		t.Fatal(err)
	}
	if len(refusal) > 0 {
		t.Skip(string(refusal))
	}
}

func copied(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lateen-namespace-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "test")
	if err := os.WriteFile(path, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
