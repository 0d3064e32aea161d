package container

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// busy is an inner half with containers in which more than their programs runs. It says when
// all that is there, and waits for its end.
func busy(t *testing.T) {
	r := newRuntime(t)
	for range 2 {
		c := script("setsid sleep 1000 & echo; exec sleep 1000")
		c.Limits.MemoryBytes = 64 << 20
		run := start(t, r, newNetwork(t), c)
		stdin, stdout, y := terminals(t)
		if _, err := run.Exec(t.Context(), Exec{Argv: []string{"sh", "-c", "sleep 1000 & echo there; exec sleep 1000"}, TTY: true, Stdin: stdin, Stdout: stdout}); err != nil {
			t.Fatal(err)
		}
		y.see(t, "there")
	}
	fmt.Println("all is there")
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func TestNothingOutlivesEitherHalf(t *testing.T) {
	if os.Getenv(partVariable) != "" {
		busy(t)
		return
	}
	for _, w := range ways() {
		for _, victim := range []string{"starter", "inner half"} {
			t.Run(w.name+", kill -9 of the "+victim, func(t *testing.T) {
				w.permitted(t)
				before := read(t, "/proc/self/mountinfo")
				state := t.TempDir()
				starter := w.busy(t, state)
				inner := descendants(starter.Process.Pid)
				// Two containers of two processes each, two execs of two each, and the inner half.
				if len(inner) != 9 {
					t.Fatalf("processes %v", inner)
				}
				networks := map[string]bool{}
				for _, pid := range inner {
					networks[networkOf(pid)] = true
				}
				if len(networks) != 3 {
					t.Fatalf("network namespaces %v, want the mesh's and two pods'", networks)
				}
				pid := starter.Process.Pid
				if victim == "inner half" {
					pid = inner[0]
				}
				if err := unix.Kill(pid, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				_ = starter.Wait()
				for _, pid := range inner {
					gone(t, pid)
				}
				for _, pid := range everybody() {
					if networks[networkOf(pid)] {
						t.Errorf("process %d keeps a network namespace", pid)
					}
				}
				if err := Sweep(state); err != nil {
					t.Error(err)
				}
				if left := groupsOf(t, state); len(left) > 0 {
					t.Errorf("memory groups %v stay", left)
				}
				if after := read(t, "/proc/self/mountinfo"); after != before {
					t.Errorf("the machine's mounts have changed:\n%s\nwere\n%s", after, before)
				}
			})
		}
	}
}

// busy starts an inner half with containers, and returns its starter.
func (w way) busy(t *testing.T, state string) *exec.Cmd {
	t.Helper()
	cmd := w.starter("-test.run=^TestNothingOutlivesEitherHalf$")
	cmd.Env = append(cmd.Env, stateVariable+"="+state)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() })
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "all is there\n" {
		rest, _ := io.ReadAll(out)
		t.Fatalf("the inner half: %q, %v\n%s%s", line, err, rest, errs.String())
	}
	return cmd
}

// groupsOf are the memory groups of a mesh.
func groupsOf(t *testing.T, state string) (all []string) {
	t.Helper()
	mount := findHierarchy(read(t, "/proc/self/mountinfo"), "").mount
	_ = filepath.WalkDir(mount, func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasPrefix(d.Name(), prefix(state)) {
			all = append(all, path)
		}
		return nil
	})
	return all
}

// descendants are the processes below one, the nearest first.
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
	var text []byte
	for range 1000 {
		var err error
		if text, err = os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil {
			return
		}
		if state := string(text[bytes.LastIndexByte(text, ')')+2:])[:1]; state == "Z" || state == "X" {
			return
		}
		yield()
	}
	t.Errorf("process %d lives: %s", pid, text)
}

func networkOf(pid int) string {
	name, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	return name
}

// everybody are all processes whose namespaces can be told.
func everybody() (all []int) {
	links, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, link := range links {
		if pid, err := strconv.Atoi(strings.Split(link, "/")[2]); err == nil && networkOf(pid) != "" {
			all = append(all, pid)
		}
	}
	return all
}

