package ads

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/lateen-mesh/lateen/wellknown"
)

const (
	maxNames  = 200_000 // explicit names of one watch
	maxFlight = 64      // unanswered responses remembered; an ACK answers the older ones too
)

// A stamp stands for a version, which is held for each resource of each proxy.
type stamp uint64

const (
	absent stamp = iota // the resource does not exist, or there is no such version
	// unknown is that of a resource of which it is not known whether the proxy took it; no
	// resource has it, so the resource is sent again.
	unknown
	firstStamp
)

func stampOf(version string) stamp { return max(firstStamp, stamp(xxhash.Sum64String(version))) }

// A watch is what one stream knows about one type: what the proxy wants, what it
// was told, what it answered. It does no I/O.
type watch struct {
	Type
	partial bool // responses may hold a part of the set (delta, and all but CDS and LDS)

	wildcard bool
	names    map[string]bool // subscribed by name
	sorted   []string        // the same in order, nil after a change

	told   map[string]*told
	bodies map[string]*bodies // where responses hold the whole set
	last   []Resource         // everything, as it was compared last; nil when it is to be compared again
	unsure bool               // the last comparison failed: the next one is of everything
	stale  []string           // told resources that are gone and wait for the sweep
	asked  map[string]bool    // names to answer even when nothing changed; nil for none
	answer bool               // a response is due even when empty
	alone  map[string]bool    // resources to send one by one after an error that named none

	flight []response // sent and not answered, oldest first
	served bool       // a response was sent on this stream
	// resumed is the version of the whole set that the proxy brought from an earlier
	// stream, until the first comparison.
	resumed string

	nonce, acked string // of the last response sent and the last acknowledged
	applied      uint64 // generation that the proxy has
	refused      map[string]Refusal
}

// told is what the proxy was told about one resource.
type told struct {
	version stamp // last sent
	good    stamp // last acknowledged
	bad     stamp // refused
}

// bodies are of the version that was sent last and of the one acknowledged last.
type bodies struct{ sent, taken *Resource }

// A response is one that was sent.
type response struct {
	nonce      string
	generation uint64
	versions   []version
}

// A version is that of a resource.
type version struct {
	name string
	stamp
}

// A delivery is what to send for one watch.
type delivery struct {
	resources []*Resource
	removed   []string
	changed   []string // resources that are new or differ
	added     bool     // one of them is new
	due       bool     // false: nothing to send
}

func newWatch(t Type, delta bool) *watch {
	return &watch{
		Type:    t,
		partial: delta || !t.Wildcard,
		names:   map[string]bool{},
		told:    map[string]*told{},
		bodies:  map[string]*bodies{},
		alone:   map[string]bool{},
		refused: map[string]Refusal{},
	}
}

// subscribe adds names; each will be answered. "*" is everything.
func (w *watch) subscribe(names []string) error {
	w.last = nil
	for _, n := range names {
		if n == "*" {
			w.answer = w.answer || !w.wildcard
			w.wildcard = true
			continue
		}
		if len(w.names) >= maxNames && !w.names[n] {
			return errTooManyNames
		}
		if !w.names[n] {
			w.names[n], w.sorted = true, nil
		}
		w.ask(n)
	}
	return nil
}

// unsubscribe takes names away. The proxy forgets them by itself; while it also
// has the wildcard it must be told whether they are part of that.
func (w *watch) unsubscribe(names []string) {
	w.last = nil
	for _, n := range names {
		if n == "*" {
			w.wildcard = false
			for n := range w.told {
				if !w.names[n] {
					w.forget(n)
				}
			}
			w.stale = slices.DeleteFunc(w.stale, func(n string) bool { return w.told[n] == nil })
			continue
		}
		delete(w.names, n)
		w.sorted = nil
		delete(w.alone, n)
		if w.wildcard {
			w.ask(n)
			continue
		}
		delete(w.asked, n)
		if above := w.above(n); above != n && w.names[above] { // it is still meant
			continue
		}
		w.forget(n)
		delete(w.refused, n)
		w.forgetBelow(n)
	}
}

// above is the name that stands for a resource of a Nested type, else its own.
func (w *watch) above(name string) string {
	if w.Nested {
		name, _, _ = strings.Cut(name, "/")
	}
	return name
}

