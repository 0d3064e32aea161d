package match

import (
	"fmt"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// A Path is a compiled PathMatcher: a string matcher on the path without its query
// and fragment.
type Path struct{ text String }

// NewPath compiles a PathMatcher.
func NewPath(m *matcherv3.PathMatcher) (Path, error) {
	text, err := NewString(m.GetPath())
	if err != nil {
		return Path{}, fmt.Errorf("path: %w", err)
	}
	return Path{text}, nil
}

// Match decides by a request's target.
func (p *Path) Match(target []byte) bool {
	for i, c := range target {
		if c == '?' || c == '#' {
			target = target[:i]
			break
		}
	}
	return p.text.Match(target)
}

// String says what p wants.
func (p *Path) String() string { return "path " + p.text.String() }
