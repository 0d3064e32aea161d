package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// engineProgram has the supervisor, and nothing that a running mesh does not need.
const engineProgram = "lateen-engine"

// maxHandover bounds Options and Ready on their way between processes, in bytes.
const maxHandover = 64 << 20

// Replace makes this process the supervisor of a mesh, which ends by SIGINT or SIGTERM and
// says on standard error why it cannot run. Streams are those of the process; functions of
// the Options do not count. It returns only when there is no such program.
func Replace(o Options) error {
	program, err := o.binary(engineProgram)
	if err != nil {
		return err
	}
	options, err := handOver(o)
	if err != nil {
		return err
	}
	defer options.Close()
	if _, err := unix.FcntlInt(options.Fd(), unix.F_SETFD, 0); err != nil {
		return fmt.Errorf("hand over options: %w", err)
	}
	argv := []string{engineProgram, "up", "--options", strconv.Itoa(int(options.Fd()))}
	return fmt.Errorf("%s: %w", program, syscall.Exec(program, argv, os.Environ())) //nolint:gosec // our own program
}

// Detach starts the supervisor of a mesh in a session of its own, and returns when the mesh
// is ready or has failed to start. What the supervisor says goes to logs/up.log in the
// state directory.
func Detach(ctx context.Context, o Options) (Ready, error) {
	program, err := o.binary(engineProgram)
	if err != nil {
		return Ready{}, err
	}
	log, err := o.openOwnLog()
	if err != nil {
		return Ready{}, err
	}
	defer log.Close()
	options, err := handOver(o)
	if err != nil {
		return Ready{}, err
	}
	defer options.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return Ready{}, err
	}
	defer read.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), program, "up", "--options", "3", "--report", "4") //nolint:gosec // our own program
	if o.readsStdin() {
		cmd.Stdin = o.Stdin
	}
	cmd.Stderr = log
	cmd.ExtraFiles = []*os.File{options, write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		return Ready{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	var r report
	if err := json.NewDecoder(io.LimitReader(read, maxHandover)).Decode(&r); err != nil {
		return Ready{}, &Error{errors.New("the supervisor ended without a word"), "its log: " + log.Name()}
	}
	if r.Error != "" {
		return Ready{}, &Error{errors.New(r.Error), r.Hint}
	}
	if r.Ready == nil {
		return Ready{}, errors.New("the supervisor sent no status")
	}
	return *r.Ready, cmd.Process.Release()
}

func (o Options) openOwnLog() (*os.File, error) {
	logs := filepath.Join(o.State, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return nil, &Error{fmt.Errorf("state directory: %w", err), "name another one: --state DIR"}
	}
	return os.OpenFile(filepath.Join(logs, "up.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// handOver writes options to a file without a name, to be read from its begin.
func handOver(o Options) (*os.File, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("hand over options: %w", err)
	}
	fd, err := unix.MemfdCreate("options", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("hand over options: %w", err)
	}
	f := os.NewFile(uintptr(fd), "options")
	if _, err := f.WriteAt(text, 0); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("hand over options: %w", err)
	}
	return f, nil
}

// takeOver reads the options that Replace or Detach handed over, and closes their file.
func takeOver(f *os.File) (Options, error) {
	defer f.Close()
	var o Options
	if err := json.NewDecoder(io.LimitReader(f, maxHandover)).Decode(&o); err != nil {
		return o, &Error{fmt.Errorf("options: %w", err), "this program is started by lateen up"}
	}
	return o, nil
}

// Command is the command line of the supervisor, for Replace and Detach.
func Command() *cobra.Command {
	var options, reports uint
	cmd := &cobra.Command{
		Use: "up", Short: "Supervise a mesh; started by lateen up", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := takeOver(os.NewFile(uintptr(options), "options"))
			if err != nil {
				return err
			}
			o.Stdin = cmd.InOrStdin()
			if reports != 0 {
				syscall.CloseOnExec(int(reports)) // not for the processes of the mesh
				return upDetached(cmd.Context(), o, reporter{os.NewFile(uintptr(reports), "report")})
			}
			return upInFront(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().UintVar(&options, "options", 0, "descriptor with the options")
	cmd.Flags().UintVar(&reports, "report", 0, "descriptor for the report of a detached supervisor")
	return cmd
}

// upInFront runs a mesh on a terminal.
func upInFront(ctx context.Context, o Options, out, errs io.Writer) error {
	line := newProgress(errs)
	defer line.clear()
	o.Stdout, o.Progress = line.above(out), line.show
	o.Ready = func(r Ready) {
		line.clear()
		r.Print(out, errs)
	}
	return Up(ctx, o)
}

// upDetached runs a mesh whose starter waits for a report.
func upDetached(ctx context.Context, o Options, r reporter) error {
	o.Stdout = io.Discard // each process has its log
	o.Ready = r.ready
	err := Up(ctx, o)
	if err != nil {
		r.failed(err)
	}
	return err
}

// A report is what a detached supervisor tells the process that started it.
type report struct {
	Ready *Ready `json:"ready,omitempty"`
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// A reporter sends one report.
type reporter struct{ out *os.File }

func (r reporter) ready(ready Ready) { r.send(report{Ready: &ready}) }

func (r reporter) failed(err error) { r.send(report{Error: err.Error(), Hint: HintOf(err)}) }

func (r reporter) send(v report) {
	_ = json.NewEncoder(r.out).Encode(v) // nobody waits any more
	_ = r.out.Close()
}