// forgetBelow drops what the proxy was told of the resources that a name stands for.
func (w *watch) forgetBelow(name string) {
	if !w.Nested {
		return
	}
	for n := range w.told {
		if w.above(n) == name && !w.names[n] {
			w.forget(n)
			delete(w.refused, n)
			delete(w.alone, n)
		}
	}
}

// ask has a name answered even when nothing changed.
func (w *watch) ask(name string) {
	if w.asked == nil {
		w.asked = map[string]bool{}
	}
	w.asked[name] = true
}

// forget drops what the proxy was told of a resource.
func (w *watch) forget(name string) {
	delete(w.told, name)
	delete(w.bodies, name)
}

// byName are the names that are subscribed, in order. The slice is not changed afterwards.
func (w *watch) byName() []string {
	if w.sorted == nil {
		w.sorted = slices.AppendSeq(make([]string, 0, len(w.names)), maps.Keys(w.names))
		slices.Sort(w.sorted)
	}
	return w.sorted
}

// concerned are the names to compare after changes of subjects alone; all is that everything
// is.
func (w *watch) concerned(subjects map[string]bool) (names []string, all bool) {
	if w.Subject == nil || w.wildcard || !w.partial {
		return nil, true
	}
	if len(subjects) == 0 {
		return slices.Sorted(maps.Keys(w.asked)), false
	}
	for _, n := range w.byName() {
		if w.asked[n] || subjects[w.Subject(n)] {
			names = append(names, n)
		}
	}
	return names, false
}

// missing lists the names that are not among the resources.
func missing(names []string, resources []Resource) []string {
	have := make(map[string]bool, len(resources))
	for _, r := range resources {
		have[r.Name] = true
	}
	var list []string
	for _, n := range names {
		if !have[n] {
			list = append(list, n)
		}
	}
	return list
}

// adopt books resources as told and acknowledged without sending them.
func (w *watch) adopt(d delivery) {
	for _, r := range d.resources {
		w.told[r.Name], w.bodies[r.Name] = &told{version: r.stamp, good: r.stamp}, &bodies{r, r}
	}
}

// compare finds what to send of the resources that exist now. Removals of a
// deferred watch become stale and wait for sweep.
func (w *watch) compare(current []Resource, deferred bool) delivery {
	if len(w.asked) == 0 && !w.answer && w.isLast(current) {
		return delivery{}
	}
	d, exists := w.differing(current)
	w.stale = w.stale[:0]
	if w.wildcard { // who asks by name has a list of its own
		w.last = current
	}
	for n, t := range w.told {
		if !exists[n] {
			w.gone(n, t)
		}
	}
	w.remove(&d, exists, deferred)
	if d.due && !w.partial {
		d.resources = w.whole(current)
	}
	return d
}

// comparePart is compare where only some names can differ, which a watch whose responses may
// hold a part is told of: current are those of them that exist now.
func (w *watch) comparePart(current []Resource, names []string) delivery {
	d, exists := w.differing(current)
	w.last, w.stale = nil, w.stale[:0]
	for _, n := range names {
		if t := w.told[n]; t != nil && !exists[n] {
			w.gone(n, t)
		}
	}
	w.remove(&d, exists, false)
	return d
}

// isLast reports whether these are the very resources that were compared last.
func (w *watch) isLast(current []Resource) bool {
	return len(current) > 0 && len(current) == len(w.last) && &current[0] == &w.last[0]
}

// differing are the resources to send, and the names of all.
func (w *watch) differing(current []Resource) (d delivery, exists map[string]bool) {
	d, exists = delivery{due: w.answer}, make(map[string]bool, len(current))
	for i := range current {
		r := &current[i]
		above := w.above(r.Name)
		exists[r.Name], exists[above] = true, true
		t := w.told[r.Name]
		switch {
		case t != nil && t.bad == r.stamp: // refused, and the same still
		case t == nil || t.version != r.stamp || w.asked[r.Name] || w.asked[above]:
			d.resources = append(d.resources, r)
			if t == nil || t.version != r.stamp {
				d.changed = append(d.changed, r.Name)
			}
			d.added = d.added || t == nil || t.version == absent
		}
	}
	return d, exists
}

// gone makes a resource stale.
func (w *watch) gone(name string, t *told) {
	delete(w.refused, name)
	t.bad = absent
	if t.version != absent {
		w.stale = append(w.stale, name)
	}
}

