package container

import (
	"errors"
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/local/namespace"
)

// A forker starts processes in namespaces that exist: its thread goes there, forks, and comes
// back. All children of the runtime come from this one thread, since they die with it.
//
// A process so is the runtime's own child wherever it is: there is no second process that waits
// for it, and an orphan of it goes to pid 1 of its container.
type forker struct {
	thread  *namespace.Thread
	program *os.File // lateen-init, executed by descriptor: other roots do not hold it
	home    []*os.File
	away    bool // thread only: it could not come back
}

// joinable are the namespaces of a container, by their names in /proc, in the order in which a
// thread goes there and comes back.
var joinable = [...]struct {
	name string
	kind int
}{
	{"net", unix.CLONE_NEWNET},
	{"uts", unix.CLONE_NEWUTS},
	{"ipc", unix.CLONE_NEWIPC},
	{"pid", unix.CLONE_NEWPID},
	{"mnt", unix.CLONE_NEWNS},
}

func newForker(program string) (*forker, error) {
	fd, err := unix.Open(program, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: program, Err: err}
	}
	f := &forker{thread: namespace.NewThread(), program: os.NewFile(uintptr(fd), program)}
	f.thread.Do(func() {
		// A thread that shares its working directory with others cannot change the root.
		if err = unix.Unshare(unix.CLONE_FS); err != nil {
			err = fmt.Errorf("unshare the working directory: %w", err)
			return
		}
		for _, ns := range joinable {
			var file *os.File
			if file, err = os.Open("/proc/thread-self/ns/" + ns.name); err != nil {
				return
			}
			f.home = append(f.home, file)
		}
	})
	if err != nil {
		return nil, errors.Join(err, f.program.Close())
	}
	return f, nil
}

// A place is where a process is to be started.
type place interface{ enter() error }

// start forks a command at a place. Safe for concurrent use.
func (f *forker) start(cmd *exec.Cmd, at place) (err error) {
	f.thread.Do(func() {
		if f.away {
			err = f.goHome()
		}
		if err == nil {
			f.away = true
			if err = at.enter(); err == nil {
				err = cmd.Start()
			}
		}
		if back := f.goHome(); back != nil {
			err = errors.Join(err, back)
			if cmd.Process != nil {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			}
		}
	})
	return err
}

func (f *forker) goHome() error {
	for i, ns := range joinable {
		if err := unix.Setns(int(f.home[i].Fd()), ns.kind); err != nil {
			return fmt.Errorf("return to the %s namespace: %w", ns.name, err)
		}
	}
	f.away = false
	return nil
}

// A pod is the place of a new container: a network namespace.
type pod struct{ netns *os.File }

// enter goes there and lets programs that are not root there listen on every port and ping.
func (p pod) enter() error {
	if p.netns == nil {
		return nil
	}
	if err := unix.Setns(int(p.netns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the pod's network namespace: %w", err)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_unprivileged_port_start", []byte("0"), 0); err != nil {
		return fmt.Errorf("let programs listen on ports below 1024: %w", err)
	}
	// The range must be of groups that exist here: an ordinary user has one.
	const ping = "/proc/sys/net/ipv4/ping_group_range"
	if os.WriteFile(ping, []byte("0 2147483647"), 0) != nil {
		_ = os.WriteFile(ping, []byte("0 0"), 0)
	}
	return nil
}

// inside is the place of a program that joins a container.
type inside struct{ of *running }

// all are the namespaces that a joining program shares with the container.
const all = unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID | unix.CLONE_NEWNS

// enter goes there by the descriptor of the container's first process, which no other process
// can come to have.
func (i inside) enter() error {
	i.of.mu.Lock()
	defer i.of.mu.Unlock()
	if i.of.pidfd < 0 {
		return os.ErrProcessDone
	}
	if err := unix.Setns(i.of.pidfd, all); err != nil {
		return fmt.Errorf("enter the container: %w", err)
	}
	return nil
}
