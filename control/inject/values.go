package inject

import (
	_ "embed"
	"fmt"
	"math"

	"sigs.k8s.io/yaml"
)

//go:embed values.yaml
var defaultValues []byte

// tree is the values of an installation: what templates see as .Values. Whole numbers are
// int64. It is not changed once it is in a Settings.
type tree map[string]any

// DefaultValues returns a fresh tree of what templates read, where an installation says
// nothing else. Whole numbers are int64.
func DefaultValues() map[string]any {
	t, err := parseTree(defaultValues)
	if err != nil {
		panic("inject: values.yaml: " + err.Error()) // it is in the program
	}
	return t
}

// parseTree reads YAML or JSON that is one mapping; nothing is an empty one.
func parseTree(text []byte) (tree, error) {
	var t map[string]any
	if err := yaml.Unmarshal(text, &t); err != nil {
		return nil, err
	}
	return whole(t).(map[string]any), nil
}

// whole makes numbers without a fraction integers, in place.
func whole(v any) any {
	switch v := v.(type) {
	case map[string]any:
		if v == nil {
			return map[string]any{}
		}
		for key, value := range v {
			v[key] = whole(value)
		}
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v)
		}
	}
	return v
}

// overlay sets what over says in base, mapping by mapping, and returns base. What over sets
// to null is gone.
func overlay(base, over map[string]any) map[string]any {
	for key, value := range over {
		below, isMap := value.(map[string]any)
		old, wasMap := base[key].(map[string]any)
		switch {
		case value == nil:
			delete(base, key)
		case isMap && wasMap:
			base[key] = overlay(old, below)
		default:
			base[key] = value
		}
	}
	return base
}

// at is the value at a path, nil if there is none.
func (t tree) at(path ...string) any {
	var v any = map[string]any(t)
	for _, key := range path {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[key]
	}
	return v
}

func (t tree) text(path ...string) string {
	if v := t.at(path...); v != nil {
		return fmt.Sprint(v)
	}
	return ""
}

func (t tree) boolean(path ...string) bool { return truth(t.text(path...)) }
