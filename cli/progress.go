package cli

import (
	"fmt"
	"io"
	"os"
)

// A progress is one line on a terminal that says what goes on. Elsewhere it is silent.
type progress struct {
	terminal *os.File // nil: not one
	last     string
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

// show replaces the line. It is called from one goroutine at a time.
func (p *progress) show(what string) {
	if p.terminal == nil || what == p.last {
		return
	}
	p.last = what
	fmt.Fprintf(p.terminal, "\r\x1b[K%s …", what)
}

func (p *progress) clear() {
	if p.terminal != nil && p.last != "" {
		fmt.Fprint(p.terminal, "\r\x1b[K")
		p.last = ""
	}
}
