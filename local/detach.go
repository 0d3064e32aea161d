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
)

// detachedEnv names the descriptor on which a detached supervisor reports.
const detachedEnv = "LATEEN_REPORT_FD"

// A report is what a detached supervisor tells the process that started it.
type report struct {
	Ready *Ready `json:"ready,omitempty"`
	Error string `json:"error,omitempty"`
	Hint  string `json:"hint,omitempty"`
}

// Detach runs this program again with the given arguments in a session of its own,
// and returns when its mesh is ready or has failed to start. What the supervisor
// says goes to logs/up.log in the state directory.
func Detach(ctx context.Context, state string, stdin io.Reader, args ...string) (Ready, error) {
	self, err := os.Executable()
	if err != nil {
		return Ready{}, err
	}
	logs := filepath.Join(state, "logs")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		return Ready{}, &Error{fmt.Errorf("state directory: %w", err), "name another one: --state DIR"}
	}
	log, err := os.OpenFile(filepath.Join(logs, "up.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return Ready{}, err
	}
	defer log.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return Ready{}, err
	}
	defer read.Close()
	cmd := exec.CommandContext(context.WithoutCancel(ctx), self, args...) //nolint:gosec // this program
	cmd.Env = append(os.Environ(), detachedEnv+"=3")
	cmd.Stdin, cmd.Stderr = stdin, log
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	_ = write.Close()
	if err != nil {
		return Ready{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()
	var r report
	if err := json.NewDecoder(io.LimitReader(read, 64<<20)).Decode(&r); err != nil {
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

// A Reporter is how a detached supervisor reports; the zero Reporter reports nowhere.
type Reporter struct{ out *os.File }

// Detached returns the Reporter of this process, and whether it was started by Detach.
func Detached() (Reporter, bool) {
	fd, err := strconv.ParseUint(os.Getenv(detachedEnv), 10, 16)
	if err != nil {
		return Reporter{}, false
	}
	_ = os.Unsetenv(detachedEnv) // not for the processes of the mesh
	syscall.CloseOnExec(int(fd))
	return Reporter{os.NewFile(uintptr(fd), "report")}, true
}

// Ready reports that the mesh is ready; nothing more is reported after it.
func (r Reporter) Ready(ready Ready) { r.send(report{Ready: &ready}) }

// Failed reports why the mesh did not start.
func (r Reporter) Failed(err error) {
	out := report{Error: err.Error()}
	if hinted, ok := errors.AsType[*Error](err); ok {
		out.Hint = hinted.Hint
	}
	r.send(out)
}

func (r Reporter) send(v report) {
	if r.out != nil {
		_ = json.NewEncoder(r.out).Encode(v)
		_ = r.out.Close()
	}
}
