package control

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// maxFlaws bounds what is kept of one resource type of one kind of proxy, so that a patch
// that fits nowhere does not fill memory with every place where it does not fit.
const maxFlaws = 200

// patches are those of EnvoyFilters that select the view's proxy. A view of its own keeps
// the last ones; one that others share is not changed.
func (v *view) patches() *envoy.Patches {
	list := v.barred.without(v.snapshot, v.likeness, compile.Patches(v.snapshot, v.proxy))
	p := envoy.NewPatches(list, v.proxy.Type == mesh.Router)
	if v.sharing == nil {
		v.patched = p
	}
	return p
}

// patchFlaws are the patches that have no effect, all or some of it: those that cannot be
// read, which no proxy gets, and those that did not fit when resources were made.
type patchFlaws struct {
	mu      sync.Mutex
	objects []*config.Config // EnvoyFilters when they were last read
	unread  []Problem
	unfit   map[madeKey][]unfit
}

// A madeKey is a resource type that was made for proxies of a likeness: the whole type,
// or a resource where they are made one by one.
type madeKey struct {
	likeness       compile.Likeness
	typeURL, named string
}

// An unfit is a flaw with the object that it is of: it is told while that is in force.
type unfit struct {
	envoy.PatchFlaw
	object *config.Config
}

// tell keeps what did not fit when the resources of a type were made; name is that of the
// one that was made, "" for all.
func (v *view) tell(p *envoy.Patches, typeURL, name string) {
	if v.flaws == nil {
		return
	}
	var list []unfit
	for _, f := range p.Flaws() {
		if f.Resource == "" || name != "" && f.Resource != name || len(list) == maxFlaws {
			continue
		}
		if o := objectOf(v.snapshot, f.Origin); o != nil {
			list = append(list, unfit{f, o})
		}
	}
	v.flaws.keep(madeKey{v.likeness, typeURL, name}, list)
}

func (f *patchFlaws) keep(key madeKey, list []unfit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(list) == 0 {
		delete(f.unfit, key)
		return
	}
	if f.unfit == nil {
		f.unfit = map[madeKey][]unfit{}
	}
	f.unfit[key] = list
}

// patchers are the EnvoyFilters that have a part in a resource of a proxy, which is made
// once more to see.
func patchers(snap *mesh.Snapshot, p *mesh.Proxy, typeURL, resource string) []string {
	var list []string
	for _, o := range touched(snap, p, nil, typeURL, resource) {
		list = append(list, config.Key{Kind: config.Kind(o.Kind), Namespace: o.Namespace, Name: o.Name}.String())
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// touched are the patches that have a part in a resource of a proxy; barred ones have none.
func touched(snap *mesh.Snapshot, p *mesh.Proxy, barred *barredParts, typeURL, resource string) []ir.Origin {
	v := newView(snap, p, nil)
	v.barred = barred
	if _, err := v.Resources(typeURL, []string{resource}); err != nil || v.patched == nil { // nil: of a type that is not patched
		return nil
	}
	if typeURL == wellknown.VirtualHostType { // patches are of the whole table
		resource = tableAbove(resource)
	}
	return v.patched.Touched()[resource]
}

// of are the problems that patches have in a snapshot with the proxies that are connected.
func (f *patchFlaws) of(snap *mesh.Snapshot, conns []ads.ConnStatus) []Problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	objects := snap.Config.List(config.EnvoyFilter)
	if !slices.Equal(f.objects, objects) {
		f.objects, f.unread = objects, nil
		for _, flaw := range envoy.NewPatches(compile.AllPatches(snap), false).Flaws() {
			f.unread = append(f.unread, flawProblem(snap, flaw, nil))
		}
	}
	if len(f.unfit) == 0 {
		return f.unread
	}
	alive := map[compile.Likeness]bool{}
	for _, c := range conns {
		_, likeness := compile.Like(snap, c.Proxy)
		alive[likeness] = true
	}
	maps.DeleteFunc(f.unfit, func(k madeKey, _ []unfit) bool { return !alive[k.likeness] })
	return append(slices.Clip(f.unread), f.gathered(snap)...)
}

// gathered are the flaws by patch and cause, each with the resources where it has none.
func (f *patchFlaws) gathered(snap *mesh.Snapshot) []Problem {
	type cause struct {
		origin ir.Origin
		err    string
	}
	where, one := map[cause]map[string]bool{}, map[cause]envoy.PatchFlaw{}
	for _, list := range f.unfit {
		for _, u := range list {
			if objectOf(snap, u.Origin) != u.object {
				continue
			}
			c := cause{u.Origin, u.Err.Error()}
			if where[c] == nil {
				where[c] = map[string]bool{}
			}
			where[c][u.Resource], one[c] = true, u.PatchFlaw
		}
	}
	var list []Problem
	for c, resources := range where {
		list = append(list, flawProblem(snap, one[c], slices.Sorted(maps.Keys(resources))))
	}
	slices.SortFunc(list, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return list
}

// flawProblem says that a patch is left out of resources, nil for all.
func flawProblem(snap *mesh.Snapshot, f envoy.PatchFlaw, resources []string) Problem {
	p, message := problemOf(snap, f.Origin, config.Error), f.Err.Error()
	if below, rest, ok := strings.Cut(message, ": "); ok && (below == "applyTo" || strings.HasPrefix(below, "patch.")) {
		p.Field, message = p.Field+"."+below, rest
	}
	switch {
	case f.Partly:
		p.Severity, p.Message = config.Warning.String(), message
	case len(resources) > 3:
		p.Message = fmt.Sprintf("the patch is left out of %s and %d more: %s", strings.Join(resources[:2], ", "), len(resources)-2, message)
	case len(resources) > 0:
		p.Message = fmt.Sprintf("the patch is left out of %s: %s", strings.Join(resources, ", "), message)
	default:
		p.Message = "the patch is left out: " + message
	}
	return p
}
