package jwtauthn

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
)

// A claim of a token becomes a header.
type claim struct {
	header string
	path   []string
}

func newClaim(c *jwtv3.JwtClaimToHeader) (claim, error) {
	out := claim{header: strings.ToLower(c.GetHeaderName())}
	switch {
	case (c.GetClaimName() == "") == (len(c.GetClaimPath()) == 0):
		return out, errors.New("claim_name: exactly one of it and claim_path must be set")
	case c.GetClaimName() != "":
		out.path = strings.Split(c.GetClaimName(), ".")
	}
	for _, s := range c.GetClaimPath() {
		out.path = append(out.path, s.GetKey())
	}
	return out, nil
}

// of is the claim's text, "" for none.
func (c *claim) of(payload map[string]any) string {
	var v any = payload
	for _, name := range c.path {
		fields, _ := v.(map[string]any)
		var ok bool
		if v, ok = fields[name]; !ok {
			return ""
		}
	}
	switch v := v.(type) {
	case string:
		return v
	case bool:
		return strconv.FormatBool(v)
	case float64:
		return decimal(v)
	case []any, map[string]any:
		return base64.StdEncoding.EncodeToString(appendJSON(nil, v))
	}
	return ""
}

// decimal writes what is a whole number as one, all else with six digits after the point.
func decimal(v float64) string {
	if v < 0 || v >= math.MaxUint64 || v != math.Trunc(v) {
		return strconv.FormatFloat(v, 'f', 6, 64)
	}
	return strconv.FormatUint(uint64(v), 10)
}

// appendJSON writes a value as Protocol Buffers' JSON has it, with the keys of objects sorted.
func appendJSON(dst []byte, v any) []byte {
	switch v := v.(type) {
	case bool:
		return strconv.AppendBool(dst, v)
	case float64:
		return append(dst, shortest(v)...)
	case string:
		return appendText(dst, v)
	case []any:
		dst = append(dst, '[')
		for i, one := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(dst, one)
		}
		return append(dst, ']')
	case map[string]any:
		dst = append(dst, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendJSON(append(appendText(dst, name), ':'), v[name])
		}
		return append(dst, '}')
	}
	return append(dst, "null"...)
}

// shortest writes a number with 15 digits, or with 17 where those do not suffice.
func shortest(v float64) string {
	text := strconv.FormatFloat(v, 'g', 15, 64)
	if same, err := strconv.ParseFloat(text, 64); err != nil || same != v {
		text = strconv.FormatFloat(v, 'g', 17, 64)
	}
	return text
}

var short = map[rune]string{'"': `\"`, '\\': `\\`, '\b': `\b`, '\f': `\f`, '\n': `\n`, '\r': `\r`, '\t': `\t`}

func appendText(dst []byte, text string) []byte {
	dst = append(dst, '"')
	for _, r := range text {
		if s, ok := short[r]; ok {
			dst = append(dst, s...)
		} else if r < ' ' || r == '<' || r == '>' || r >= 0x7f && r < 0xa0 {
			dst = fmt.Appendf(dst, `\u%04x`, r)
		} else {
			dst = append(dst, string(r)...)
		}
	}
	return append(dst, '"')
}
