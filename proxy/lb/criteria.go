package lb

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
)

// criteria are the metadata that endpoints must have, in a form that is looked up.
type criteria struct {
	source map[string]any
	keys   []string // sorted
	id     string   // of keys and values
	names  string   // of the keys alone
	// fallbacks are tried in turn instead of these (METADATA fallback_list), nil for none.
	fallbacks []*criteria
}

// fallbackKey is the key by which metadata name their alternatives.
const fallbackKey = "fallback_list"

// newCriteria compiles metadata; withList has a fallback_list in it looked at.
func newCriteria(m map[string]any, withList bool) *criteria {
	var list []any
	if withList {
		if l, ok := m[fallbackKey].([]any); ok {
			list = l
			m = maps.Clone(m)
			delete(m, fallbackKey)
		}
	}
	c := &criteria{source: m, keys: slices.Sorted(maps.Keys(m))}
	c.names = strings.Join(c.keys, "\x00")
	var id strings.Builder
	for _, k := range c.keys {
		id.WriteString(pairID(k, m[k]))
	}
	c.id = id.String()
	for _, other := range list {
		merged := maps.Clone(m)
		if o, ok := other.(map[string]any); ok {
			maps.Copy(merged, o)
		}
		c.fallbacks = append(c.fallbacks, newCriteria(merged, false))
	}
	return c
}

// only are the criteria of some keys.
func (c *criteria) only(keys []string) *criteria {
	m := map[string]any{}
	for _, k := range keys {
		if v, ok := c.source[k]; ok {
			m[k] = v
		}
	}
	return newCriteria(m, false)
}

// pairID tells one key and value from all others.
func pairID(key string, v any) string { return fmt.Sprintf("%q=%#v;", key, v) }

// known are the criteria that have been compiled, by the identity of their maps. It takes
// no lock to find one.
type known struct {
	mu   sync.Mutex
	list atomic.Pointer[map[uintptr]remembered]
}

// remembered holds the map too, so that its address is nobody else's.
type remembered struct {
	source   map[string]any
	criteria *criteria
}

// maxKnown bounds the criteria that are remembered: as many as routes to one cluster
// differ in.
const maxKnown = 256

// get compiles m, once as long as there is room.
func (k *known) get(m map[string]any, withList bool) *criteria {
	at := reflect.ValueOf(m).Pointer()
	if list := k.list.Load(); list != nil {
		if r, ok := (*list)[at]; ok {
			return r.criteria
		}
	}
	c := newCriteria(m, withList)
	k.mu.Lock()
	defer k.mu.Unlock()
	more := map[uintptr]remembered{}
	if list := k.list.Load(); list != nil {
		if len(*list) >= maxKnown {
			return c
		}
		maps.Copy(more, *list)
	}
	more[at] = remembered{m, c}
	k.list.Store(&more)
	return c
}
