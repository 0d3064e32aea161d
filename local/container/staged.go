package container

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lateen-mesh/lateen/local/container/stage"
)

// staged is a stage on its way to its program, and then that program.
type staged struct {
	cmd      *exec.Cmd
	terminal *os.File  // our end; nil without one
	stdin    io.Reader // to be copied to input; nil: nothing to copy
	input    *os.File  // our end
	outputs  []*output
	config   *os.File   // our end
	report   *os.File   // our end
	theirs   []*os.File // other ends
	mapped   bool       // in a user namespace of its own
}

// prepare makes a command of lateen-init with its descriptors.
func (r *engine) prepare(c Config) (_ *staged, err error) {
	p := &staged{cmd: &exec.Cmd{
		Path: fmt.Sprintf("/proc/self/fd/%d", stage.ProgramFD), Args: []string{"lateen-init"},
		Env: []string{"GOMAXPROCS=1", "GOGC=off"}, Dir: "/",
		SysProcAttr: &syscall.SysProcAttr{},
	}}
	defer func() {
		if err != nil {
			p.abandon()
		}
	}()
	if r.ownUser(c) {
		p.mapped = true
		p.cmd.SysProcAttr.Cloneflags, p.cmd.SysProcAttr.AmbientCaps = unix.CLONE_NEWUSER, rights[:]
	}
	configRead, config, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.theirs, p.config = append(p.theirs, configRead), config
	report, reportWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.theirs, p.report = append(p.theirs, reportWrite), report
	p.cmd.ExtraFiles = []*os.File{r.forks.program, configRead, reportWrite}
	return p, p.connect(c)
}

// connect sets the program's standard descriptors.
func (p *staged) connect(c Config) error {
	if c.TTY {
		return p.openTerminal(c)
	}
	if err := p.connectInput(c.Stdin); err != nil {
		return err
	}
	return p.connectOutput(c)
}

// start forks the stage, which waits for its configuration.
func (p *staged) start(fork func() error) error {
	err := fork()
	for _, file := range p.theirs {
		_ = file.Close()
	}
	p.theirs = nil
	if err != nil {
		p.abandon()
		return fmt.Errorf("start lateen-init: %w", err)
	}
	p.relay()
	return nil
}

// becomes lets the stage go on, in its memory group, and waits until it is the program.
func (p *staged) becomes(ctx context.Context, g *group, c stage.Config) error {
	defer func() { _ = p.config.Close(); _ = p.report.Close() }()
	if err := g.add(p.cmd.Process.Pid); err != nil {
		return err
	}
	if p.mapped {
		if err := mapUser(p.cmd.Process.Pid, c); err != nil {
			return err
		}
	}
	stop := context.AfterFunc(ctx, func() { _ = p.cmd.Process.Kill() })
	defer stop()
	if err := json.NewEncoder(p.config).Encode(c); err != nil && !errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("tell lateen-init what to do: %w", err)
	}
	_ = p.config.Close()
	text, err := io.ReadAll(p.report)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case err != nil:
		return fmt.Errorf("hear from lateen-init: %w", err)
	case len(text) > 0:
		return failure(text)
	}
	return nil
}

// abandon closes what a start has opened.
func (p *staged) abandon() {
	for _, file := range append(p.theirs, p.config, p.report, p.input) {
		if file != nil {
			_ = file.Close()
		}
	}
	for _, o := range p.outputs {
		o.close()
	}
}

// failure is what a stage has reported.
func failure(text []byte) error {
	var f stage.Failure
	if err := json.Unmarshal(text, &f); err != nil {
		return fmt.Errorf("hear from lateen-init: %w", err)
	}
	if f.NotFound {
		return notFound(f.Text)
	}
	return errors.New(f.Text)
}

// notFound is a failure with the stage's own words for a program that is not there.
type notFound string

func (e notFound) Error() string { return string(e) }

func (notFound) Is(target error) bool { return target == ErrNotFound }
