package install

import (
	"fmt"
	"slices"
)

// at is what a tree has under keys, nil where there is nothing.
func at(tree map[string]any, keys ...string) any {
	var v any = tree
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}

func mapping(tree map[string]any, keys ...string) map[string]any {
	m, _ := at(tree, keys...).(map[string]any)
	return m
}

// text is a scalar as text, "" where there is none.
func text(tree map[string]any, keys ...string) string {
	v := at(tree, keys...)
	if v == nil {
		return ""
	}
	return fmt.Sprint(v)
}

// truth reports whether a flag is set; it is false where there is none.
func truth(tree map[string]any, keys ...string) bool {
	b, _ := at(tree, keys...).(bool)
	return b
}

// lay lays one tree over another: mappings field by field, null takes away, the lists of
// gateways by name, all else is replaced. The lower tree is changed; of the upper one nothing is shared.
func lay(lower, upper map[string]any) map[string]any {
	if lower == nil {
		lower = map[string]any{}
	}
	for k, v := range upper {
		old := lower[k]
		switch v := v.(type) {
		case nil:
			delete(lower, k)
		case map[string]any:
			m, _ := old.(map[string]any)
			lower[k] = lay(m, v)
		case []any:
			l, _ := old.([]any)
			if k == "ingressGateways" || k == "egressGateways" {
				lower[k] = layNamed(l, v)
			} else {
				lower[k] = copied(v)
			}
		default:
			lower[k] = v
		}
	}
	return lower
}

// layNamed merges lists of mappings by their names; what has a new name, or none, is added.
func layNamed(lower, upper []any) []any {
	for _, element := range upper {
		m, ok := element.(map[string]any)
		same := func(e any) bool {
			l, _ := e.(map[string]any)
			return ok && m["name"] != nil && l["name"] == m["name"]
		}
		if i := slices.IndexFunc(lower, same); i >= 0 {
			l, _ := lower[i].(map[string]any)
			lower[i] = lay(l, m)
		} else {
			lower = append(lower, copied(element))
		}
	}
	return lower
}

func copied(v any) any {
	switch v := v.(type) {
	case map[string]any:
		return lay(nil, v)
	case []any:
		list := make([]any, len(v))
		for i := range v {
			list[i] = copied(v[i])
		}
		return list
	}
	return v
}
