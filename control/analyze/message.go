package analyze

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lateen-mesh/lateen/control/config"
)

// A Level says how bad a message is; worse ones are greater.
type Level uint8

// The levels.
const (
	Info Level = iota
	Warning
	Error
)

// ParseLevel reads a level's name; case does not matter.
func ParseLevel(name string) (Level, error) {
	for l := Info; l <= Error; l++ {
		if strings.EqualFold(name, l.String()) {
			return l, nil
		}
	}
	return 0, fmt.Errorf("level %q: must be Info, Warning or Error", name)
}

// String is "Info", "Warning" or "Error".
func (l Level) String() string { return [...]string{"Info", "Warning", "Error"}[min(l, Error)] }

// MarshalText writes the level's name.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// documentation is where Istio describes each of its codes.
const documentation = "https://istio.io/latest/docs/reference/config/analysis/"

// A Message is one finding, as `analyze -o json` shows it.
type Message struct {
	Code      Code   `json:"code"`
	Document  string `json:"documentationUrl,omitempty"` // of Istio's codes
	Level     Level  `json:"level"`
	Text      string `json:"message"`
	Origin    string `json:"origin,omitempty"`    // the object: "VirtualService default/reviews"
	Reference string `json:"reference,omitempty"` // where it is written: "file.yaml:12"

	Object config.Key `json:"-"`

	unwanted string // the object's annotation that says which codes are not wanted
}

// New makes a message about an object; the zero Key is about none. The arguments are those
// of the code, in its order. A code that does not exist is a mistake of the caller and panics.
func New(code Code, about config.Key, at config.Source, args ...any) Message {
	d := defined(code)
	if d == nil || len(args) != len(d.args) {
		panic(fmt.Sprintf("analyze: message %s with %d arguments does not exist", code, len(args)))
	}
	m := Message{Code: code, Level: d.level, Text: fmt.Sprintf(d.text, args...), Reference: at.String(), Object: about}
	if strings.HasPrefix(string(code), "IST") {
		m.Document = documentation + strings.ToLower(string(code)) + "/"
	}
	if about != (config.Key{}) {
		m.Origin = about.String()
	}
	return m
}

// String is the message as a line: `Error [IST0101] (VirtualService default/reviews a.yaml:9) Referenced …`.
func (m Message) String() string { return m.line(m.Level.String()) }

// Colored is String with the level in the color of a terminal.
func (m Message) Colored() string {
	const red, yellow, plain = "\033[1;31m", "\033[33m", "\033[0m"
	switch m.Level {
	case Error:
		return m.line(red + m.Level.String() + plain)
	case Warning:
		return m.line(yellow + m.Level.String() + plain)
	}
	return m.String()
}

func (m Message) line(level string) string {
	place := strings.TrimSpace(m.Origin + " " + m.Reference)
	if place != "" {
		place = " (" + place + ")"
	}
	return fmt.Sprintf("%s [%s]%s %s", level, m.Code, place, m.Text)
}

// Known reports whether a code exists.
func Known(code Code) bool { return defined(code) != nil }

// sorted puts the worst first, then by code, object and text, and drops what is said twice.
func sorted(all []Message) []Message {
	slices.SortStableFunc(all, func(a, b Message) int {
		if a.Level != b.Level {
			return int(b.Level) - int(a.Level)
		}
		if c := strings.Compare(string(a.Code), string(b.Code)); c != 0 {
			return c
		}
		if c := strings.Compare(a.Origin, b.Origin); c != 0 {
			return c
		}
		return strings.Compare(a.Text, b.Text)
	})
	return slices.CompactFunc(all, func(a, b Message) bool {
		return a.Code == b.Code && a.Object == b.Object && a.Text == b.Text && a.Reference == b.Reference
	})
}
