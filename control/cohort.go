package control

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/mesh"
)

const (
	// maxShared bounds the bytes of resources that are kept for proxies to come. What does not
	// fit is made again.
	maxShared = 64 << 20
	// maxSteps is over how many snapshots a cohort that nobody used keeps what still holds.
	maxSteps = 64
)

// A cohort is the proxies that get the same from one snapshot: what is made for the first
// serves all others. It passes on to that of the next snapshot what a change does not reach.
type cohort struct {
	generation uint64
	view       atomic.Pointer[view] // of the first; nil when there is a newer snapshot
	used       uint64               // when, by the count of uses; guarded by the sharing's lock

	mu       sync.Mutex
	products map[string]*product // by type URL
}

// sharing is the cohorts of the newest snapshot.
type sharing struct {
	mu       sync.Mutex
	snapshot *mesh.Snapshot
	steps    []ads.Change // that led to the snapshot, each from the one before
	cohorts  map[compile.Likeness]*cohort
	uses     uint64
}

// move goes on to the next snapshot, before anybody has a view of it.
func (s *sharing) move(next *mesh.Snapshot, change ads.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snapshot == nil || next.Generation != s.snapshot.Generation+1 {
		s.begin(next)
		return
	}
	s.snapshot, s.steps = next, append(s.steps, change)
	if len(s.steps) > maxSteps {
		s.steps = slices.Delete(s.steps, 0, 1)
	}
	for key, c := range s.cohorts {
		c.view.Store(nil) // it holds a snapshot
		if next.Generation-c.generation > uint64(len(s.steps)) {
			delete(s.cohorts, key)
		}
	}
}

func (s *sharing) begin(newest *mesh.Snapshot) {
	s.snapshot, s.steps, s.cohorts = newest, nil, map[compile.Likeness]*cohort{}
}

// cohort is that of a view, nil when its snapshot is not the newest: nobody else will ask.
func (s *sharing) cohort(v *view) *cohort {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.snapshot == nil || s.snapshot.Generation < v.snapshot.Generation {
		s.begin(v.snapshot)
	}
	if s.snapshot != v.snapshot {
		return nil
	}
	c := s.cohorts[v.likeness]
	if c == nil {
		s.evict()
		c = newCohort(v)
		s.cohorts[v.likeness] = c
	}
	if behind := v.snapshot.Generation - c.generation; behind > 0 {
		c = c.next(v, s.steps[len(s.steps)-int(behind):])
		s.cohorts[v.likeness] = c
	}
	s.uses++
	c.used = s.uses
	return c
}

// forget has the resources of a likeness made anew.
func (s *sharing) forget(l compile.Likeness) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.cohorts, l)
}

// evict forgets the cohorts that were not used for longest until there is room.
func (s *sharing) evict() {
	total := int64(0)
	for _, c := range s.cohorts {
		total += c.size()
	}
	for total > maxShared {
		var oldest compile.Likeness
		for key, c := range s.cohorts {
			if first := s.cohorts[oldest]; first == nil || c.used < first.used {
				oldest = key
			}
		}
		total -= s.cohorts[oldest].size()
		delete(s.cohorts, oldest)
	}
}

func newCohort(v *view) *cohort {
	c := &cohort{generation: v.snapshot.Generation, products: map[string]*product{}}
	c.view.Store(v)
	return c
}

// next is the cohort of the newest snapshot, some steps on.
func (c *cohort) next(v *view, steps []ads.Change) *cohort {
	n := newCohort(v)
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range types() {
		p := c.products[t.URL]
		if p == nil {
			continue
		}
		anew, touched := false, map[string]bool{}
		for _, step := range steps {
			anew = anew || step.Reaches(t)
			for _, subject := range step.Subjects {
				touched[subject] = t.Subject != nil
			}
		}
		if anew || t.Subject != nil && len(touched) > 0 {
			p = p.next(anew, touched)
		}
		n.products[t.URL] = p
	}
	return n
}

// cohortSize is what a cohort takes besides its resources, about.
const cohortSize = 64 << 10

func (c *cohort) size() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	total := int64(cohortSize)
	for _, p := range c.products {
		total += p.bytes.Load()
	}
	return total
}

func (c *cohort) product(url string) *product {
	c.mu.Lock()
	defer c.mu.Unlock()
	p := c.products[url]
	if p == nil {
		p = &product{named: map[string]*ads.Resource{}}
		c.products[url] = p
	}
	return p
}

// resources are those of a type for a view of the cohort: of the names that exist, or all. Who
// asks for what is being made waits for it.
func (c *cohort) resources(v *view, g generator, names []string) ([]ads.Resource, error) {
	if first := c.view.Load(); first != nil {
		v = first // which has its scope already
	}
	p := c.product(g.URL)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.inherit(g.Type)
	generate := func(names []string) ([]ads.Resource, error) { return g.resources(v, names) }
	switch {
	case g.Wildcard:
		return p.whole(names, generate)
	case g.Nested:
		return p.below(names, generate)
	}
	return p.some(names, generate)
}

