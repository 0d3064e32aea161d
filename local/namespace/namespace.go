// Package namespace starts the inner half: a program in namespaces of its own, as root or as an
// ordinary user, that dies with who started it.
//
//	thread := namespace.NewThread()
//	cmd := namespace.Command(ctx, "/path/of/lateen-engine", "node", "--state", dir)
//	cmd.ExtraFiles = …
//	err := thread.Start(cmd)          // outside
//	err := namespace.Enter()          // first thing in the program
//
// The program is pid 1 of its PID namespace, so that nothing that it starts survives it: not
// when it is killed, not when its starter is. It need not reap: containers have PID namespaces
// of their own, whose orphans go to their own pid 1.
//
// As root there is no user namespace; an ordinary user becomes the root of one that holds him
// alone. Everything else is the same. Probe tells before the start whether the machine permits
// all that, with cause and cure.
//
// Mounts, links and rules made inside are seen by nobody else and are gone with the last process.
package namespace

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// flags are the namespaces of the inner half.
const flags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// A Thread runs functions one after another on one thread of the system that lives as long as
// the process. Children that are to die with their parent are started on it: the kernel kills
// them when the thread that forked them ends. It is not the process's first thread, so what it
// does to its own namespaces is not seen in /proc/self. Safe for concurrent use.
type Thread struct{ work chan func() }

// NewThread starts a thread. It cannot be ended.
func NewThread() *Thread {
	t := &Thread{work: make(chan func())}
	running := make(chan struct{})
	go t.run(running)
	<-running
	return t
}

func (t *Thread) run(running chan struct{}) {
	runtime.LockOSThread()
	if unix.Gettid() == unix.Getpid() {
		go t.run(running) // held here, the first thread cannot be taken again
		<-running
		runtime.UnlockOSThread()
		return
	}
	close(running)
	for f := range t.work {
		f()
	}
}

// Do runs f on the thread and returns once it has.
func (t *Thread) Do(f func()) {
	done := make(chan struct{})
	t.work <- func() { defer close(done); f() }
	<-done
}

// Start is cmd.Start on the thread.
func (t *Thread) Start(cmd *exec.Cmd) (err error) {
	t.Do(func() { err = cmd.Start() })
	return err
}

// Command is a program of one's own in new namespaces, which calls Enter first. It must be
// started by Thread.Start, and is killed when the context ends or the starter dies.
func Command(ctx context.Context, path string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, path, args...) //nolint:gosec // our own programs
	Apply(cmd)
	return cmd
}

// Apply makes a command one that Command gives. Who starts it does so on a thread that
// lives as long as the program is to.
func Apply(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
}

// Enter finishes the namespaces that the program was started in: mounts are its own, /proc and
// /sys show its processes and links, loopback is up. It is called once, before other threads
// open files of /proc.
func Enter() error {
	if os.Getpid() != 1 {
		return errors.New("this program is started by lateen, in namespaces of its own")
	}
	for _, step := range []func() error{ownMounts, freshProc, freshSys, loopbackUp} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func ownMounts() error {
	return wrap("make mounts private", unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""))
}

func freshProc() error {
	return wrap("mount /proc", unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""))
}

// freshSys shows the links of this network namespace below /sys, and the cgroups where they
// were. Where it is refused the old one stays: nothing of ours depends on it.
func freshSys() error {
	groups, err := unix.Open("/sys/fs/cgroup", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		groups = -1
	} else {
		defer func() { _ = unix.Close(groups) }()
	}
	if unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "") != nil || groups < 0 {
		return nil
	}
	from := fmt.Sprintf("/proc/self/fd/%d", groups)
	return wrap("mount /sys/fs/cgroup", unix.Mount(from, "/sys/fs/cgroup", "", unix.MS_BIND|unix.MS_REC, ""))
}

func loopbackUp() error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return wrap("open a socket", err)
	}
	defer func() { _ = unix.Close(socket) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return wrap("set link lo up", unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, lo))
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
