package headermutation

import (
	"fmt"

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

// applyQuery changes the query of a stream's request.
func (m *mutations) applyQuery(s *http.Stream) {
	if len(m.query) == 0 {
		return
	}
	path, text := match.SplitPath(s.Request.Path)
	q := match.ParseQuery(string(text))
	for _, p := range m.query {
		change(q, p, s)
	}
	b := append(s.Scratch(), path...)
	s.Request.Path = s.Keep(q.Append(b))
}

// change applies one mutation.
func change(q match.QueryValues, p parameter, s *http.Stream) {
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
