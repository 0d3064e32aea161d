package container

import (
	"errors"
	"fmt"
	"os"

	"github.com/creack/pty"
)

// openTerminal makes a terminal that the container's user owns, as a program's input and output.
func (p *staged) openTerminal(c Config) error {
	outside, inside, err := pty.Open()
	if err != nil {
		return fmt.Errorf("open a terminal: %w", err)
	}
	if c.UID != 0 {
		_ = inside.Chown(c.UID, c.GID) // refused where there is only one user
	}
	p.terminal = outside
	p.theirs = append(p.theirs, inside)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = inside, inside, inside
	p.outputs = append(p.outputs, newOutput(outside, c.Stdout))
	p.stdin, p.input = c.Stdin, outside
	return nil
}

// resize sets the window of a terminal, in characters.
func resize(terminal *os.File, width, height uint16) error {
	if terminal == nil {
		return errors.New("there is no terminal to resize")
	}
	return pty.Setsize(terminal, &pty.Winsize{Cols: width, Rows: height})
}
