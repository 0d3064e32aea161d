package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A program is a started process and how it ended.
type program struct {
	*staged
	done chan struct{}
	exit Exit // once done
}

// await waits for the process and for its output.
func (p *program) await() {
	_ = p.cmd.Wait() // what it says is in ProcessState
	for _, o := range p.outputs {
		o.drain()
	}
	if p.input != nil {
		_ = p.input.Close() // who still copies to it is told so
	}
	p.exit = Exit{Code: p.cmd.ProcessState.ExitCode(), At: time.Now()}
	if status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		p.exit.Signal = int(status.Signal())
		p.exit.Code = 128 + p.exit.Signal
	}
}

func (p *program) Wait() Exit {
	<-p.done
	return p.exit
}

func (p *program) Resize(width, height uint16) error { return resize(p.terminal, width, height) }

// running is a container.
type running struct {
	program
	engine    *engine
	config    Config
	group     *group
	killed    atomic.Bool // by us
	oomBefore uint64      // of machineKills

	mu    sync.Mutex
	pidfd int // of the first process; -1 once it is gone
}

// reap waits for the container's end. Its first process is the last to go.
func (c *running) reap() {
	c.await()
	c.mu.Lock()
	if c.pidfd >= 0 {
		_ = unix.Close(c.pidfd)
		c.pidfd = -1
	}
	c.mu.Unlock()
	c.exit.OOMKilled = c.outOfMemory()
	if err := c.group.remove(); err != nil {
		c.engine.log.Warn("the memory group of a container stays", "error", err)
	}
	close(c.done)
}

// outOfMemory reports whether the kernel ended the container for its memory. Without a group of
// its own only the machine's count tells, which may have risen for another process: a kill that
// nobody here asked for is then taken for the kernel's.
func (c *running) outOfMemory() bool {
	if c.group != nil {
		return c.exit.Code != 0 && c.group.kills() > 0
	}
	return c.exit.Signal == int(syscall.SIGKILL) && !c.killed.Load() && machineKills() > c.oomBefore
}

func (c *running) PID() int { return c.cmd.Process.Pid }

func (c *running) Done() <-chan struct{} { return c.done }

func (c *running) Signal(sig int) error { return c.cmd.Process.Signal(syscall.Signal(sig)) }

// Kill ends the first process, with which the kernel ends all others.
func (c *running) Kill() error {
	c.killed.Store(true)
	if err := c.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Exec runs another program in the container's namespaces, as the container's user, with its
// environment and working directory.
func (c *running) Exec(ctx context.Context, e Exec) (Process, error) {
	if len(e.Argv) == 0 {
		return nil, errors.New("exec: no program")
	}
	as := c.config
	as.Argv, as.TTY, as.Stdin, as.Stdout, as.Stderr = e.Argv, e.TTY, e.Stdin, e.Stdout, e.Stderr
	as.Env = c.engine.unpacking(e.Argv, c.config.Env)
	s, err := c.engine.prepare(as)
	if err != nil {
		return nil, err
	}
	if err := s.start(func() error { return c.engine.forks.start(s.cmd, inside{c}) }); err != nil {
		if errors.Is(err, os.ErrProcessDone) {
			return nil, fmt.Errorf("exec: the container has ended: %w", err)
		}
		return nil, err
	}
	p := &joined{program: program{staged: s, done: make(chan struct{})}}
	go func() { p.await(); close(p.done) }()
	config := c.engine.config(as)
	config.Join, config.Files, config.Mounts = true, nil, nil
	if err := s.becomes(ctx, c.group, config); err != nil {
		_ = s.cmd.Process.Kill()
		<-p.done
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	go func() { <-p.done; stop() }()
	return p, nil
}

// joined is a program that Exec runs.
type joined struct{ program }

func (p *joined) Kill() error {
	if err := p.cmd.Process.Kill(); !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}
