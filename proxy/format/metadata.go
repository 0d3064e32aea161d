package format

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/lateen-mesh/lateen/proxy/match"
)

// A metadataSource is where METADATA(type:…) looks.
type metadataSource func(r Record) map[string]map[string]any

// routeMetadata is what a matched route may offer beside its name.
type routeMetadata interface {
	RouteMetadata() map[string]map[string]any
}

// hostMetadata is what its virtual host may offer.
type hostMetadata interface {
	HostMetadata() map[string]map[string]any
}

var metadataSources = map[string]metadataSource{
	"DYNAMIC": func(r Record) map[string]map[string]any { return r.Info.Metadata },
	"UPSTREAM_HOST": func(r Record) map[string]map[string]any {
		if r.Info.Upstream == nil {
			return nil
		}
		return r.Info.Upstream.Metadata.Load()
	},
	"VIRTUAL_HOST": func(r Record) map[string]map[string]any {
		if m, ok := r.Route.(hostMetadata); ok {
			return m.HostMetadata()
		}
		return nil
	},
	"ROUTE": func(r Record) map[string]map[string]any {
		if m, ok := r.Route.(routeMetadata); ok {
			return m.RouteMetadata()
		}
		return nil
	},
}

// buildMetadata reads "type:namespace:key:key…".
func buildMetadata(params string) (*operation, error) {
	kind, rest, _ := strings.Cut(params, ":")
	source := metadataSources[kind]
	if source == nil {
		return nil, fmt.Errorf("metadata of %q: unknown or not supported", kind)
	}
	path := strings.Split(rest, ":")
	if path[0] == "" || slices.Contains(path[1:], "") {
		return nil, errParam(rest, "a namespace, then keys, with colons between them")
	}
	return valueOperation(func(r Record) (any, bool) { return find(source(r), path) }), nil
}

// find follows a path: namespace, then keys.
func find(m map[string]map[string]any, path []string) (any, bool) {
	if len(path) == 1 {
		all, ok := m[path[0]]
		return all, ok
	}
	return match.Find(m, path[0], path[1:])
}

// buildFilterState reads "key", "key:PLAIN", "key:TYPED" or "key:FIELD:name".
func buildFilterState(params string) (*operation, error) {
	key, style, _ := strings.Cut(params, ":")
	style, field, named := strings.Cut(style, ":")
	switch {
	case style == "FIELD" && named:
		return valueOperation(func(r Record) (any, bool) {
			object, _ := r.Info.FilterState[key].(map[string]any)
			v, ok := object[field]
			return v, ok
		}), nil
	case style == "PLAIN" && !named:
		return plainOperation(func(r Record) (any, bool) { return filterState(r, key) }), nil
	case (style == "" || style == "TYPED") && !named:
		return jsonOperation(func(r Record) (any, bool) { return filterState(r, key) }), nil
	}
	return nil, fmt.Errorf("style %q: unknown or not supported, want PLAIN, TYPED or FIELD:name", style)
}

// An opaque is filter state that has no text form.
type opaque interface{ Opaque() }

func filterState(r Record, key string) (any, bool) {
	v := r.Info.FilterState[key]
	if _, ok := v.(opaque); ok {
		return nil, false
	}
	return v, v != nil
}

// jsonOperation writes a value as JSON everywhere.
func jsonOperation(get func(Record) (any, bool)) *operation {
	op := numeric(func(dst []byte, r Record) ([]byte, bool) {
		v, ok := get(r)
		if !ok {
			return dst, false
		}
		return appendValue(dst, v), true
	})
	return &op
}

// plainOperation writes a value as text, which is a string in JSON, too.
func plainOperation(get func(Record) (any, bool)) *operation {
	return &operation{write: valueOperation(get).write}
}

// valueOperation writes a JSON-like value: strings bare in text, the rest as JSON.
func valueOperation(get func(Record) (any, bool)) *operation {
	return &operation{
		write: func(dst []byte, r Record) ([]byte, bool) {
			v, ok := get(r)
			if !ok || v == nil {
				return dst, false
			}
			if s, is := v.(string); is {
				return append(dst, s...), true
			}
			return appendValue(dst, v), true
		},
		json: func(dst []byte, r Record) ([]byte, bool) {
			v, ok := get(r)
			if !ok || v == nil {
				return dst, false
			}
			return appendValue(dst, v), true
		},
	}
}

// appendValue appends v as JSON with sorted keys.
func appendValue(dst []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...)
	case bool:
		return strconv.AppendBool(dst, v)
	case string:
		return appendString(dst, v)
	case float64:
		return appendNumber(dst, v)
	case []any:
		dst = append(dst, '[')
		for i, e := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = appendValue(dst, e)
		}
		return append(dst, ']')
	case map[string]any:
		return appendObject(dst, v)
	case fmt.Stringer:
		return appendString(dst, v.String())
	}
	// Filter state holds values of any type.
	text, err := json.Marshal(v)
	if err != nil {
		return append(dst, "null"...)
	}
	return append(dst, text...)
}

func appendObject(dst []byte, m map[string]any) []byte {
	keys := make([]string, 0, 8)
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare)
	dst = append(dst, '{')
	for i, k := range keys {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, k), ':')
		dst = appendValue(dst, m[k])
	}
	return append(dst, '}')
}

func appendNumber(dst []byte, f float64) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return append(dst, "null"...)
	}
	if f == math.Trunc(f) && math.Abs(f) < 1<<53 && !(f == 0 && math.Signbit(f)) {
		return strconv.AppendInt(dst, int64(f), 10)
	}
	return strconv.AppendFloat(dst, f, 'g', -1, 64)
}