// A product is a cohort's resources of one type. Those that turn out as they were before are
// the same in memory, and the same slice where all are.
type product struct {
	bytes atomic.Int64

	mu    sync.Mutex // held while resources are made
	made  bool       // all of them are
	all   []ads.Resource
	named map[string]*ads.Resource  // those that were asked for
	hosts map[string][]ads.Resource // of a Nested type: those of a table

	// What was made of an older snapshot, until the first use.
	older   *product
	anew    bool            // all of it may differ; else what is about
	touched map[string]bool // these subjects

	before      map[string]*ads.Resource // the older ones, to compare with, where all may differ
	beforeWhole []ads.Resource
	beforeHosts map[string][]ads.Resource
}

// next is the product of a newer snapshot.
func (p *product) next(anew bool, touched map[string]bool) *product {
	n := &product{named: map[string]*ads.Resource{}, older: p, anew: anew, touched: touched}
	if !p.mu.TryLock() {
		return n // it is in use
	}
	defer p.mu.Unlock()
	if p.older != nil { // nobody has used it
		n.older, n.anew = p.older, anew || p.anew
		maps.Copy(n.touched, p.touched)
	}
	n.bytes.Store(p.bytes.Load())
	return n
}

// inherit takes over what holds still. p.mu is held.
func (p *product) inherit(t ads.Type) {
	old := p.older
	if old == nil {
		return
	}
	old.mu.Lock()
	defer old.mu.Unlock()
	p.older = nil
	p.bytes.Store(0)
	if p.anew {
		p.before, p.beforeWhole, p.beforeHosts = old.named, old.all, old.hosts
		return
	}
	p.named = maps.Clone(old.named)
	maps.DeleteFunc(p.named, func(n string, _ *ads.Resource) bool { return p.touched[t.Subject(n)] })
	for _, r := range p.named {
		p.count(*r)
	}
}

// whole makes all resources at once: what is asked for by name is among them.
func (p *product) whole(names []string, generate func([]string) ([]ads.Resource, error)) ([]ads.Resource, error) {
	if !p.made {
		all, err := generate(nil)
		if err != nil {
			return nil, err
		}
		p.all, p.made = slices.Clip(kept(p.beforeWhole, all)), true
		p.count(all...)
		p.beforeWhole = nil
	}
	if names == nil {
		return p.all, nil
	}
	wanted := among(names)
	return slices.DeleteFunc(slices.Clone(p.all), func(r ads.Resource) bool { return !wanted(r.Name) }), nil
}

// kept is a list with the older resources where they are the same; the older list where all
// are.
func kept(older, list []ads.Resource) []ads.Resource {
	byName := make(map[string]*ads.Resource, len(older))
	for i := range older {
		byName[older[i].Name] = &older[i]
	}
	differs := len(older) != len(list)
	for i := range list {
		if o := byName[list[i].Name]; o != nil && o.Version == list[i].Version {
			list[i] = *o
			differs = differs || o != &older[i]
		} else {
			differs = true
		}
	}
	if differs {
		return list
	}
	return older
}

// some makes what was not made before. A name that nobody knows is looked for each time, so
// that names alone take no memory.
func (p *product) some(names []string, generate func([]string) ([]ads.Resource, error)) ([]ads.Resource, error) {
	var missing []string
	for _, n := range names {
		if p.named[n] == nil {
			missing = append(missing, n)
		}
	}
	if len(missing) > 0 {
		made, err := generate(missing)
		if err != nil {
			return nil, err
		}
		p.count(made...)
		for _, r := range made {
			if o := p.before[r.Name]; o != nil && o.Version == r.Version {
				p.named[r.Name] = o
			} else {
				p.named[r.Name] = &r
			}
		}
	}
	list := make([]ads.Resource, 0, len(names))
	for _, n := range names {
		if r := p.named[n]; r != nil {
			list = append(list, *r)
		}
	}
	return list, nil
}

// below makes all of the tables that are asked for, or of which a part is.
func (p *product) below(names []string, generate func([]string) ([]ads.Resource, error)) ([]ads.Resource, error) {
	tables := tablesAbove(names)
	var missing []string
	for _, t := range tables {
		if p.hosts[t] == nil {
			missing = append(missing, t)
		}
	}
	if len(missing) > 0 {
		made, err := generate(missing)
		if err != nil {
			return nil, err
		}
		if p.hosts == nil {
			p.hosts = map[string][]ads.Resource{}
		}
		p.count(made...)
		for _, r := range made {
			t := tableAbove(r.Name)
			p.hosts[t] = append(p.hosts[t], r)
		}
		for _, t := range missing {
			if list := p.hosts[t]; list != nil {
				p.hosts[t] = kept(p.beforeHosts[t], list)
			}
		}
	}
	var list []ads.Resource
	for _, t := range tables {
		list = append(list, p.hosts[t]...)
	}
	return below(list, names), nil
}

func (p *product) count(made ...ads.Resource) {
	for _, r := range made {
		p.bytes.Add(int64(len(r.Name) + len(r.Body.GetValue())))
	}
}
