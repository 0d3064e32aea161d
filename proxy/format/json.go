package format

import (
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/structpb"
)

// maxDepth bounds the nesting of a JSON template.
const maxDepth = 32

// A node is a piece of a JSON template. append returns false when the record has no
// value for it; with omit it has then appended nothing, without it "null".
type node interface {
	append(dst []byte, rec Record, omit bool) ([]byte, bool)
}

type (
	// literalNode is JSON that does not depend on the record.
	literalNode string
	// operationNode is a value made of one operator alone, with its own type.
	operationNode struct{ op *operation }
	// textNode is a string with operators within.
	textNode   struct{ format *Format }
	objectNode []member
	listNode   []node
)

type member struct {
	key   string // with quotes and colon
	value node
}

// ParseJSON compiles a JSON template: its strings may hold operators. A string that
// is one operator alone becomes a number or an object where the operator has one,
// null (or nothing, with omitEmpty) where the record has no value.
func ParseJSON(s *structpb.Struct, omitEmpty bool) (*Format, error) {
	missing := "-"
	if omitEmpty {
		missing = ""
	}
	n, err := newObject(s, missing, 0)
	if err != nil {
		return nil, err
	}
	return &Format{json: n, omit: omitEmpty}, nil
}

func newObject(s *structpb.Struct, missing string, depth int) (node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	if len(s.GetFields()) == 0 {
		return literalNode("{}"), nil
	}
	var out objectNode
	for _, key := range slices.Sorted(maps.Keys(s.GetFields())) {
		n, err := newNode(s.GetFields()[key], missing, depth)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
		out = append(out, member{string(appendString(nil, key)) + ":", n})
	}
	return out, nil
}

func newNode(v *structpb.Value, missing string, depth int) (node, error) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return newString(k.StringValue, missing)
	case *structpb.Value_StructValue:
		return newObject(k.StructValue, missing, depth+1)
	case *structpb.Value_ListValue:
		return newList(k.ListValue, missing, depth+1)
	}
	return literalNode(appendValue(nil, v.AsInterface())), nil
}

func newString(text, missing string) (node, error) {
	f, err := parse(text, missing)
	if err != nil {
		return nil, err
	}
	switch {
	case len(f.parts) == 0:
		return literalNode(`""`), nil
	case len(f.parts) == 1 && f.parts[0].op != nil:
		return operationNode{f.parts[0].op}, nil
	case len(f.parts) == 1:
		return literalNode(appendString(nil, f.parts[0].literal)), nil
	}
	return textNode{f}, nil
}

func newList(l *structpb.ListValue, missing string, depth int) (node, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	if len(l.GetValues()) == 0 {
		return literalNode("[]"), nil
	}
	var out listNode
	for i, v := range l.GetValues() {
		n, err := newNode(v, missing, depth)
		if err != nil {
			return nil, fmt.Errorf("[%d]: %w", i, err)
		}
		out = append(out, n)
	}
	return out, nil
}

func (n literalNode) append(dst []byte, _ Record, _ bool) ([]byte, bool) {
	return append(dst, n...), true
}

func (n operationNode) append(dst []byte, rec Record, omit bool) ([]byte, bool) {
	var ok bool
	if n.op.json != nil {
		dst, ok = n.op.json(dst, rec)
	} else {
		start := len(dst)
		if dst, ok = n.op.write(append(dst, '"'), rec); ok {
			return closeString(dst, start+1), true
		}
		dst = dst[:start]
	}
	if !ok && !omit {
		dst = append(dst, "null"...)
	}
	return dst, ok
}

func (n textNode) append(dst []byte, rec Record, _ bool) ([]byte, bool) {
	start := len(dst) + 1
	return closeString(n.format.appendText(append(dst, '"'), rec), start), true
}

func (n objectNode) append(dst []byte, rec Record, omit bool) ([]byte, bool) {
	open := len(dst)
	dst = append(dst, '{')
	for _, m := range n {
		start := len(dst)
		if start > open+1 {
			dst = append(dst, ',')
		}
		var ok bool
		if dst, ok = m.value.append(append(dst, m.key...), rec, omit); !ok && omit {
			dst = dst[:start]
		}
	}
	if omit && len(dst) == open+1 {
		return dst[:open], false
	}
	return append(dst, '}'), true
}

func (n listNode) append(dst []byte, rec Record, omit bool) ([]byte, bool) {
	open := len(dst)
	dst = append(dst, '[')
	for _, value := range n {
		start := len(dst)
		if start > open+1 {
			dst = append(dst, ',')
		}
		var ok bool
		if dst, ok = value.append(dst, rec, omit); !ok && omit {
			dst = dst[:start]
		}
	}
	return append(dst, ']'), true
}

// appendString appends s as a JSON string.
func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	return closeString(append(dst, s...), len(dst))
}

// closeString escapes what stands in dst from start on and appends the closing quote.
func closeString(dst []byte, start int) []byte {
	raw := dst[start:]
	if plainJSON(raw) {
		return append(dst, '"')
	}
	valid := utf8.Valid(raw)
	end := len(dst)
	for i := start; i < end; i++ {
		dst = appendEscaped(dst, dst[i], valid)
	}
	n := copy(dst[start:], dst[end:])
	return append(dst[:start+n], '"')
}

func plainJSON(s []byte) bool {
	for _, c := range s {
		if c < 0x20 || c == '"' || c == '\\' || c >= 0x80 {
			return false
		}
	}
	return true
}

const hexDigits = "0123456789abcdef"

// appendEscaped appends one byte of a string. A string that is not UTF-8 is taken
// for Latin-1 and all its special bytes become \u00xx, as Envoy does it.
func appendEscaped(dst []byte, c byte, valid bool) []byte {
	if c != '"' && c != '\\' && c >= 0x20 && (c < 0x80 || valid) {
		return append(dst, c)
	}
	if valid {
		switch c {
		case '"', '\\':
			return append(dst, '\\', c)
		case '\b':
			return append(dst, `\b`...)
		case '\f':
			return append(dst, `\f`...)
		case '\n':
			return append(dst, `\n`...)
		case '\r':
			return append(dst, `\r`...)
		case '\t':
			return append(dst, `\t`...)
		}
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&15])
}
