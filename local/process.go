package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Waiting times of the supervisor.
const (
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 10 * time.Second
	settledAfter = 10 * time.Second          // a process that ran this long starts the back-off anew
	drainTime    = 5 * time.Second           // in which a gateway's requests may finish
	endTime      = drainTime + 2*time.Second // between SIGTERM and SIGKILL
)

// A Part is one process of the mesh as `status` shows it.
type Part struct {
	Name     string    `json:"name"`
	PID      int       `json:"pid"`
	State    string    `json:"state"` // running, restarting, ended
	Restarts int       `json:"restarts"`
	Since    time.Time `json:"since"`
	Exit     string    `json:"exit,omitempty"` // how it ended last
	Log      string    `json:"log"`
}

// A process is a program that is kept running.
type process struct {
	name    string
	argv    []string
	out     io.Writer
	log     *logFile
	input   []byte // standard input of each start
	changed func()
	// dress changes the command of a start, and gives what ends with it; may be nil.
	dress func(context.Context, *exec.Cmd) (end func(), err error)

	mu   sync.Mutex
	part Part
}

func (p *process) status() Part {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.part
}

func (p *process) set(change func(*Part)) {
	p.mu.Lock()
	change(&p.part)
	p.mu.Unlock()
	p.changed()
}

// run keeps the program running until the context ends, then ends it. The program
// gets SIGKILL when the thread that started it goes, so that thread is kept.
func (p *process) run(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	backoff := firstBackoff
	for {
		started := time.Now()
		err := p.once(ctx)
		if ctx.Err() != nil {
			p.set(func(s *Part) { s.State, s.PID = "ended", 0 })
			return
		}
		if time.Since(started) > settledAfter {
			backoff = firstBackoff
		}
		p.set(func(s *Part) { s.State, s.PID, s.Exit, s.Since = "restarting", 0, exitText(err), time.Now() })
		fmt.Fprintf(p.out, "ended: %s; again in %s\n", exitText(err), backoff)
		wait := time.NewTimer(backoff)
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			p.set(func(s *Part) { s.State = "ended" })
			return
		}
		backoff = min(2*backoff, maxBackoff)
		p.set(func(s *Part) { s.Restarts++ })
	}
}

// once runs the program to its end.
func (p *process) once(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, p.argv[0], p.argv[1:]...) //nolint:gosec // our own programs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = endTime
	if p.input != nil {
		cmd.Stdin = bytes.NewReader(p.input)
	}
	sink := &lines{prefixed: p.out, log: p.log}
	cmd.Stdout, cmd.Stderr = sink, sink
	if p.dress != nil {
		end, err := p.dress(ctx, cmd)
		if err != nil {
			return err
		}
		defer end()
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	p.set(func(s *Part) { s.State, s.PID, s.Since = "running", cmd.Process.Pid, time.Now() })
	err := cmd.Wait()
	sink.flush()
	return err
}

func exitText(err error) string {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return "exit status 0"
	case errors.As(err, &exit):
		return exit.Error()
	}
	return err.Error()
}

// maxLine bounds what is kept of a line that has not ended; a longer one is cut.
const maxLine = 64 << 10

// lines hands on whole lines of a process, as many at once as there are: as they are
// to its log, and to the mesh's output.
type lines struct {
	prefixed io.Writer
	log      *logFile
	part     []byte
}

// Write never fails: a full disk must not end the process.
func (l *lines) Write(b []byte) (int, error) {
	end := bytes.LastIndexByte(b, '\n') + 1
	if end > 0 {
		l.hand(append(l.part, b[:end]...))
		l.part = l.part[:0]
	}
	l.part = append(l.part, b[end:]...)
	for len(l.part) > maxLine {
		l.hand(append(slices.Clip(l.part[:maxLine]), '\n'))
		l.part = append(l.part[:0], l.part[maxLine:]...)
	}
	return len(b), nil
}

// hand takes lines, the last with its end.
func (l *lines) hand(whole []byte) {
	l.log.write(whole)
	_, _ = l.prefixed.Write(whole)
}

func (l *lines) flush() {
	if len(l.part) > 0 {
		l.hand(append(l.part, '\n'))
		l.part = nil
	}
}

// maxLog is the size at which a log file gives way to a new one; one old is kept.
const maxLog = 16 << 20

// A logFile is a bounded file of lines.
type logFile struct {
	path string
	file *os.File
	size int64
}

func openLog(path string) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	return &logFile{path: path, file: f}, err
}

func (l *logFile) write(lines []byte) {
	if l.size+int64(len(lines)) > maxLog {
		_ = l.file.Close()
		_ = os.Rename(l.path, l.path+".1")
		next, err := openLog(l.path)
		if err != nil {
			return
		}
		l.file, l.size = next.file, 0
	}
	n, _ := l.file.Write(lines)
	l.size += int64(n)
}

func (l *logFile) close() { _ = l.file.Close() }

// prefixes writes lines of several processes to one writer, each after the name of
// its process.
type prefixes struct {
	mu  sync.Mutex
	out io.Writer
}

type prefixedWriter struct {
	*prefixes
	prefix string
}

// Write takes whole lines.
func (w prefixedWriter) Write(whole []byte) (int, error) {
	if w.out == io.Discard {
		return len(whole), nil
	}
	text := make([]byte, 0, len(whole)+len(w.prefix))
	for line := range bytes.Lines(whole) {
		text = append(append(text, w.prefix...), line...)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, _ = w.out.Write(text)
	return len(whole), nil
}
