package ads

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/lateen-mesh/lateen/wellknown"
	"google.golang.org/protobuf/types/known/anypb"
)

const (
	maxNames  = 200_000 // explicit names of one watch
	maxFlight = 64      // unanswered responses remembered; an ACK answers the older ones too
)

// unknown is the version of a resource of which it is not known whether the
// proxy took it; no resource has it, so the resource is sent again.
const unknown = "?"

// A watch is what one stream knows about one type: what the proxy wants, what it
// was told, what it answered. It does no I/O.
type watch struct {
	Type
	partial bool // responses may hold a part of the set (delta, and all but CDS and LDS)

	wildcard bool
	names    map[string]bool // subscribed by name

	told   map[string]*told
	stale  []string        // told resources that are gone and wait for the sweep
	asked  map[string]bool // names to answer even when nothing changed
	answer bool            // a response is due even when empty
	alone  map[string]bool // resources to send one by one after an error that named none

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
	version string // last sent; "" means "does not exist"
	good    string // last acknowledged
	bad     string // refused

	// Kept only where a response must hold the whole set.
	body, goodBody *anypb.Any
}

// A response is one that was sent: name → version.
type response struct {
	nonce      string
	generation uint64
	versions   map[string]string
}

// A delivery is what to send for one watch.
type delivery struct {
	resources []Resource
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
		asked:   map[string]bool{},
		alone:   map[string]bool{},
		refused: map[string]Refusal{},
	}
}

// subscribe adds names; each will be answered. "*" is everything.
func (w *watch) subscribe(names []string) error {
	for _, n := range names {
		if n == "*" {
			w.answer = w.answer || !w.wildcard
			w.wildcard = true
			continue
		}
		if len(w.names) >= maxNames && !w.names[n] {
			return errTooManyNames
		}
		w.names[n] = true
		w.asked[n] = true
	}
	return nil
}

// unsubscribe takes names away. The proxy forgets them by itself; while it also
// has the wildcard it must be told whether they are part of that.
func (w *watch) unsubscribe(names []string) {
	for _, n := range names {
		if n == "*" {
			w.wildcard = false
			maps.DeleteFunc(w.told, func(n string, _ *told) bool { return !w.names[n] })
			w.stale = slices.DeleteFunc(w.stale, func(n string) bool { return w.told[n] == nil })
			continue
		}
		delete(w.names, n)
		delete(w.alone, n)
		if w.wildcard {
			w.asked[n] = true
			continue
		}
		delete(w.asked, n)
		delete(w.told, n)
		delete(w.refused, n)
	}
}

// wanted is what to ask the View for: nil for everything.
func (w *watch) wanted() []string {
	if w.wildcard {
		return nil
	}
	return append([]string{}, slices.Sorted(maps.Keys(w.names))...)
}

// missing lists the names that are subscribed besides the wildcard and not among
// the resources.
func (w *watch) missing(resources []Resource) []string {
	have := make(map[string]bool, len(resources))
	for _, r := range resources {
		have[r.Name] = true
	}
	var names []string
	for _, n := range slices.Sorted(maps.Keys(w.names)) {
		if !have[n] {
			names = append(names, n)
		}
	}
	return names
}

// adopt books resources as told and acknowledged without sending them.
func (w *watch) adopt(d delivery) {
	for _, r := range d.resources {
		w.told[r.Name] = &told{version: r.Version, good: r.Version, body: r.Body, goodBody: r.Body}
	}
}

// compare finds what to send of the resources that exist now. Removals of a
// deferred watch become stale and wait for sweep.
func (w *watch) compare(current []Resource, deferred bool) delivery {
	d := delivery{due: w.answer}
	exists := make(map[string]bool, len(current))
	for _, r := range current {
		exists[r.Name] = true
		t := w.told[r.Name]
		switch {
		case t != nil && t.bad == r.Version: // refused, and the same still
		case t == nil || t.version != r.Version || w.asked[r.Name]:
			d.resources = append(d.resources, r)
			if t == nil || t.version != r.Version {
				d.changed = append(d.changed, r.Name)
			}
			d.added = d.added || t == nil || t.version == ""
		}
	}
	w.stale = w.stale[:0]
	for n, t := range w.told {
		if exists[n] {
			continue
		}
		delete(w.refused, n)
		t.bad = ""
		if t.version != "" {
			w.stale = append(w.stale, n)
		}
	}
	slices.Sort(w.stale)
	for n := range w.asked {
		if t := w.told[n]; !exists[n] && (t == nil || t.version == "") {
			d.removed = append(d.removed, n)
		}
	}
	slices.Sort(d.removed)
	if !deferred {
		d.removed = append(d.removed, w.stale...)
		w.stale = w.stale[:0]
	}
	d.due = d.due || len(d.resources) > 0 || len(d.removed) > 0 || len(w.asked) > 0 && w.owesAnswer()
	if d.due && !w.partial {
		d.resources = w.whole(current)
	}
	return d
}

