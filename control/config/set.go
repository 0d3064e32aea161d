package config

import (
	"cmp"
	"maps"
	"slices"
)

// A Set is every object in force at one generation. It is immutable and safe for
// any number of readers. The nil Set is empty.
type Set struct {
	generation uint64
	objects    map[Key]*Config
	lists      map[Kind][]*Config
}

// NewSet returns the set of objects at the given generation. Of two objects with
// one key the first stays. The objects must not be changed afterwards.
func NewSet(generation uint64, objects []*Config) *Set {
	byKey := make(map[Key]*Config, len(objects))
	for _, o := range objects {
		if _, taken := byKey[o.Key]; !taken {
			byKey[o.Key] = o
		}
	}
	return newSet(generation, byKey, nil, nil)
}

// newSet takes ownership of objects. Lists of kinds that did not change are
// shared with the previous set.
func newSet(generation uint64, objects map[Key]*Config, prev *Set, changed map[Kind]bool) *Set {
	s := &Set{generation: generation, objects: objects, lists: map[Kind][]*Config{}}
	if prev != nil {
		maps.Copy(s.lists, prev.lists)
		for k := range changed {
			delete(s.lists, k)
		}
	}
	for _, o := range objects {
		if prev == nil || changed[o.Kind] {
			s.lists[o.Kind] = append(s.lists[o.Kind], o)
		}
	}
	for k, list := range s.lists {
		if prev == nil || changed[k] {
			slices.SortFunc(list, conflictOrder)
		}
	}
	return s
}

// Join is the set of the objects of two, at the sum of their generations. Of an object
// that both have the first's stands; shadowed are the second's of this sort, in the order
// of All. Lists of kinds that only one of the sets has are shared with it.
func Join(first, second *Set) (joined *Set, shadowed []*Config) {
	switch {
	case second.Len() == 0 && second.Generation() == 0:
		return first, nil
	case first.Len() == 0 && first.Generation() == 0:
		return second, nil
	}
	joined = &Set{generation: first.Generation() + second.Generation(), objects: maps.Clone(second.objects), lists: map[Kind][]*Config{}}
	maps.Copy(joined.objects, first.objects)
	maps.Copy(joined.lists, second.lists)
	for _, kind := range slices.Sorted(maps.Keys(first.lists)) {
		mine, others := first.lists[kind], second.lists[kind]
		list := slices.Clone(mine)
		for _, o := range others {
			if first.objects[o.Key] != nil {
				shadowed = append(shadowed, o)
			} else {
				list = append(list, o)
			}
		}
		if len(others) == 0 {
			list = mine
		} else {
			slices.SortFunc(list, conflictOrder)
		}
		joined.lists[kind] = list
	}
	return joined, shadowed
}

// conflictOrder is Istio's: the older object first, then by name, then by namespace.
func conflictOrder(a, b *Config) int {
	return cmp.Or(a.CreationTime.Compare(b.CreationTime), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Namespace, b.Namespace))
}

// Generation counts the transactions that led to this set; it grows by one with
// each and is 0 for the empty set of a new Store.
func (s *Set) Generation() uint64 {
	if s == nil {
		return 0
	}
	return s.generation
}

// List returns the objects of a kind in conflict order: by CreationTime, then
// name, then namespace; where two objects claim the same thing the first one has
// it. The caller must not change the slice.
func (s *Set) List(k Kind) []*Config {
	if s == nil {
		return nil
	}
	return s.lists[k]
}

// Get returns one object, nil if there is none. For cluster-scoped kinds
// namespace is "".
func (s *Set) Get(k Kind, namespace, name string) *Config {
	if s == nil {
		return nil
	}
	return s.objects[Key{Kind: k, Namespace: namespace, Name: name}]
}

// All returns the objects of every kind, by kind in alphabetical order, within
// it in conflict order. The slice is the caller's.
func (s *Set) All() []*Config {
	if s == nil {
		return nil
	}
	all := make([]*Config, 0, len(s.objects))
	for _, k := range slices.Sorted(maps.Keys(s.lists)) {
		all = append(all, s.lists[k]...)
	}
	return all
}

// Len is the number of objects.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.objects)
}
