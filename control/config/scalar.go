package config

import (
	"encoding/base64"
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// A scalar is a YAML scalar as kubectl reads it: by the rules of YAML 1.1, where
// plain yes, on, y (and no, off, n) are booleans.
type scalar struct {
	tag   string // !!null, !!bool, !!int, !!float or !!str
	text  string // as written
	truth bool
	whole string // !!int: in decimal
	float float64
}

func readScalar(n *yaml.Node) scalar {
	s := scalar{tag: n.ShortTag(), text: n.Value}
	if n.Style == 0 {
		if truth, ok := yaml11Bool(n.Value); ok {
			return scalar{tag: "!!bool", text: n.Value, truth: truth}
		}
	}
	switch s.tag {
	case "!!bool":
		s.truth, _ = yaml11Bool(n.Value)
	case "!!int":
		s.readInt()
	case "!!float":
		s.readFloat()
	case "!!null":
	case "!!binary":
		s.tag = "!!str"
		if raw, err := base64.StdEncoding.DecodeString(n.Value); err == nil {
			s.text = string(raw)
		}
	default:
		s.tag = "!!str" // !!timestamp and tags of applications: the text itself
	}
	return s
}

func (s *scalar) readInt() {
	plain := strings.ReplaceAll(s.text, "_", "")
	if i, err := strconv.ParseInt(plain, 0, 64); err == nil {
		s.whole, s.float = strconv.FormatInt(i, 10), float64(i)
		return
	}
	if u, err := strconv.ParseUint(plain, 0, 64); err == nil {
		s.whole, s.float = strconv.FormatUint(u, 10), float64(u)
		return
	}
	s.tag = "!!float"
	s.readFloat()
}

func (s *scalar) readFloat() {
	plain := strings.ReplaceAll(s.text, "_", "")
	f, err := strconv.ParseFloat(plain, 64)
	if err != nil {
		f, err = strconv.ParseFloat(strings.Replace(strings.ToLower(plain), ".inf", "inf", 1), 64)
	}
	if err != nil && !math.IsInf(f, 0) {
		f = math.NaN()
	}
	s.float = f
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 {
		s.whole = strconv.FormatFloat(f, 'f', -1, 64)
	}
}

// finite reports whether JSON can hold the number.
func (s *scalar) finite() bool { return !math.IsNaN(s.float) && !math.IsInf(s.float, 0) }

// describe names the scalar in messages: `number 80`, `boolean on`.
func (s *scalar) describe() string {
	switch s.tag {
	case "!!null":
		return "nothing"
	case "!!str":
		return strconv.Quote(shorten(s.text))
	}
	return strings.TrimPrefix(s.category(), "a ") + " " + shorten(s.text)
}

// category names the scalar without showing its value.
func (s *scalar) category() string {
	switch s.tag {
	case "!!null":
		return "nothing"
	case "!!bool":
		return "a boolean"
	case "!!int", "!!float":
		return "a number"
	}
	return "a string"
}

// key is the scalar as a key of a JSON object.
func (s *scalar) key() string {
	switch {
	case s.tag == "!!bool":
		return strconv.FormatBool(s.truth)
	case s.tag == "!!int":
		return s.whole
	case s.tag == "!!float" && s.finite():
		return strconv.FormatFloat(s.float, 'g', -1, 64)
	case s.tag == "!!null":
		return "null"
	}
	return s.text
}

func yaml11Bool(v string) (truth, ok bool) {
	switch v {
	case "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y":
		return true, true
	case "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", "n", "N":
		return false, true
	}
	return false, false
}

// shorten keeps values that are quoted in messages readable, and secrets that
// stand in the wrong place mostly out of logs.
func shorten(v string) string {
	const limit = 40
	if r := []rune(v); len(r) > limit {
		return string(r[:limit]) + "…"
	}
	return v
}
