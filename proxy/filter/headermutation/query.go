package headermutation

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
)

// A parameter is one mutation of a query: a parameter removed, or given a value.
type parameter struct {
	name   string
	value  *format.Format // nil: removed
	action corev3.KeyValueAppend_KeyValueAppendAction
}

func newParameters(list []*corev3.KeyValueMutation) ([]parameter, error) {
	var out []parameter
	for i, m := range list {
		p, err := newParameter(m)
		if err != nil {
			return nil, fmt.Errorf("query_parameter_mutations[%d]: %w", i, err)
		}
		out = append(out, p...)
	}
	return out, nil
}

// newParameter compiles a mutation, which may both remove and append.
func newParameter(m *corev3.KeyValueMutation) ([]parameter, error) {
	if m.GetRemove() != "" {
		return []parameter{{name: m.GetRemove()}}, nil
	}
	name, value := m.GetAppend().GetRecord().GetKey(), m.GetAppend().GetRecord().GetValue().GetStringValue()
	if e := m.GetAppend().GetEntry(); e != nil {
		name, value = e.GetKey(), string(e.GetValue())
	}
	if name == "" {
		return nil, fmt.Errorf("append or remove: must be set")
	}
	f, err := format.ParseHeader(value)
	if err != nil {
		return nil, fmt.Errorf("append %q: %w", name, err)
	}
	return []parameter{{name, f, m.GetAppend().GetAction()}}, nil
}

// A query is a decoded query, by name; a name may have several values.
type query map[string][]string

// applyQuery changes the query of a stream's request.
func (m *mutations) applyQuery(s *http.Stream) {
	if len(m.query) == 0 {
		return
	}
	path, text := match.SplitPath(s.Request.Path)
	q := parse(string(text))
	for _, p := range m.query {
		q.change(p, s)
	}
	b := append(s.Scratch(), path...)
	s.Request.Path = s.Keep(q.append(b))
}

func parse(text string) query {
	q := query{}
	for part := range strings.SplitSeq(text, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		q[decoded(name)] = append(q[decoded(name)], decoded(value))
	}
	return q
}

func decoded(text string) string {
	if plain, err := url.PathUnescape(text); err == nil {
		return plain
	}
	return text
}

func (q query) change(p parameter, s *http.Stream) {
	if p.value == nil {
		delete(q, p.name)
		return
	}
	value, there := string(p.value.Append(nil, format.Of(s))), len(q[p.name]) > 0
	switch p.action {
	case corev3.KeyValueAppend_ADD_IF_ABSENT:
		if there {
			return
		}
	case corev3.KeyValueAppend_OVERWRITE_IF_EXISTS:
		if !there {
			return
		}
		delete(q, p.name)
	case corev3.KeyValueAppend_OVERWRITE_IF_EXISTS_OR_ADD:
		delete(q, p.name)
	}
	q[p.name] = append(q[p.name], value)
}

// append writes the query with its question mark, its parameters sorted by name.
func (q query) append(dst []byte) []byte {
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