// TestContainersOutliveTheThreadThatAsked starts a container from a thread that then ends: it
// would take along what it had forked itself.
func TestContainersOutliveTheThreadThatAsked(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	lines, keys := io.Pipe()
	var out bytes.Buffer
	var c Container
	var thread int
	done := make(chan error)
	go dying(func() {
		thread = unix.Gettid()
		config := script("read line; echo $line")
		config.Stdin, config.Stdout = lines, &out
		var err error
		c, err = r.Start(t.Context(), nil, config)
		done <- err
	})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for unix.Tgkill(unix.Getpid(), thread, 0) == nil {
		yield()
	}
	if _, err := io.WriteString(keys, "alive\n"); err != nil {
		t.Fatal(err)
	}
	_ = keys.Close()
	if exit := c.Wait(); exit.Code != 0 || out.String() != "alive\n" {
		t.Errorf("%q, %+v", out.String(), exit)
	}
}

// TestTheMachinesNameServersAreNotSeen replaces the machine's resolv.conf by renaming, which
// would take away what is mounted on it. The machine is an inner half with an /etc of its own.
func TestTheMachinesNameServersAreNotSeen(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	etc := folder(t, map[string]string{"resolv.conf": "nameserver 192.0.2.1\n", "other.conf": "one\n"})
	if err := unix.Mount(etc, "/etc", "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	c := idle()
	c.Files = map[string]string{"resolv.conf": "nameserver 10.96.0.10\n"}
	run1 := start(t, r, nil, c)
	for name, text := range map[string]string{"resolv.conf": "nameserver 192.0.2.2\n", "other.conf": "two\n"} {
		if err := os.WriteFile(filepath.Join(etc, "new"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(etc, "new"), filepath.Join(etc, name)); err != nil {
			t.Fatal(err)
		}
	}
	if out, _, _ := run(t, run1, sh("cat /etc/resolv.conf /etc/other.conf")); out != "nameserver 10.96.0.10\ntwo" {
		t.Errorf("%q, want the pod's own resolv.conf and the machine's other file", out)
	}
}

// TestTwelveContainers prints how long twelve take to start, one after another and at once, and
// a program in one of them.
func TestTwelveContainers(t *testing.T) {
	if outside(t) {
		return
	}
	const count = 12
	r := newRuntime(t)
	began := time.Now()
	var one Container
	for range count {
		one = start(t, r, newNetwork(t), idle())
	}
	t.Logf("%d containers one after another: %v", count, time.Since(began))
	began = time.Now()
	var all sync.WaitGroup
	networks := make([]*os.File, count)
	for i := range networks {
		networks[i] = newNetwork(t)
	}
	for _, netns := range networks {
		all.Go(func() { start(t, r, netns, idle()) })
	}
	all.Wait()
	t.Logf("%d containers at once: %v", count, time.Since(began))
	began = time.Now()
	run(t, one, Exec{Argv: []string{"true"}})
	t.Logf("exec of true: %v", time.Since(began))
	if left := processes(t); len(left) < 1+2*count {
		t.Errorf("%d processes, want the test and those of %d containers", len(left), 2*count)
	}
}

// TestNothingIsKept starts and ends containers and programs in every way, and counts descriptors
// and processes.
func TestNothingIsKept(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	round := func() {
		var out bytes.Buffer
		c := idle()
		c.Stdout, c.Stdin, c.UID, c.GID, c.Limits.MemoryBytes = &out, strings.NewReader("x"), 1000, 1000, 32<<20
		one, err := r.Start(t.Context(), nil, c)
		if err != nil {
			t.Error(err)
			return
		}
		run(t, one, sh("echo"))
		p, err := one.Exec(t.Context(), Exec{Argv: []string{"cat"}, TTY: true, Stdin: strings.NewReader("x"), Stdout: io.Discard})
		if err != nil {
			t.Error(err)
			return
		}
		if _, err := one.Exec(t.Context(), Exec{Argv: []string{"nothing"}, TTY: true}); err == nil {
			t.Error("executed nothing")
		}
		if _, err := r.Start(t.Context(), nil, Config{Argv: []string{"nothing"}, Stdin: strings.NewReader(""), TTY: true}); err == nil {
			t.Error("started nothing")
		}
		if err := one.Kill(); err != nil {
			t.Error(err)
		}
		p.Wait()
		one.Wait()
	}
	round() // what comes into being once is there
	before := descriptors(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5 {
				round()
			}
		})
	}
	all.Wait()
	if after := descriptors(t); len(after) > len(before) {
		t.Errorf("descriptors\n%s\nwere\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
	}
	if left := processes(t); len(left) != 1 {
		t.Errorf("processes %v are left, want the test alone", left)
	}
}

// descriptors are the open ones of this process.
func descriptors(t *testing.T) (all []string) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil {
			all = append(all, filepath.Base(link)+" "+to)
		}
	}
	return all
}