// owesAnswer reports whether an asked name is answered by a response even though
// none of its resources is in it: not when all asked for are refused versions.
func (w *watch) owesAnswer() bool {
	for n := range w.asked {
		if t := w.told[n]; t == nil || t.bad == "" {
			return true
		}
	}
	return false
}

// whole is the full set for a response that must hold it: refused versions give
// way to the last good ones, stale resources are still part of it.
func (w *watch) whole(current []Resource) []Resource {
	set := make([]Resource, 0, len(current)+len(w.stale))
	for _, r := range current {
		if t := w.told[r.Name]; t != nil && t.bad == r.Version {
			if t.goodBody == nil {
				continue
			}
			r = Resource{Name: r.Name, Version: t.good, Body: t.goodBody}
		}
		set = append(set, r)
	}
	for _, n := range w.stale {
		if t := w.told[n]; t.body != nil {
			set = append(set, Resource{Name: n, Version: t.version, Body: t.body})
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
		if t := w.told[n]; !gone[n] && t.version != "" && t.body != nil {
			d.resources = append(d.resources, Resource{Name: n, Version: t.version, Body: t.body})
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
			parts = append(parts, delivery{resources: []Resource{r}, due: true})
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
	versions := make(map[string]string, len(d.resources))
	for _, r := range d.resources {
		t := w.told[r.Name]
		if t == nil {
			t = &told{}
			w.told[r.Name] = t
		}
		t.version = r.Version
		versions[r.Name] = r.Version
		if !w.partial {
			t.body = r.Body
		}
	}
	for _, n := range d.removed {
		if w.names[n] {
			w.told[n] = &told{}
		} else {
			delete(w.told, n)
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
	clear(w.asked)
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
	for n, f := range w.refused {
		if t := w.told[n]; t != nil && t.bad != "" {
			t.version, t.good, t.bad = t.bad, t.bad, ""
		}
		w.applied = max(w.applied, f.Generation)
	}
	clear(w.refused)
	w.acked = w.nonce
}

func (w *watch) accept(r response) {
	for n, v := range r.versions {
		t := w.told[n]
		if t == nil {
			continue
		}
		t.good = v
		if t.version == v {
			t.goodBody = t.body
		}
		if t.bad != "" && t.bad != v {
			t.bad = ""
		}
		delete(w.refused, n)
	}
	w.applied = max(w.applied, r.generation)
}

// refuse marks what the NACK is about. The other resources of the response are
// in doubt: an Envoy may stop at the first it refuses.
func (w *watch) refuse(r response, nack string) (refused []Refusal, again bool) {
	guilty := named(nack, r.versions)
	if len(guilty) == 0 && (len(r.versions) == 1 || !w.partial) {
		guilty = slices.Sorted(maps.Keys(r.versions))
	}
	blame := len(guilty) > 0
	for n, v := range r.versions {
		t := w.told[n]
		switch {
		case t == nil:
		case slices.Contains(guilty, n) && (t.good != v):
			f := Refusal{Resource: n, Error: nack, Generation: r.generation}
			t.bad = v
			w.refused[n] = f
			refused = append(refused, f)
			if t.version == v {
				t.version, t.body = t.good, t.goodBody
			}
		case t.version == v && t.good != v:
			t.version, again = unknown, true
			if !blame {
				w.alone[n] = true
			}
		}
	}
	slices.SortFunc(refused, func(a, b Refusal) int { return cmp.Compare(a.Resource, b.Resource) })
	return refused, again
}

// named lists the resources whose names stand in an error text as words.
func named(text string, versions map[string]string) []string {
	var found []string
	for n := range versions {
		for rest, off := text, 0; ; {
			i := strings.Index(rest[off:], n)
			if i < 0 || n == "" {
				break
			}
			i += off
			if boundary(rest[:i], true) && boundary(rest[i+len(n):], false) {
				found = append(found, n)
				break
			}
			off = i + 1
		}
	}
	slices.Sort(found)
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
func isRoutes(url string) bool { return url == wellknown.ListenerType || url == wellknown.RouteType }
