package inject

import (
	"encoding/json"
	"reflect"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// An operation is one of a JSON patch (RFC 6902). "add" is all that is needed: of a member
// that is there it sets the value.
type operation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// Patch is the JSON patch that makes the pod which raw holds the pod after; before is raw,
// decoded. Fields of raw that this program does not know are left as they are.
func Patch(raw []byte, before, after *corev1.Pod) ([]byte, error) {
	var d differ
	var given any
	if err := json.Unmarshal(raw, &given); err != nil {
		return nil, err
	}
	from, err := plain(before)
	if err != nil {
		return nil, err
	}
	to, err := plain(after)
	if err != nil {
		return nil, err
	}
	d.diff("", given, from, to)
	if d.operations == nil {
		d.operations = []operation{}
	}
	return json.Marshal(d.operations)
}

func plain(pod *corev1.Pod) (v any, err error) {
	text, err := json.Marshal(pod)
	if err == nil {
		err = json.Unmarshal(text, &v)
	}
	return v, err
}

type differ struct{ operations []operation }

func (d *differ) add(path string, value any) {
	d.operations = append(d.operations, operation{"add", path, value})
}

// diff notes how from becomes to. What is patched is raw, which has at most what from has,
// as far as that is known here.
func (d *differ) diff(path string, raw, from, to any) {
	if reflect.DeepEqual(from, to) {
		return
	}
	switch to := to.(type) {
	case map[string]any:
		given, ok := raw.(map[string]any)
		old, was := from.(map[string]any)
		if ok && was {
			d.members(path, given, old, to)
			return
		}
	case []any:
		given, ok := raw.([]any)
		old, was := from.([]any)
		if ok && was && len(given) == len(old) && grown(old, to) {
			d.elements(path, given, old, to)
			return
		}
	}
	d.add(path, to)
}

func (d *differ) members(path string, raw, from, to map[string]any) {
	keys := make([]string, 0, len(to))
	for key := range to {
		keys = append(keys, key)
	}
	for key := range from {
		if _, ok := to[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	escape := strings.NewReplacer("~", "~0", "/", "~1")
	for _, key := range keys {
		below := path + "/" + escape.Replace(key)
		value, stays := to[key]
		given, ok := raw[key]
		switch {
		case !stays && ok:
			d.operations = append(d.operations, operation{Op: "remove", Path: below})
		case !stays:
		case !ok && reflect.DeepEqual(from[key], value): // an empty struct, written out
		case !ok:
			d.add(below, value)
		default:
			d.diff(below, given, from[key], value)
		}
	}
}

// grown is whether all of from is in to, in its order and under its names.
func grown(from, to []any) bool {
	i := 0
	for _, one := range to {
		if i < len(from) && nameOf(one) != "" && nameOf(one) == nameOf(from[i]) {
			i++
		}
	}
	return i == len(from)
}

func nameOf(v any) string {
	m, _ := v.(map[string]any)
	name, _ := m["name"].(string)
	return name
}

// elements notes what is put between the elements that stay, from the first on.
func (d *differ) elements(path string, raw, from, to []any) {
	next := 0
	for i, one := range to {
		at := path + "/" + strconv.Itoa(i)
		if next < len(from) && nameOf(one) == nameOf(from[next]) {
			d.diff(at, raw[next], from[next], one)
			next++
			continue
		}
		d.add(at, one)
	}
}
