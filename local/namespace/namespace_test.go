package namespace

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A half is a running inner half.
type half struct {
	*insight
	starter *exec.Cmd
	stdin   io.Closer
	inside  int // its process, as this test sees it
}

// start runs a starter with its inner half.
func (w way) start(t *testing.T) *half {
	t.Helper()
	w.permitted(t)
	h := &half{starter: w.command(t, "starter"), insight: &insight{}}
	var err error
	if h.stdin, err = h.starter.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := h.starter.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := h.starter.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.stdin.Close(); _ = h.starter.Process.Kill(); _ = h.starter.Wait() })
	if err := json.NewDecoder(out).Decode(h.insight); err != nil {
		t.Fatalf("the inner half: %v", err)
	}
	for _, pid := range descendants(h.starter.Process.Pid) {
		if status(pid)["NSpid"] == fmt.Sprintf("%d\t1", pid) {
			h.inside = pid
		}
	}
	if h.inside == 0 {
		t.Fatal("no process is pid 1 inside")
	}
	return h
}

func TestTheInnerHalfIsAlone(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			before := mounts(t)
			h := w.start(t)
			if h.PID != 1 {
				t.Errorf("the program is pid %d, want 1", h.PID)
			}
			if want := []string{"/proc/1", fmt.Sprintf("/proc/%d", h.Child)}; !slices.Equal(h.Processes, want) {
				t.Errorf("/proc shows %v, want %v", h.Processes, want)
			}
			if !slices.Contains(h.Links, "/sys/class/net/lo") || slices.Contains(h.Links, "/sys/class/net/eth0") {
				t.Errorf("/sys shows the links %v, want only those of the new network namespace", h.Links)
			}
			if !h.LoopUp {
				t.Error("loopback is not up")
			}
			if after := mounts(t); after != before {
				t.Errorf("the machine's mounts have changed:\n%s\nwere\n%s", after, before)
			}
			if err := h.stdin.Close(); err != nil {
				t.Fatal(err)
			}
			var exit *exec.ExitError
			if err := h.starter.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
				t.Errorf("the starter ended with %v, want the inner half's exit status 7", err)
			}
		})
	}
}

