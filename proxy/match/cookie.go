package match

import (
	"bytes"
	"errors"
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// A Cookie is a compiled CookieMatcher: a condition on the value of one cookie.
type Cookie struct {
	name   string
	text   String
	invert bool
}

// NewCookie compiles a CookieMatcher.
func NewCookie(m *routev3.CookieMatcher) (Cookie, error) {
	if m.GetName() == "" {
		return Cookie{}, errors.New("name: must not be empty")
	}
	text, err := NewString(m.GetStringMatch())
	if err != nil {
		return Cookie{}, fmt.Errorf("%s: string_match: %w", m.GetName(), err)
	}
	return Cookie{m.GetName(), text, m.GetInvertMatch()}, nil
}

// Match decides by the cookie headers of a request. A cookie that is missing is not what
// c wants, so that an inverted condition holds for it.
func (c *Cookie) Match(a Attributes) bool {
	v, ok := CookieValue(a, c.name)
	return (ok && c.text.Match(v)) != c.invert
}

// String says what c wants.
func (c *Cookie) String() string {
	if c.invert {
		return "cookie " + c.name + " not " + c.text.String()
	}
	return "cookie " + c.name + " " + c.text.String()
}

// CookieValue is the value of the first cookie of that name, without its quotation marks.
func CookieValue(a Attributes, name string) (value []byte, ok bool) {
	for i := 0; ; i++ {
		header, more := a.Value("cookie", i)
		if !more {
			return nil, false
		}
		for len(header) > 0 {
			one := header
			if end := bytes.IndexByte(header, ';'); end >= 0 {
				one, header = header[:end], header[end+1:]
			} else {
				header = nil
			}
			one = bytes.TrimSpace(one)
			if at := bytes.IndexByte(one, '='); at >= 0 && string(one[:at]) == name {
				return unquoted(one[at+1:]), true
			}
		}
	}
}

func unquoted(v []byte) []byte {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		return v[1 : len(v)-1]
	}
	return v
}
