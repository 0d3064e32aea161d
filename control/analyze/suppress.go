package analyze

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// suppressAnnotation lists, on an object, codes that are not to be reported about it; "*"
// is all.
const suppressAnnotation = "galley.istio.io/analyze-suppress"

// A Suppression keeps messages of a code about some objects from being reported.
type Suppression struct {
	Code   Code
	Object string // "Kind name.namespace"; "*" in it stands for anything
}

// ParseSuppression reads CODE=OBJECT.
func ParseSuppression(text string) (Suppression, error) {
	code, about, found := strings.Cut(text, "=")
	if !found || code == "" || about == "" || strings.Contains(about, "=") {
		return Suppression{}, fmt.Errorf("suppression %q: must be CODE=\"KIND NAME.NAMESPACE\"", text)
	}
	if _, err := path.Match(about, ""); err != nil {
		return Suppression{}, fmt.Errorf("suppression %q: %w", text, err)
	}
	return Suppression{Code: Code(code), Object: about}, nil
}

// covers reports whether a message is one of those.
func (s Suppression) covers(f Message) bool {
	name := string(f.Object.Kind) + " " + f.Object.Name
	if f.Object.Namespace != "" {
		name += "." + f.Object.Namespace
	}
	match, _ := path.Match(s.Object, name)
	return s.Code == f.Code && match
}

// suppressed reports whether the caller or the object itself does not want a message.
func (f Message) suppressed(by []Suppression) bool {
	if slices.ContainsFunc(by, func(s Suppression) bool { return s.covers(f) }) {
		return true
	}
	for code := range strings.SplitSeq(f.unwanted, ",") {
		if code = strings.TrimSpace(code); code == "*" || code == string(f.Code) {
			return true
		}
	}
	return false
}
