package config

import "strings"

// A Severity says whether a Problem keeps its object out.
type Severity uint8

// The severities. The zero value is an error.
const (
	Error   Severity = iota // the object is refused
	Warning                 // the object is in force, something about it deserves a look
)

// String is "error" or "warning".
func (s Severity) String() string {
	if s == Warning {
		return "warning"
	}
	return "error"
}

// A Problem is one finding about one object or file. It is an error value whose
// text is outermost first:
//
//	file.yaml:12: VirtualService default/reviews: http[0].route[1].weight: must be 0–100, got 120
type Problem struct {
	// Source is the line of the field where it is known, else that of the object.
	Source Source
	// Object is the zero Key where the document does not say what it is.
	Object Key
	// Field is the path of the field in the object as it is written in YAML
	// ("http[0].route[1].weight", "metadata.name"); "" for the object as a whole.
	// Paths within spec leave out "spec." for Istio kinds.
	Field    string
	Message  string
	Hint     string // what to do about it ("did you mean \"route\"?"), "" if unknown
	Severity Severity
	// Aside is set for a warning that says nothing against the object: this version does
	// not follow it yet, or something else would serve better.
	Aside bool
}

// Error joins place, object, field and message; the hint is not part of it.
func (p Problem) Error() string {
	parts := make([]string, 0, 4)
	if s := p.Source.String(); s != "" {
		parts = append(parts, s)
	}
	if p.Object != (Key{}) {
		parts = append(parts, p.Object.String())
	}
	if p.Field != "" {
		parts = append(parts, p.Field)
	}
	return strings.Join(append(parts, p.Message), ": ")
}

// HasErrors reports whether any of the problems refuses an object.
func HasErrors(problems []Problem) bool {
	for _, p := range problems {
		if p.Severity == Error {
			return true
		}
	}
	return false
}
