package match

import (
	"errors"
	"fmt"
	"strings"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// A Metadata is a compiled MetadataMatcher: a condition on one value of metadata.
type Metadata struct {
	filter string
	path   []string
	value  value
	invert bool
}

// NewMetadata compiles a MetadataMatcher.
func NewMetadata(m *matcherv3.MetadataMatcher) (Metadata, error) {
	c := Metadata{filter: m.GetFilter(), invert: m.GetInvert()}
	for _, segment := range m.GetPath() {
		c.path = append(c.path, segment.GetKey())
	}
	if c.filter == "" || len(c.path) == 0 {
		return Metadata{}, errors.New("filter and path: must be set")
	}
	v, err := newValue(m.GetValue())
	if err != nil {
		return Metadata{}, fmt.Errorf("%s: value: %w", c, err)
	}
	c.value = v
	return c, nil
}

// Match decides by metadata, whose values are those of JSON (string, float64, bool,
// nil, []any, map[string]any).
func (m *Metadata) Match(metadata map[string]map[string]any) bool {
	v, ok := Find(metadata, m.filter, m.path)
	return m.value.match(v, ok) != m.invert
}

// Found reports whether metadata has the value that m reads.
func (m *Metadata) Found(metadata map[string]map[string]any) bool {
	_, ok := Find(metadata, m.filter, m.path)
	return ok
}

// String is the place of the value: `metadata istio_authn: claims/sub`.
func (m Metadata) String() string {
	return "metadata " + m.filter + ": " + strings.Join(m.path, "/")
}

// Find returns the value at a path of metadata.
func Find(metadata map[string]map[string]any, filter string, path []string) (any, bool) {
	at, ok := metadata[filter]
	if !ok || len(path) == 0 {
		return nil, false
	}
	for _, key := range path[:len(path)-1] {
		next, ok := at[key].(map[string]any)
		if !ok {
			return nil, false
		}
		at = next
	}
	v, ok := at[path[len(path)-1]]
	return v, ok
}

// A value is a compiled ValueMatcher.
type value interface{ match(v any, ok bool) bool }

type (
	nullValue    struct{}
	textValue    struct{ text String }
	boolValue    bool
	presentValue bool
	numberValue  struct {
		first, end float64
		exact      bool
	}
	listValue struct{ element value }
	orValue   []value
)

func newValue(m *matcherv3.ValueMatcher) (value, error) {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.ValueMatcher_NullMatch_:
		return nullValue{}, nil
	case *matcherv3.ValueMatcher_DoubleMatch:
		return newNumber(p.DoubleMatch)
	case *matcherv3.ValueMatcher_StringMatch:
		text, err := NewString(p.StringMatch)
		return textValue{text}, err
	case *matcherv3.ValueMatcher_BoolMatch:
		return boolValue(p.BoolMatch), nil
	case *matcherv3.ValueMatcher_PresentMatch:
		return presentValue(p.PresentMatch), nil
	case *matcherv3.ValueMatcher_ListMatch:
		element, err := newValue(p.ListMatch.GetOneOf())
		return listValue{element}, err
	case *matcherv3.ValueMatcher_OrMatch:
		return newOr(p.OrMatch)
	}
	return nil, errors.New("match_pattern: not set")
}

func newNumber(m *matcherv3.DoubleMatcher) (value, error) {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.DoubleMatcher_Exact:
		return numberValue{first: p.Exact, exact: true}, nil
	case *matcherv3.DoubleMatcher_Range:
		return numberValue{first: p.Range.GetStart(), end: p.Range.GetEnd()}, nil
	}
	return nil, errors.New("double_match: not set")
}

func newOr(m *matcherv3.OrMatcher) (value, error) {
	var or orValue
	for i, alternative := range m.GetValueMatchers() {
		v, err := newValue(alternative)
		if err != nil {
			return nil, fmt.Errorf("or_match[%d]: %w", i, err)
		}
		or = append(or, v)
	}
	return or, nil
}

func (nullValue) match(v any, ok bool) bool { return ok && v == nil }

func (m textValue) match(v any, _ bool) bool {
	s, is := v.(string)
	return is && m.text.MatchText(s)
}

func (m boolValue) match(v any, _ bool) bool {
	b, is := v.(bool)
	return is && b == bool(m)
}

// present_match: false matches nothing in Envoy, not even what is missing.
func (m presentValue) match(_ any, ok bool) bool { return bool(m) && ok }

func (m numberValue) match(v any, _ bool) bool {
	n, is := v.(float64)
	if !is {
		return false
	}
	if m.exact {
		return n == m.first
	}
	return n >= m.first && n < m.end
}

func (m listValue) match(v any, _ bool) bool {
	list, is := v.([]any)
	if !is {
		return false
	}
	for _, e := range list {
		if m.element.match(e, true) {
			return true
		}
	}
	return false
}

func (m orValue) match(v any, ok bool) bool {
	for _, alternative := range m {
		if alternative.match(v, ok) {
			return true
		}
	}
	return false
}