// remove says what does not exist, or not any more.
func (w *watch) remove(d *delivery, exists map[string]bool, deferred bool) {
	slices.Sort(w.stale)
	for n := range w.asked {
		if t := w.told[n]; !exists[n] && (t == nil || t.version == absent) {
			d.removed = append(d.removed, n)
		}
	}
	slices.Sort(d.removed)
	if !deferred {
		d.removed = append(d.removed, w.stale...)
		w.stale = w.stale[:0]
	}
	d.due = d.due || len(d.resources) > 0 || len(d.removed) > 0 || len(w.asked) > 0 && w.owesAnswer()
}

// owesAnswer reports whether an asked name is answered by a response even though
// none of its resources is in it: not when all asked for are refused versions.
func (w *watch) owesAnswer() bool {
	for n := range w.asked {
		if t := w.told[n]; t == nil || t.bad == absent {
			return true
		}
	}
	return false
}

// whole is the full set for a response that must hold it: refused versions give
// way to the last good ones, stale resources are still part of it.
func (w *watch) whole(current []Resource) []*Resource {
	set := make([]*Resource, 0, len(current)+len(w.stale))
	for i := range current {
		r := &current[i]
		if t := w.told[r.Name]; t != nil && t.bad == r.stamp {
			b := w.bodies[r.Name]
			if b == nil || b.taken == nil {
				continue
			}
			r = b.taken
		}
		set = append(set, r)
	}
	for _, n := range w.stale {
		if b := w.bodies[n]; b != nil && b.sent != nil {
			set = append(set, b.sent)
		}
	}
	return set
}

// sweep takes the stale resources away: the delivery that says so.
func (w *watch) sweep() delivery {
	d := delivery{removed: slices.Clone(w.stale), due: len(w.stale) > 0}
	gone := map[string]bool{}
	for _, n := range w.stale {
		gone[n] = true
	}
	w.stale = w.stale[:0]
	if w.partial || !d.due {
		return d
	}
	for _, n := range slices.Sorted(maps.Keys(w.told)) {
		if b := w.bodies[n]; !gone[n] && w.told[n].version != absent && b != nil && b.sent != nil {
			d.resources = append(d.resources, b.sent)
		}
	}
	return d
}

// split cuts a delivery into responses: one, but for resources that go alone.
func (w *watch) split(d delivery) []delivery {
	if len(w.alone) == 0 || !w.partial {
		return []delivery{d}
	}
	var parts []delivery
	rest := delivery{removed: d.removed, due: d.due}
	for _, r := range d.resources {
		if w.alone[r.Name] {
			parts = append(parts, delivery{resources: []*Resource{r}, due: true})
			delete(w.alone, r.Name)
		} else {
			rest.resources = append(rest.resources, r)
		}
	}
	if len(rest.resources) > 0 || len(rest.removed) > 0 || len(parts) == 0 {
		parts = append(parts, rest)
	}
	return parts
}

// sent records a response.
func (w *watch) sent(nonce string, generation uint64, d delivery) {
	versions := make([]version, 0, len(d.resources))
	for _, r := range d.resources {
		t := w.told[r.Name]
		if t == nil {
			t = &told{}
			w.told[r.Name] = t
		}
		t.version = r.stamp
		versions = append(versions, version{r.Name, r.stamp})
		if w.partial {
			continue
		}
		if w.bodies[r.Name] == nil {
			w.bodies[r.Name] = &bodies{}
		}
		w.bodies[r.Name].sent = r
	}
	for _, n := range d.removed {
		if w.names[n] {
			w.told[n] = &told{}
			delete(w.bodies, n)
		} else {
			w.forget(n)
		}
	}
	w.flight = append(w.flight, response{nonce: nonce, generation: generation, versions: versions})
	if len(w.flight) > maxFlight {
		w.flight = slices.Delete(w.flight, 0, 1)
	}
	w.nonce, w.served = nonce, true
}

// settled forgets what was asked, after all responses of a comparison are out.
func (w *watch) settled(generation uint64) {
	w.asked = nil
	w.answer = false
	w.reached(generation)
}

