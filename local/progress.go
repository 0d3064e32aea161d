package local

import (
	"fmt"
	"io"
	"os"
	"sync"
)

// A progress is one line on a terminal that says what goes on. Elsewhere it is silent.
// Safe for concurrent use.
type progress struct {
	terminal io.Writer // nil: not one

	mu   sync.Mutex
	last string // what stands there now
}

func newProgress(w io.Writer) *progress {
	p := &progress{}
	if f, ok := w.(*os.File); ok {
		if info, err := f.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
			p.terminal = f
		}
	}
	return p
}

// show replaces the line.
func (p *progress) show(what string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal == nil || what == p.last {
		return
	}
	p.last = what
	fmt.Fprint(p.terminal, "\r\x1b[K")
	if what != "" {
		fmt.Fprintf(p.terminal, "%s …", what)
	}
}

func (p *progress) clear() { p.show("") }

// above is a writer of whole lines that stand above the line.
func (p *progress) above(w io.Writer) io.Writer { return aboveProgress{p, w} }

type aboveProgress struct {
	*progress
	out io.Writer
}

func (a aboveProgress) Write(lines []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == "" {
		return a.out.Write(lines)
	}
	fmt.Fprint(a.terminal, "\r\x1b[K")
	n, err := a.out.Write(lines)
	fmt.Fprintf(a.terminal, "%s …", a.last)
	return n, err
}
