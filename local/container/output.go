package container

import (
	"errors"
	"io"
	"os"
	"sync/atomic"
	"time"
)

// How long output is awaited once its program has ended: of processes that it has left running
// until they are silent for a while, of a writer that takes it slowly for longer.
const (
	silence  = 100 * time.Millisecond
	drainMax = 10 * time.Second
)

// output copies what a program writes.
type output struct {
	from  *os.File
	to    io.Writer
	ended atomic.Bool
	done  chan struct{}
}

func newOutput(from *os.File, to io.Writer) *output {
	if to == nil {
		to = io.Discard
	}
	return &output{from: from, to: to, done: make(chan struct{})}
}

// copy ends with the last process that may write, or when nobody takes what is written: then
// those who write on are told by SIGPIPE.
func (o *output) copy() {
	defer close(o.done)
	defer o.close()
	buffer := make([]byte, 32<<10)
	for {
		n, err := o.from.Read(buffer)
		if n > 0 {
			if _, err := o.to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
		if o.ended.Load() {
			_ = o.from.SetReadDeadline(time.Now().Add(silence))
		}
	}
}

// drain waits for the rest of the output after the program's end.
func (o *output) drain() {
	o.ended.Store(true)
	_ = o.from.SetReadDeadline(time.Now().Add(silence)) // fails when all is copied
	longest := time.NewTimer(drainMax)
	defer longest.Stop()
	select {
	case <-o.done:
	case <-longest.C:
		o.close()
	}
}

func (o *output) close() { _ = o.from.Close() }

// connectOutput gives a program its standard output and error. Files are given as they are, a writer
// that serves as both gets both in their order. The pipe of another user is his: /dev/stdout is
// opened anew by who logs to it.
func (p *staged) connectOutput(c Config) error {
	stdout, stderr := c.Stdout, c.Stderr
	both := stdout != nil && same(stdout, stderr)
	for _, end := range []struct {
		to  io.Writer
		set *io.Writer
	}{{stdout, &p.cmd.Stdout}, {stderr, &p.cmd.Stderr}} {
		if end.set == &p.cmd.Stderr && both {
			p.cmd.Stderr = p.cmd.Stdout
			return nil
		}
		if file, ok := end.to.(*os.File); ok || end.to == nil {
			if ok {
				*end.set = file
			}
			continue
		}
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		if c.UID != 0 {
			_ = write.Chown(c.UID, c.GID) // refused where there is only one user, who may open it
		}
		p.theirs = append(p.theirs, write)
		p.outputs = append(p.outputs, newOutput(read, end.to))
		*end.set = write
	}
	return nil
}

// same reports whether two writers are one. Writers that cannot be compared are not.
func same(a, b io.Writer) (is bool) {
	defer func() {
		if recover() != nil {
			is = false
		}
	}()
	return a == b
}

// connectInput gives a program its standard input: a file as it is, a reader by a pipe.
func (p *staged) connectInput(stdin io.Reader) error {
	if file, ok := stdin.(*os.File); ok || stdin == nil {
		if ok {
			p.cmd.Stdin = file
		}
		return nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	p.theirs = append(p.theirs, read)
	p.cmd.Stdin, p.stdin, p.input = read, stdin, write
	return nil
}

// relay begins to copy. Input is not waited for: a reader that has nothing to say is left when
// it next says something.
func (p *staged) relay() {
	for _, o := range p.outputs {
		go o.copy()
	}
	if p.stdin == nil {
		return
	}
	go func() {
		_, err := io.Copy(p.input, p.stdin)
		if p.terminal == nil {
			_ = p.input.Close()
		} else if !errors.Is(err, os.ErrClosed) {
			// A terminal has no end of file but the character that says so.
			_, _ = p.input.Write([]byte{endOfFile})
		}
	}()
}

// endOfFile is what ^D sends.
const endOfFile = 4