// reached books a generation that asks for nothing beyond what was sent: it is
// applied as soon as that is acknowledged.
func (w *watch) reached(generation uint64) {
	if n := len(w.flight); n > 0 {
		w.flight[n-1].generation = generation
	} else {
		w.applied = generation
	}
}

// reply takes the proxy's answer to a response: an ACK, or a NACK with its text.
// known is false for a nonce of which nothing is remembered. again reports that
// resources are to be sent once more.
func (w *watch) reply(nonce, nack string) (refused []Refusal, known, again bool) {
	i := slices.IndexFunc(w.flight, func(r response) bool { return r.nonce == nonce })
	if i < 0 {
		return nil, false, false
	}
	r := w.flight[i]
	accepted := w.flight[:i] // an answer to a later response stands for these
	if nack == "" {
		accepted = w.flight[:i+1]
		w.acked = nonce
	}
	for _, a := range accepted {
		w.accept(a)
	}
	w.flight = slices.Delete(w.flight, 0, i+1)
	if nack == "" {
		return nil, true, false
	}
	refused, again = w.refuse(r, nack)
	return refused, true, again
}

// cured takes a second answer to the last response, an ACK after a NACK: the proxy has
// come to take what it refused, as a listener whose port is free now.
func (w *watch) cured() {
	w.last = nil
	for n, f := range w.refused {
		if t := w.told[n]; t != nil && t.bad != absent {
			t.version, t.good, t.bad = t.bad, t.bad, absent
		}
		w.applied = max(w.applied, f.Generation)
	}
	clear(w.refused)
	w.acked = w.nonce
}

func (w *watch) accept(r response) {
	for _, v := range r.versions {
		t := w.told[v.name]
		if t == nil {
			continue
		}
		t.good = v.stamp
		if b := w.bodies[v.name]; b != nil && t.version == v.stamp {
			b.taken = b.sent
		}
		if t.bad != v.stamp {
			t.bad = absent
		}
		delete(w.refused, v.name)
	}
	w.applied = max(w.applied, r.generation)
}

// refuse marks what the NACK is about. The other resources of the response are
// in doubt: an Envoy may stop at the first it refuses.
func (w *watch) refuse(r response, nack string) (refused []Refusal, again bool) {
	w.last = nil
	guilty := named(nack, r.versions)
	blame := len(guilty) > 0 || len(r.versions) == 1 || !w.partial
	all := len(guilty) == 0 && blame
	for _, v := range r.versions {
		t := w.told[v.name]
		switch {
		case t == nil:
		case (all || guilty[v.name]) && t.good != v.stamp:
			f := Refusal{Resource: v.name, Error: nack, Generation: r.generation}
			t.bad = v.stamp
			w.refused[v.name] = f
			refused = append(refused, f)
			if t.version == v.stamp {
				t.version = t.good
				if b := w.bodies[v.name]; b != nil {
					b.sent = b.taken
				}
			}
		case t.version == v.stamp && t.good != v.stamp:
			t.version, again = unknown, true
			if !blame {
				w.alone[v.name] = true
			}
		}
	}
	slices.SortFunc(refused, func(a, b Refusal) int { return cmp.Compare(a.Resource, b.Resource) })
	return refused, again
}

// named lists the resources whose names stand in an error text as words.
func named(text string, versions []version) map[string]bool {
	found := map[string]bool{}
	for _, v := range versions {
		n := v.name
		for rest, off := text, 0; ; {
			i := strings.Index(rest[off:], n)
			if i < 0 || n == "" {
				break
			}
			i += off
			if boundary(rest[:i], true) && boundary(rest[i+len(n):], false) {
				found[n] = true
				break
			}
			off = i + 1
		}
	}
	return found
}

// boundary reports whether a name can end at the start of after, or begin at the
// end of before. A dot belongs to a name only when more of it follows.
func boundary(s string, before bool) bool {
	if s == "" {
		return true
	}
	c := s[0]
	if before {
		c = s[len(s)-1]
	}
	if c == '.' && !before {
		return len(s) == 1 || !part(s[1])
	}
	return c != '.' && !part(c)
}

func part(c byte) bool {
	return c == '_' || c == '-' || c == '|' || c == '.' ||
		'0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

// isRoutes reports whether the type's resources name clusters.
func isRoutes(url string) bool {
	return url == wellknown.ListenerType || url == wellknown.RouteType || url == wellknown.VirtualHostType
}
