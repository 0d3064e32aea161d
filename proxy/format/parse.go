package format

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Limits of one format, against resources that would make every record expensive.
const (
	maxText   = 64 << 10
	maxLength = 1 << 20 // of the Z in %REQ(X):Z%
)

// parse compiles a text. %% is a percent sign; anything else between percent signs
// is an operator.
func parse(text, missing string) (*Format, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("format of %d bytes, at most %d", len(text), maxText)
	}
	f := &Format{missing: missing}
	var literal []byte
	for i := 0; i < len(text); {
		if text[i] != '%' {
			literal = append(literal, text[i])
			i++
			continue
		}
		if strings.HasPrefix(text[i:], "%%") {
			literal = append(literal, '%')
			i += 2
			continue
		}
		c, n, err := readCommand(text[i:])
		if err != nil {
			return nil, fmt.Errorf("position %d: %w", i, err)
		}
		op, err := c.compile()
		if err != nil {
			return nil, fmt.Errorf("position %d: %%%s%%: %w", i, c.name, err)
		}
		if len(literal) > 0 {
			f.parts, literal = append(f.parts, part{literal: string(literal)}), nil
		}
		f.parts = append(f.parts, part{op: op})
		i += n
	}
	if len(literal) > 0 {
		f.parts = append(f.parts, part{literal: string(literal)})
	}
	return f, nil
}

// A command is one operator as it was written: %NAME(params):length%.
type command struct {
	name      string
	params    string
	hasParams bool
	length    int // -1: none
}

var errNoCommand = errors.New("no valid command between percent signs")

// readCommand reads the command at the start of text, which begins with a percent
// sign, and returns how long it is. Parameters end at the first closing bracket that
// can end them, for they may hold brackets and percent signs themselves.
func readCommand(text string) (command, int, error) {
	c := command{length: -1}
	n := 1
	for n < len(text) && isNameByte(text[n]) {
		n++
	}
	c.name = text[1:n]
	if c.name == "" || n == len(text) {
		return c, 0, errNoCommand
	}
	if text[n] != '(' {
		end, ok := c.readEnd(text[n:])
		if !ok {
			return c, 0, errNoCommand
		}
		return c, n + end, nil
	}
	c.hasParams = true
	for start, at := n+1, n+1; ; at++ {
		i := strings.IndexByte(text[at:], ')')
		if i < 0 {
			return c, 0, errNoCommand
		}
		at += i
		if end, ok := c.readEnd(text[at+1:]); ok {
			c.params = text[start:at]
			return c, at + 1 + end, nil
		}
	}
}

// readEnd reads ":length%" or "%".
func (c *command) readEnd(text string) (n int, ok bool) {
	if strings.HasPrefix(text, "%") {
		return 1, true
	}
	end := strings.IndexByte(text, '%')
	if end < 2 || text[0] != ':' {
		return 0, false
	}
	length, err := strconv.ParseUint(text[1:end], 10, 31)
	if err != nil {
		return 0, false
	}
	c.length = int(length)
	return end + 1, true
}

func isNameByte(b byte) bool { return b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_' }

// compile looks the command up in the table of operators and checks its use.
func (c *command) compile() (*operation, error) {
	o, ok := operators[c.name]
	switch {
	case !ok:
		return nil, errors.New("unknown or not supported")
	case o.params == noParams && c.hasParams && c.params != "":
		return nil, errors.New("takes no parameters")
	case o.params == needsParams && c.params == "":
		return nil, errors.New("needs parameters")
	case !o.length && c.length >= 0:
		return nil, errors.New("takes no length")
	case c.length > maxLength:
		return nil, fmt.Errorf("length %d, at most %d", c.length, maxLength)
	}
	op, err := o.build(c.params)
	if err != nil || c.length < 0 {
		return op, err
	}
	return cut(op, c.length), nil
}

// cut bounds the text of an operation to length bytes; as JSON too it is text then.
func cut(op *operation, length int) *operation {
	write := op.write
	return &operation{write: func(dst []byte, rec Record) ([]byte, bool) {
		n := len(dst)
		dst, ok := write(dst, rec)
		if len(dst)-n > length {
			dst = dst[:n+length]
		}
		return dst, ok
	}}
}