func TestNothingOutlivesEitherHalf(t *testing.T) {
	for _, w := range ways() {
		for _, victim := range []string{"starter", "inner half"} {
			t.Run(w.name+", kill -9 of the "+victim, func(t *testing.T) {
				before := mounts(t)
				h := w.start(t)
				all := append(descendants(h.starter.Process.Pid), h.starter.Process.Pid)
				if len(all) != 3 {
					t.Fatalf("processes %v, want starter, inner half and its child", all)
				}
				network := networkOf(t, h.inside)
				pid := h.inside
				if victim == "starter" {
					pid = h.starter.Process.Pid
				}
				if err := unix.Kill(pid, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				_ = h.starter.Wait()
				for _, pid := range all {
					gone(t, pid)
				}
				if users := inNetwork(network); len(users) > 0 {
					t.Errorf("processes %v keep the network namespace", users)
				}
				if after := mounts(t); after != before {
					t.Errorf("the machine's mounts have changed:\n%s\nwere\n%s", after, before)
				}
			})
		}
	}
}

func TestAnotherUsersProgramIsNotEntered(t *testing.T) {
	if err := Enter(); err == nil {
		t.Error("a program that Command has not started could enter its namespaces")
	}
}

// TestChildrenLiveOnWhenTheirStarterReturns shows what a Thread is for: a goroutine's own thread
// would end with it, and take its children along.
func TestChildrenLiveOnWhenTheirStarterReturns(t *testing.T) {
	thread := NewThread()
	start := func() *exec.Cmd {
		cmd := exec.Command("cat")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		return cmd
	}
	locked := start()
	if _, err := locked.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	kept := start()
	stdin, err := kept.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	kept.Stdout = &out
	ended := make(chan error)
	go dying(func() {
		err := locked.Start()
		if err == nil {
			err = thread.Start(kept)
		}
		ended <- err
	})
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	_ = locked.Wait()
	if state, ok := locked.ProcessState.Sys().(syscall.WaitStatus); !ok || state.Signal() != syscall.SIGKILL {
		t.Errorf("the child of a thread that ended: %v, want killed", locked.ProcessState)
	}
	fmt.Fprint(stdin, "alive")
	_ = stdin.Close()
	if err := kept.Wait(); err != nil || out.String() != "alive" {
		t.Errorf("the child of a Thread answered %q, %v", out.String(), err)
	}
}

// dying runs f on a thread that ends with it, which the first of a process never does.
func dying(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go dying(func() { defer close(done); f() })
	<-done
	runtime.UnlockOSThread()
}

func TestRefusalsNameCauseAndCure(t *testing.T) {
	type settings map[string]string
	for _, c := range []struct {
		name        string
		step        string
		err         error
		settings    settings
		cause, cure string
	}{
		{"limit of user namespaces", stepClone, unix.ENOSPC, settings{userNamespaces: "0"}, "user.max_user_namespaces is 0", "sysctl user.max_user_namespaces=15000"},
		{"limit of network namespaces", stepClone, unix.ENOSPC, settings{"user.max_net_namespaces": "0"}, "user.max_net_namespaces is 0", "sysctl user.max_net_namespaces=15000"},
		{"limit used up", stepClone, unix.ENOSPC, settings{userNamespaces: "31"}, "user.max_user_namespaces is 31, and so many are in use", "sysctl user.max_user_namespaces=15000"},
		{"Debian's setting", stepClone, unix.EPERM, settings{unprivileged: "0"}, "kernel.unprivileged_userns_clone is 0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"container", stepClone, unix.EPERM, nil, "may not make namespaces", "inside a container"},
		{"old kernel", stepClone, unix.EINVAL, nil, "the kernel has no such namespaces", "run a kernel with"},
		{"AppArmor at the map", stepMap, unix.EPERM, settings{restricted: "1"}, "AppArmor", "userns, }"},
		{"AppArmor at the mount", stepMount, unix.EACCES, settings{restricted: "1"}, "AppArmor", "apparmor_parser"},
		{"map refused", stepMap, unix.EPERM, nil, "may not make namespaces", "run as root"},
		{"hidden /proc", stepProc, unix.EPERM, nil, "parts of /proc are hidden", "inside a container"},
		{"no veth", stepLink, unix.EOPNOTSUPP, nil, "veth", "modprobe veth"},
		{"no nftables", stepRules, unix.ENOENT, nil, "nftables", "nft_redir"},
		{"unknown", stepMount, unix.EIO, nil, "mount: input/output error", "gateways"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := refuse(c.step, c.err, func(name string) string { return c.settings[name] })
			if !strings.Contains(r.Error(), c.cause) || strings.Contains(r.Error(), "\n") {
				t.Errorf("error %q, want one line with %q", r.Error(), c.cause)
			}
			if !strings.Contains(r.Hint, c.cure) || strings.Contains(r.Hint, "\n") {
				t.Errorf("hint %q, want one line with %q", r.Hint, c.cure)
			}
			if !errors.Is(r, c.err) {
				t.Errorf("%v hides %v", r, c.err)
			}
		})
	}
}

// TestProbeReportsTheFirstRefusal takes namespaces away for real, in an inner half whose limits
// are its own.
func TestProbeReportsTheFirstRefusal(t *testing.T) {
	for _, w := range ways() {
		t.Run(w.name, func(t *testing.T) {
			w.permitted(t)
			cmd := w.command(t, "starter")
			cmd.Env = append(cmd.Env, "LATEEN_TEST_LIMIT=user.max_net_namespaces")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if want := "pods cannot run here: clone: "; !strings.HasPrefix(string(out), want) || !strings.Contains(string(out), "user.max_net_namespaces is 0") {
				t.Errorf("probe without network namespaces: %q", out)
			}
		})
	}
}

// mounts are this process's.
func mounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// status reads /proc/PID/status; of a process that is gone it is empty.
func status(pid int) map[string]string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	fields := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.TrimSpace(value)
	}
	return fields
}

// descendants are the processes below one.
func descendants(pid int) (all []int) {
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, task := range tasks {
		text, _ := os.ReadFile(task)
		for field := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(append(all, child), descendants(child)...)
			}
		}
	}
	return all
}

// gone waits until a process has ended. As root the dead may stay as zombies until the machine's
// pid 1 fetches them.
func gone(t *testing.T, pid int) {
	t.Helper()
	for range 500 {
		if state := status(pid)["State"]; state == "" || state[0] == 'Z' || state[0] == 'X' {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("process %d lives: %v", pid, status(pid))
}

// networkOf names the network namespace of a process.
func networkOf(t *testing.T, pid int) string {
	t.Helper()
	name, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// inNetwork are the processes in a network namespace.
func inNetwork(name string) (pids []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range all {
		if at, err := os.Readlink(link); err == nil && at == name {
			pids = append(pids, link)
		}
	}
	return pids
}
