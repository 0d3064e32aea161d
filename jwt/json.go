package jwt

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth bounds how deeply objects and arrays may stand in each other.
const maxDepth = 100

// A reader reads JSON as Envoy's library of Protocol Buffers does. It is more liberal than
// RFC 8259: strings may stand in single quotes and hold control characters, keys may be
// bare words, a comma may follow the last element. A key that comes twice is an error.
type reader struct {
	in    string
	at    int
	depth int
}

// parseObject reads a document whose root is an object, or null for an empty one. Values are
// nil, bool, float64, string, []any and map[string]any.
func parseObject(text string) (map[string]any, error) {
	r := &reader{in: text}
	out := map[string]any{}
	err := error(nil)
	if r.peek() == 'n' {
		err = r.expect("null")
	} else {
		out, err = r.object()
	}
	if err != nil {
		return nil, err
	}
	if r.peek(); r.at < len(r.in) {
		return nil, r.fail("something follows")
	}
	return out, nil
}

func (r *reader) fail(why string) error {
	return fmt.Errorf("offset %d: %s", r.at, why)
}

// peek skips white space and returns the next byte, 0 at the end.
func (r *reader) peek() byte {
	for ; r.at < len(r.in); r.at++ {
		switch c := r.in[r.at]; c {
		case ' ', '\t', '\r', '\n':
		default:
			return c
		}
	}
	return 0
}

// take skips white space and c, if that is next.
func (r *reader) take(c byte) bool {
	if r.peek() != c || r.at == len(r.in) {
		return false
	}
	r.at++
	return true
}

func (r *reader) expect(word string) error {
	if r.peek(); !strings.HasPrefix(r.in[r.at:], word) {
		return r.fail("want " + word)
	}
	r.at += len(word)
	return nil
}

func (r *reader) enter() error {
	if r.depth++; r.depth > maxDepth {
		return r.fail("too deep")
	}
	return nil
}

func (r *reader) value() (any, error) {
	switch c := r.peek(); {
	case r.at == len(r.in):
		return nil, r.fail("want a value")
	case c == '{':
		return r.object()
	case c == '[':
		return r.array()
	case c == '"' || c == '\'':
		return r.text()
	case c == '-' || c >= '0' && c <= '9':
		return r.number()
	case c == 't':
		return true, r.expect("true")
	case c == 'f':
		return false, r.expect("false")
	case c == 'n':
		return nil, r.expect("null")
	}
	return nil, r.fail("want a value")
}

func (r *reader) object() (map[string]any, error) {
	out := map[string]any{}
	return out, r.elements('{', '}', func() error {
		key, err := r.key()
		if err != nil {
			return err
		}
		if err := r.expect(":"); err != nil {
			return err
		}
		if _, twice := out[key]; twice {
			return r.fail("a key comes twice")
		}
		out[key], err = r.value()
		return err
	})
}

func (r *reader) array() ([]any, error) {
	out := []any{}
	err := r.elements('[', ']', func() error {
		v, err := r.value()
		out = append(out, v)
		return err
	})
	return out, err
}

// elements reads what stands between two brackets, one call for each element.
func (r *reader) elements(first, last byte, one func() error) error {
	if err := r.expect(string(first)); err != nil {
		return err
	}
	if err := r.enter(); err != nil {
		return err
	}
	for comma := true; !r.take(last); comma = r.take(',') {
		if !comma {
			return r.fail("want a comma")
		}
		if err := one(); err != nil {
			return err
		}
	}
	r.depth--
	return nil
}

// key is a string or a bare word.
func (r *reader) key() (string, error) {
	if c := r.peek(); c == '"' || c == '\'' {
		return r.text()
	}
	start := r.at
	for r.at < len(r.in) && bare(r.in[r.at]) {
		r.at++
	}
	switch word := r.in[start:r.at]; {
	case word == "" || word[0] >= '0' && word[0] <= '9', word == "null", word == "true", word == "false":
		return "", r.fail("want a key")
	default:
		return word, nil
	}
}

func bare(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z'
}

// number reads what RFC 8259 calls one; it must be finite.
func (r *reader) number() (float64, error) {
	start := r.at
	for r.at < len(r.in) && strings.IndexByte("+-.0123456789eE", r.in[r.at]) >= 0 {
		r.at++
	}
	text := r.in[start:r.at]
	if !wellFormed(text) {
		return 0, r.fail("not a number")
	}
	n, err := strconv.ParseFloat(text, 64)
	if err != nil && !(errors.Is(err, strconv.ErrRange) && n > -1 && n < 1) { // too small is zero
		return 0, r.fail("not a number")
	}
	return n, nil
}

// wellFormed knows the grammar of RFC 8259, section 6.
func wellFormed(n string) bool {
	n = strings.TrimPrefix(n, "-")
	whole, n := digits(n)
	if whole == "" || len(whole) > 1 && whole[0] == '0' {
		return false
	}
	if rest, ok := strings.CutPrefix(n, "."); ok {
		if whole, n = digits(rest); whole == "" {
			return false
		}
	}
	if n == "" {
		return true
	}
	if n[0]|0x20 != 'e' {
		return false
	}
	n = n[1:]
	if n != "" && (n[0] == '+' || n[0] == '-') {
		n = n[1:]
	}
	whole, n = digits(n)
	return whole != "" && n == ""
}

// digits divides a text after its first digits.
func digits(s string) (first, rest string) {
	i := 0
	for i < len(s) && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	return s[:i], s[i:]
}

var escapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t', '\'': '\''}

func (r *reader) text() (string, error) {
	quote := r.in[r.at]
	r.at++
	var out []byte
	for r.at < len(r.in) {
		switch r.in[r.at] {
		case quote:
			r.at++
			return string(out), nil
		case '\\':
			var err error
			if out, err = r.escape(out); err != nil {
				return "", err
			}
		default:
			char, n := utf8.DecodeRuneInString(r.in[r.at:])
			if char == utf8.RuneError && n == 1 {
				return "", r.fail("not UTF-8")
			}
			out = append(out, r.in[r.at:r.at+n]...)
			r.at += n
		}
	}
	return "", r.fail("a string does not end")
}

func (r *reader) escape(out []byte) ([]byte, error) {
	if len(r.in) < r.at+2 {
		return nil, r.fail("a string does not end")
	}
	c := r.in[r.at+1]
	r.at += 2
	if c != 'u' && c != 'U' {
		plain, ok := escapes[c]
		if !ok {
			return nil, r.fail("no such escape")
		}
		return append(out, plain), nil
	}
	point, err := r.unit()
	if err != nil {
		return nil, err
	}
	switch {
	case point >= 0xdc00 && point <= 0xdfff:
		return nil, r.fail("half a surrogate pair")
	case point >= 0xd800 && point <= 0xdbff:
		if err := r.expect(`\u`); err != nil {
			return nil, err
		}
		low, err := r.unit()
		if err != nil {
			return nil, err
		}
		if low < 0xdc00 || low > 0xdfff {
			return nil, r.fail("half a surrogate pair")
		}
		point = utf16.DecodeRune(point, low)
	}
	return utf8.AppendRune(out, point), nil
}

// unit reads the four digits of an escape.
func (r *reader) unit() (rune, error) {
	if len(r.in) < r.at+4 {
		return 0, r.fail("want four digits")
	}
	n, err := strconv.ParseUint(r.in[r.at:r.at+4], 16, 16)
	if err != nil {
		return 0, r.fail("want four digits")
	}
	r.at += 4
	return rune(n), nil
}
