package store

import (
	"slices"
	"strings"
	"time"

	"k8s.io/utils/third_party/forked/golang/btree"
)

// An item is an object as it is kept: encoded, never changed after it was stored.
type item struct {
	key   string
	value []byte
	rev   uint64 // of the write that made it

	ttl     uint64    // seconds; 0 for ever
	expires time.Time // with ttl: when it goes
}

// An event is one write. The item is nil for a deletion, prev for a creation.
type event struct {
	rev        uint64
	item, prev *item
}

func (e event) key() string {
	if e.item != nil {
		return e.item.key
	}
	return e.prev.key
}

// A span is what a list or a watch looks at: one key, or all that begin with it.
type span struct {
	key     string
	subtree bool
}

func (p span) has(key string) bool {
	if p.subtree {
		return strings.HasPrefix(key, p.key)
	}
	return key == p.key
}

// state is all objects at one revision and the way that led there. It knows neither files nor
// locks: Store guards it.
type state struct {
	rev    uint64 // of the last write
	items  *btree.BTree[*item]
	bytes  int64 // keys and values of items
	window window
}

// firstRevision is that of an empty store, as of etcd's: 0 means "any" to clients.
const firstRevision = 1

func newState(events int) *state {
	less := func(a, b *item) bool { return a.key < b.key }
	s := &state{rev: firstRevision, items: btree.New(32, less)}
	s.window.ring = make([]event, events)
	s.window.forget(s.rev)
	return s
}

// get returns the item of a key, nil when there is none.
func (s *state) get(key string) *item {
	found, _ := s.items.Get(&item{key: key})
	return found
}

// put sets an item without an event: what a snapshot does.
func (s *state) put(it *item) {
	if old, had := s.items.ReplaceOrInsert(it); had {
		s.bytes -= old.size()
	}
	s.bytes += it.size()
}

// apply makes a write part of the state.
func (s *state) apply(e event) {
	if e.rev != s.rev+1 {
		s.window.forget(e.rev - 1) // revisions are missing: nobody can be told what they held
	}
	s.rev = e.rev
	if e.item != nil {
		s.put(e.item)
	} else if old, had := s.items.Delete(e.prev); had {
		s.bytes -= old.size()
	}
	s.window.add(e)
}

// list returns the items of a span at a revision that the window still covers, in the order of
// their keys, from a key on.
func (s *state) list(p span, from string, rev uint64) []*item {
	var items []*item
	s.items.AscendGreaterOrEqual(&item{key: max(p.key, from)}, func(it *item) bool {
		if !p.has(it.key) {
			return false
		}
		items = append(items, it)
		return p.subtree
	})
	if rev == s.rev {
		return items
	}
	return s.undo(items, p, from, rev)
}

// undo takes back the writes after a revision.
func (s *state) undo(items []*item, p span, from string, rev uint64) []*item {
	before := map[string]*item{}
	for r := s.rev; r > rev; r-- {
		if e := s.window.at(r); p.has(e.key()) && e.key() >= from {
			before[e.key()] = e.prev
		}
	}
	items = slices.DeleteFunc(items, func(it *item) bool {
		_, changed := before[it.key]
		return changed
	})
	for _, it := range before {
		if it != nil {
			items = append(items, it)
		}
	}
	slices.SortFunc(items, func(a, b *item) int { return strings.Compare(a.key, b.key) })
	return items
}

// itemOverhead is what an item costs beside its key and value, here and in the file, roughly.
const itemOverhead = 64

func (it *item) size() int64 { return int64(len(it.key)+len(it.value)) + itemOverhead }

// windowBytes bounds the values that only the window still holds: a burst of large updates
// shortens it.
const windowBytes = 32 << 20

// A window holds the last writes, for watches that begin at an earlier revision or are slow, and
// for the pages of a list. The event of revision r is at ring[r mod len].
type window struct {
	ring  []event
	start uint64 // the events after this revision are here: etcd's compact revision
	end   uint64
	bytes int64
}

func (w *window) at(rev uint64) event { return w.ring[rev%uint64(len(w.ring))] }

// add appends the event of revision end+1.
func (w *window) add(e event) {
	if w.end-w.start == uint64(len(w.ring)) {
		w.compact(w.start + 1)
	}
	w.end = e.rev
	w.ring[e.rev%uint64(len(w.ring))] = e
	w.bytes += e.held()
	for w.bytes > windowBytes && w.start < w.end {
		w.compact(w.start + 1)
	}
}

// compact drops the events up to a revision, which is not beyond the end.
func (w *window) compact(rev uint64) {
	for w.start < min(rev, w.end) {
		w.start++
		slot := &w.ring[w.start%uint64(len(w.ring))]
		w.bytes -= slot.held()
		*slot = event{}
	}
}

// forget drops everything: the window begins anew after a revision.
func (w *window) forget(rev uint64) {
	clear(w.ring)
	w.start, w.end, w.bytes = rev, rev, 0
}

// held is the memory that an event keeps from being freed.
func (e event) held() int64 {
	if e.prev == nil {
		return 0
	}
	return int64(len(e.prev.value))
}
