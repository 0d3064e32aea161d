package match

import (
	"cmp"
	"slices"
	"strings"
)

// QueryValues is a decoded query: the values of each parameter in their order.
type QueryValues map[string][]string

// ParseQuery reads a query without its question mark. A parameter without "=" has the value
// "". What is not an escape stands for itself.
func ParseQuery(text string) QueryValues {
	q := QueryValues{}
	for text != "" { // what an ampersand at the end would begin is none
		var part string
		part, text, _ = strings.Cut(text, "&")
		name, value, _ := strings.Cut(part, "=")
		name = percentDecoded(name)
		q[name] = append(q[name], percentDecoded(value))
	}
	return q
}

func percentDecoded(text string) string {
	if strings.IndexByte(text, '%') < 0 {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '%' && i+2 < len(text) {
			high, low := hexDigit(text[i+1]), hexDigit(text[i+2])
			if high >= 0 && low >= 0 {
				out = append(out, byte(high<<4|low))
				i += 2
				continue
			}
		}
		out = append(out, text[i])
	}
	return string(out)
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c|0x20 >= 'a' && c|0x20 <= 'f':
		return int(c|0x20-'a') + 10
	}
	return -1
}

// Append writes the query with its question mark, its parameters sorted by name; nothing
// where there are none.
func (q QueryValues) Append(dst []byte) []byte {
	names := make([]string, 0, len(q))
	for name := range q {
		names = append(names, name)
	}
	slices.SortFunc(names, cmp.Compare)
	sign := byte('?')
	for _, name := range names {
		for _, value := range q[name] {
			dst = append(escaped(append(dst, sign), name), '=')
			dst, sign = escaped(dst, value), '&'
		}
	}
	return dst
}

// escaped encodes what would end a parameter or the target of a request; all else stands as
// it is.
func escaped(dst []byte, text string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(text) {
		switch c := text[i]; {
		case c <= ' ', c == '%', c == '&', c == '#', c >= 0x7f:
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		default:
			dst = append(dst, c)
		}
	}
	return dst
}
