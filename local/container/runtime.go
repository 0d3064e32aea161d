package container

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/local/container/stage"
)

// ErrNotFound is the reason of a start or exec whose program is not there.
var ErrNotFound = errors.New("executable file not found in $PATH")

// Options are the settings of a Runtime.
type Options struct {
	Init  string       // path of lateen-init
	State string       // the mesh's state directory: names what a killed runtime leaves behind
	Log   *slog.Logger // nil logs nothing
}

// New returns a Runtime. It is called in the inner namespaces, as their root, and keeps a thread
// for the life of the process. What an earlier one of the same state left behind is removed.
func New(o Options) (Runtime, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	forks, err := newForker(o.Init)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return nil, err
	}
	r := &engine{forks: forks, ids: parseIDs(string(text)), log: o.Log}
	r.memory, r.noMemory = openMemory(o.State)
	return r, nil
}

// An engine is the Runtime of Linux namespaces.
type engine struct {
	forks    *forker
	ids      idMap
	log      *slog.Logger
	memory   *memory // nil: limits are not enforced
	noMemory error   // why
	sayOnce  sync.Once
}

// Start makes the container's namespaces and runs the program. It returns once the program runs
// or cannot; errors of the latter kind match ErrNotFound where that is the reason.
func (r *engine) Start(ctx context.Context, netns *os.File, c Config) (Container, error) {
	p, err := r.prepare(c)
	if err != nil {
		return nil, err
	}
	run := &running{
		program: program{staged: p, done: make(chan struct{})},
		engine:  r, config: c, pidfd: -1, oomBefore: machineKills(),
	}
	p.cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC
	p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p.cmd.SysProcAttr.PidFD = &run.pidfd
	if run.group, err = r.group(c.Limits); err != nil {
		p.abandon()
		return nil, err
	}
	if err := p.start(func() error { return r.forks.start(p.cmd, pod{netns}) }); err != nil {
		return nil, errors.Join(err, run.group.remove())
	}
	go run.reap()
	if err := p.becomes(ctx, run.group, r.config(c)); err != nil {
		_ = p.cmd.Process.Kill()
		<-run.done
		return nil, err
	}
	return run, nil
}

// config is what the stage of a container is told.
func (r *engine) config(c Config) stage.Config {
	s := stage.Config{
		Argv: c.Argv, Env: c.Env, Dir: c.Dir, Root: c.Root, Files: c.Files, Hostname: c.Hostname,
		UID: c.UID, GID: c.GID, Groups: c.Groups, NetAdmin: c.NetAdmin, Terminal: c.TTY, Nested: r.ids.nested(),
	}
	s.SetIDs = r.ids.many()
	if !s.SetIDs && !r.ownUser(c) {
		s.UID, s.GID = 0, 0
	}
	for _, m := range c.Mounts {
		s.Mounts = append(s.Mounts, stage.Mount(m))
	}
	return s
}
