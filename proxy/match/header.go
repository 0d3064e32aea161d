package match

import (
	"errors"
	"fmt"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// A Header is a compiled HeaderMatcher: a condition on the value of one header.
type Header struct {
	// Name is the header's, in lower case; pseudo headers begin with a colon.
	Name string

	kind           headerKind
	text           String
	first, end     int64 // range: first ≤ value < end
	present        bool
	invert         bool
	missingIsEmpty bool
}

type headerKind uint8

const (
	byPresence headerKind = iota
	byText
	byRange
)

// NewHeader compiles a HeaderMatcher. Without a specifier it wants presence.
func NewHeader(m *routev3.HeaderMatcher) (Header, error) {
	h := Header{Name: strings.ToLower(m.GetName()), present: true, invert: m.GetInvertMatch(), missingIsEmpty: m.GetTreatMissingHeaderAsEmpty()}
	if h.Name == "" {
		return Header{}, errors.New("name: must not be empty")
	}
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case nil:
		return h, nil
	case *routev3.HeaderMatcher_PresentMatch:
		h.present = s.PresentMatch
		return h, nil
	case *routev3.HeaderMatcher_RangeMatch:
		h.kind, h.first, h.end = byRange, s.RangeMatch.GetStart(), s.RangeMatch.GetEnd()
		return h, nil
	}
	text, err := NewString(headerText(m))
	if err != nil {
		return Header{}, fmt.Errorf("%s: %w", h.Name, err)
	}
	h.kind, h.text = byText, text
	return h, nil
}

// headerText is the string matcher of m, also for the older forms of it.
func headerText(m *routev3.HeaderMatcher) *matcherv3.StringMatcher {
	switch s := m.GetHeaderMatchSpecifier().(type) {
	case *routev3.HeaderMatcher_StringMatch:
		return s.StringMatch
	case *routev3.HeaderMatcher_ExactMatch:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s.ExactMatch}}
	case *routev3.HeaderMatcher_PrefixMatch:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s.PrefixMatch}}
	case *routev3.HeaderMatcher_SuffixMatch:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: s.SuffixMatch}}
	case *routev3.HeaderMatcher_ContainsMatch:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: s.ContainsMatch}}
	case *routev3.HeaderMatcher_SafeRegexMatch:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: s.SafeRegexMatch}}
	}
	return nil
}

// Attributes are the headers of a request or response; a header may have several values.
type Attributes interface {
	// Value is the i-th value of a header; ok is false beyond the last.
	Value(name string, i int) (value []byte, ok bool)
}

// Match decides by the values of the header: one of them must be what h wants, or
// none of them when it is inverted. A missing header matches nothing but a presence
// condition, not even an inverted one, unless treat_missing_header_as_empty is set.
func (h *Header) Match(a Attributes) bool {
	value, present := a.Value(h.Name, 0)
	switch {
	case h.kind == byPresence:
		return (present || h.missingIsEmpty) == h.present != h.invert
	case !present && !h.missingIsEmpty:
		return false
	}
	for i := 1; !h.wants(value); i++ {
		if value, present = a.Value(h.Name, i); !present {
			return h.invert
		}
	}
	return !h.invert
}

func (h *Header) wants(value []byte) bool {
	if h.kind == byText {
		return h.text.Match(value)
	}
	return h.inRange(value)
}

func (h *Header) inRange(value []byte) bool {
	n, ok := parseInt(value)
	return ok && n >= h.first && n < h.end
}

// parseInt is strconv.ParseInt in decimal for bytes; it does not allocate.
func parseInt(v []byte) (n int64, ok bool) {
	negative := len(v) > 0 && v[0] == '-'
	if negative || len(v) > 0 && v[0] == '+' {
		v = v[1:]
	}
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}
	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	if negative {
		n = -n
	}
	return n, true
}

// String says what h wants: `header x-a exact "1"`, `header x-a absent`.
func (h *Header) String() string {
	var want string
	switch h.kind {
	case byPresence:
		if h.present != h.invert {
			return "header " + h.Name + " present"
		}
		return "header " + h.Name + " absent"
	case byText:
		want = h.text.String()
	case byRange:
		want = fmt.Sprintf("in [%d,%d)", h.first, h.end)
	}
	if h.invert {
		want = "not " + want
	}
	return "header " + h.Name + " " + want
}
