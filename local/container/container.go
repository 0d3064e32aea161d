// Package container runs programs in namespaces of their own, as root or as an ordinary user.
//
//	runtime, err := container.New(container.Options{Init: ".../lateen-init", State: dir})
//	c, err := runtime.Start(ctx, pod.NetNS(), container.Config{Argv: …})   // the program runs
//	p, err := c.Exec(ctx, container.Exec{Argv: []string{"sh"}, TTY: true, …})
//	exit := c.Wait()
//
// The runtime lives in the inner namespaces (package namespace), whose root it is. A container
// has its own mount, PID, UTS and IPC namespaces, and the network namespace of its pod:
//
//	Start ─► fork.go: a thread enters the pod's network and forks lateen-init in new namespaces
//	      ─► memory.go: its memory group ─► user.go: its user namespace, if any
//	      ─► staged.go: lateen-init reads its configuration, makes the root file system (package
//	         stage) and becomes the program, or reports why not
//
// The program is pid 1 of the container, and the runtime's own child. When it ends the kernel
// ends what it has left behind; when the runtime ends, all containers end. Exec forks in the
// same way, in the namespaces of the container.
//
// The root file system is the machine's, with /tmp, /run, /var/run, /dev/shm, /proc and /sys of
// the container's own, and files of /etc that the pod gives; or an unpacked image, below a layer in
// memory that takes what is written. Where a mount has no place one is made, without changing
// the machine or the image. A container is no security boundary: it sees the user's files.
//
// Differences of an ordinary user: one user per container, as which it sees itself but which is
// always that user outside; supplementary groups and limits are not set; a container with
// NetAdmin runs as 0, whatever it asked for, since rights over the pod's network are that user's.
package container

import (
	"context"
	"io"
	"os"
	"time"
)

// A Mount puts something at a path of the container's root.
type Mount struct {
	Target   string // absolute path in the container
	Source   string // directory or file outside; "" makes a tmpfs
	ReadOnly bool
}

// A Config is one container of a pod.
type Config struct {
	Argv     []string // program and arguments; a program without slash is looked up in Env's PATH
	Env      []string // NAME=VALUE; PATH, HOME, HOSTNAME and (TTY) TERM are added when missing
	Dir      string   // working directory, "" is /; made when missing
	Root     string   // root file system of an unpacked image; "" shows this machine's own
	Mounts   []Mount
	Files    map[string]string // files of /etc by name: resolv.conf, hosts, hostname …
	Hostname string
	UID, GID int   // as the container sees itself; 0, 0 unless securityContext says otherwise
	Groups   []int // supplementary groups; an ordinary user cannot give them
	NetAdmin bool  // keeps NET_ADMIN and NET_RAW: proxies, which mark their packets
	TTY      bool
	// Stdin may be nil (/dev/null). Stdout and Stderr are files; with TTY Stdin and Stdout are
	// the terminal's ends and Stderr is unused.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Limits         Limits
}

// Limits are a container's; zero is none.
type Limits struct {
	MemoryBytes int64
}

// An Exit is how a program ended.
type Exit struct {
	Code      int // 128+n for signal n
	Signal    int
	OOMKilled bool
	At        time.Time
}

// A Runtime starts containers. It is safe for concurrent use.
type Runtime interface {
	// Start makes the container's namespaces in the pod's network namespace and runs the program.
	// It returns once that runs, or why it cannot; an error matches ErrNotFound where the program
	// is not there. The context bounds the start only.
	Start(ctx context.Context, netns *os.File, c Config) (Container, error)
}

// A Container is a running or ended program. Safe for concurrent use.
type Container interface {
	PID() int
	// Wait returns once the program and all that it left behind are gone, and their output is taken.
	Wait() Exit
	Done() <-chan struct{}
	Signal(sig int) error
	Kill() error // SIGKILL to every process of the container
	// Resize sets the window of the container's terminal, in characters; without TTY it is an error.
	Resize(width, height uint16) error
	// Exec runs another program in the container's namespaces, as its user, with its environment
	// and working directory. It returns once the program runs. The end of the context kills it.
	Exec(ctx context.Context, c Exec) (Process, error)
}

// An Exec is a program to run in a running container.
type Exec struct {
	Argv           []string
	TTY            bool
	Stdin          io.Reader
	Stdout, Stderr io.Writer
}

// A Process is a program run by Exec.
type Process interface {
	// Wait returns once the program has ended and its output is taken. What it has left running in
	// the container is not waited for.
	Wait() Exit
	Resize(width, height uint16) error // as a Container's
	Kill() error                       // SIGKILL to the program; an ended one is no error
}
