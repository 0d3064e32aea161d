// Package container runs programs in namespaces of their own.
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
	Env      []string // NAME=VALUE
	Dir      string   // working directory, "" is /
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
	Start(ctx context.Context, netns *os.File, c Config) (Container, error)
}

// A Container is a running or ended program. Safe for concurrent use.
type Container interface {
	PID() int
	// Wait returns once the program and all that it left behind are gone.
	Wait() Exit
	Done() <-chan struct{}
	Signal(sig int) error
	Kill() error // SIGKILL to every process of the container
	// Resize sets the window of the container's terminal, in characters; without TTY it is an error.
	Resize(width, height uint16) error
	// Exec runs another program in the container's namespaces.
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
	Wait() Exit
	Resize(width, height uint16) error
	Kill() error
}
