package container

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/creack/pty"
)

// A terminal is the pair that a program with TTY has.
type terminal struct {
	outside, inside *os.File
	stdin           io.Reader
	stdout          io.Writer
	copied          chan struct{} // closed once all output is written
}

// openTerminal makes a terminal that the container's user owns.
func openTerminal(c Config) (*terminal, error) {
	outside, inside, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	if c.UID != 0 {
		_ = inside.Chown(c.UID, c.GID) // refused where there is only one user
	}
	return &terminal{outside: outside, inside: inside, stdin: c.Stdin, stdout: c.Stdout, copied: make(chan struct{})}, nil
}

// relay copies in both directions until the last process has closed the inside.
func (t *terminal) relay() {
	go func() {
		defer close(t.copied)
		out := t.stdout
		if out == nil {
			out = io.Discard
		}
		_, _ = io.Copy(out, t.outside) // ends with EIO
	}()
	if t.stdin != nil {
		go func() {
			_, _ = io.Copy(t.outside, t.stdin)
			// A terminal has no end of file but the character that says so.
			_, _ = t.outside.Write([]byte{endOfFile})
		}()
	}
}

// endOfFile is what ^D sends.
const endOfFile = 4

// resize sets the window of the terminal, in characters.
func (t *terminal) resize(width, height uint16) error {
	if t == nil {
		return errors.New("there is no terminal to resize")
	}
	return pty.Setsize(t.outside, &pty.Winsize{Cols: width, Rows: height})
}
