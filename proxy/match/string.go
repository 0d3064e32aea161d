package match

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"unsafe"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

type stringKind uint8

const (
	exact stringKind = iota
	prefix
	suffix
	contains
	pattern
)

var kindNames = [...]string{"exact", "prefix", "suffix", "contains", "regex"}

// A String is a compiled StringMatcher. The zero value matches the empty string.
type String struct {
	kind stringKind
	text string // in lower case with fold
	fold bool   // ignore_case, ASCII as in Envoy; never with a pattern
	re   *regexp.Regexp
}

// NewString compiles a StringMatcher.
func NewString(m *matcherv3.StringMatcher) (String, error) {
	s := String{fold: m.GetIgnoreCase()}
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		s.text = p.Exact
	case *matcherv3.StringMatcher_Prefix:
		s.kind, s.text = prefix, p.Prefix
	case *matcherv3.StringMatcher_Suffix:
		s.kind, s.text = suffix, p.Suffix
	case *matcherv3.StringMatcher_Contains:
		s.kind, s.text = contains, p.Contains
	case *matcherv3.StringMatcher_SafeRegex:
		re, err := NewRegex(p.SafeRegex)
		if err != nil {
			return String{}, fmt.Errorf("safe_regex: %w", err)
		}
		return String{kind: pattern, text: p.SafeRegex.GetRegex(), re: re}, nil
	case *matcherv3.StringMatcher_Custom:
		return String{}, fmt.Errorf("custom %q: not supported", p.Custom.GetName())
	default:
		return String{}, errors.New("match_pattern: not set")
	}
	if s.kind != exact && s.text == "" {
		return String{}, fmt.Errorf("%s: must not be empty", kindNames[s.kind])
	}
	if s.fold {
		s.text = string(lower([]byte(s.text)))
	}
	return s, nil
}

// Exact is a String that matches text alone.
func Exact(text string) String { return String{text: text} }

// Prefix is a String that matches what begins with text.
func Prefix(text string) String { return String{kind: prefix, text: text} }

// Match reports whether v is what s wants.
func (s *String) Match(v []byte) bool {
	n := len(s.text)
	switch s.kind {
	case exact:
		return len(v) == n && s.same(v)
	case prefix:
		return len(v) >= n && s.same(v[:n])
	case suffix:
		return len(v) >= n && s.same(v[len(v)-n:])
	case contains:
		return s.within(v)
	}
	return s.re.Match(v)
}

// MatchText is Match for a string.
func (s *String) MatchText(v string) bool {
	return s.Match(unsafe.Slice(unsafe.StringData(v), len(v))) //nolint:gosec // only read
}

// same compares v, which has the length of the text.
func (s *String) same(v []byte) bool {
	if !s.fold {
		return string(v) == s.text
	}
	return equalFold(v, s.text)
}

func (s *String) within(v []byte) bool {
	if !s.fold {
		return bytes.Contains(v, unsafe.Slice(unsafe.StringData(s.text), len(s.text))) //nolint:gosec // only read
	}
	for i := 0; i+len(s.text) <= len(v); i++ {
		if equalFold(v[i:i+len(s.text)], s.text) {
			return true
		}
	}
	return false
}

// String says what s wants: `prefix "/api"`, `exact "x" (any case)`.
func (s *String) String() string {
	text := kindNames[s.kind] + " " + strconv.Quote(s.text)
	if s.fold {
		text += " (any case)"
	}
	return text
}

// equalFold compares v with low, which has the same length and is in lower case.
func equalFold(v []byte, low string) bool {
	for i, b := range v {
		if b >= 'A' && b <= 'Z' {
			b += 'a' - 'A'
		}
		if b != low[i] {
			return false
		}
	}
	return true
}

func lower(b []byte) []byte {
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return b
}
