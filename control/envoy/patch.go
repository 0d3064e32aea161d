package envoy

import (
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Patches are the changes that EnvoyFilters make to the resources of one proxy, after
// all else. They are done one after the other, from the outer object to the inner: a
// listener, its listener filters, its chains, their network filters, the HTTP filters in
// these; a route table, its virtual hosts, their routes. What is added to a list of
// listeners, chains, virtual hosts or clusters comes last and is not patched itself.
//
// A patch that cannot be read, or that would leave something that no Envoy takes, is left
// out where that is so, and found again in Flaws; all others have effect.
//
// A nil Patches changes nothing. It is used by one goroutine at a time.
type Patches struct {
	gateway bool
	all     map[ir.PatchTarget][]*patch
	flaws   []PatchFlaw
	touched map[string][]ir.Origin // by name of resource
}

// A PatchFlaw is a patch that has no effect, or not the whole of it.
type PatchFlaw struct {
	Origin   ir.Origin
	Resource string // where it has none; "": everywhere
	Err      error
	Partly   bool // the rest of it has effect
}

// A patch is an ir.Patch with its value.
type patch struct {
	ir.Patch
	value proto.Message // of the target's type, nil for REMOVE
}

// NewPatches reads the patches for a sidecar or a gateway, in the order in which they
// apply.
func NewPatches(list []ir.Patch, gateway bool) *Patches {
	if len(list) == 0 {
		return nil
	}
	p := &Patches{gateway: gateway, all: map[ir.PatchTarget][]*patch{}, touched: map[string][]ir.Origin{}}
	for _, one := range list {
		value, unknown, err := readPatch(one)
		if err != nil {
			p.flaws = append(p.flaws, PatchFlaw{Origin: one.Origin, Err: err})
			continue
		}
		if unknown != nil {
			p.flaws = append(p.flaws, PatchFlaw{Origin: one.Origin, Err: unknown, Partly: true})
		}
		p.all[one.Target] = append(p.all[one.Target], &patch{one, value})
	}
	return p
}

// Flaws are the patches that cannot be read, and those that did not fit what they have
// been applied to since.
func (p *Patches) Flaws() []PatchFlaw {
	if p == nil {
		return nil
	}
	return p.flaws
}

// Touched are the patches that selected something in each resource, by its name.
func (p *Patches) Touched() map[string][]ir.Origin {
	if p == nil {
		return nil
	}
	return p.touched
}

// touch notes that a patch is done to a resource.
func (p *Patches) touch(pt *patch, resource string) {
	if !slices.Contains(p.touched[resource], pt.Origin) {
		p.touched[resource] = append(p.touched[resource], pt.Origin)
	}
}

// flaw keeps why a patch has no effect on a resource, once.
func (p *Patches) flaw(pt *patch, resource string, err error) {
	same := func(f PatchFlaw) bool {
		return f.Origin == pt.Origin && f.Resource == resource && f.Err.Error() == err.Error()
	}
	if !slices.ContainsFunc(p.flaws, same) {
		p.flaws = append(p.flaws, PatchFlaw{Origin: pt.Origin, Resource: resource, Err: err})
	}
}

// any reports whether there are patches of one of the targets.
func (p *Patches) any(targets ...ir.PatchTarget) bool {
	return p != nil && slices.ContainsFunc(targets, func(t ir.PatchTarget) bool { return len(p.all[t]) > 0 })
}

// context is that of a listener, a route table or a cluster.
func (p *Patches) context(inbound bool) ir.PatchContext {
	switch {
	case p.gateway:
		return ir.PatchGateway
	case inbound:
		return ir.PatchInbound
	}
	return ir.PatchOutbound
}

// in reports whether a patch is for the context. There are no waypoints.
func (pt *patch) in(c ir.PatchContext) bool {
	return !pt.Waypoint && (pt.Context == ir.PatchAnywhere || pt.Context == c)
}

// adds reports whether a patch adds a listener or a cluster to those of the proxy.
func (p *Patches) adds(pt *patch) bool {
	return pt.Operation == ir.PatchAdd && (pt.in(p.context(true)) || pt.in(p.context(false)))
}

// patchedList are the resources of a list, each as one says, which is nil for those that are
// removed, and those that patches of the target add. kind is what users call them.
func patchedList[M interface {
	comparable
	proto.Message
	GetName() string
}](p *Patches, target ir.PatchTarget, kind string, list []M, one func(M) M) (out []M) {
	var removed M
	names := map[string]bool{}
	for _, m := range list {
		if m = one(m); m != removed {
			out, names[m.GetName()] = append(out, m), true
		}
	}
	for _, pt := range p.all[target] {
		if !p.adds(pt) {
			continue
		}
		m := clone[M](pt)
		if names[m.GetName()] {
			p.flaw(pt, m.GetName(), fmt.Errorf("patch.value.name: there is a %s %s already", kind, m.GetName()))
			continue
		}
		p.touch(pt, m.GetName())
		out, names[m.GetName()] = append(out, m), true
	}
	return out
}

func (pt *patch) merges() bool {
	return pt.Operation == ir.PatchMerge || pt.Operation == ir.PatchMergeReplace
}

// clone is a copy of the patch's value, which must be of the type.
func clone[M proto.Message](pt *patch) M { return proto.Clone(pt.value).(M) }

// merged is m with the patch's value, or m itself where that is of no use.
func merged[M proto.Message](p *Patches, pt *patch, m M, resource string) M {
	p.touch(pt, resource)
	out := proto.Clone(m).(M)
	err := merge(out.ProtoReflect(), pt.value.ProtoReflect(), pt.Operation == ir.PatchMergeReplace)
	if err == nil {
		err = valid(out)
	}
	if err == nil && wholeFlaw(m) == nil {
		err = wholeFlaw(out)
	}
	if err != nil {
		p.flaw(pt, resource, err)
		return m
	}
	return out
}

// A selection is what a patch does to a list in which the order counts.
type selection[M proto.Message] struct {
	selects  func(M) bool
	specific bool          // the patch names what it selects
	present  bool          // nothing is put first where nothing is selected
	end      func([]M) int // where what is added stands; nil: after all
	must     func([]M) bool
	resource string
}

var errOrder = errors.New("nothing can stand behind the filter that ends the chain")

// edited is the list after a patch.
func edited[M proto.Message](p *Patches, pt *patch, list []M, s selection[M]) []M {
	out := changed(p, pt, list, s)
	if s.must != nil && s.must(list) && !s.must(out) {
		p.flaw(pt, s.resource, errOrder)
		return list
	}
	p.touch(pt, s.resource)
	return out
}

func changed[M proto.Message](p *Patches, pt *patch, list []M, s selection[M]) []M {
	end := len(list)
	if s.end != nil {
		end = s.end(list)
	}
	at := slices.IndexFunc(list, s.selects)
	switch pt.Operation {
	case ir.PatchAdd:
	case ir.PatchFirst:
		if end = 0; s.present {
			end = min(at, 0)
		}
	case ir.PatchBefore:
		if end = 0; s.specific {
			end = at
		}
	case ir.PatchAfter:
		if s.specific && at < 0 {
			return list
		}
		if s.specific {
			end = at + 1
		}
	default:
		return altered(p, pt, list, s, at)
	}
	if end < 0 {
		return list
	}
	return slices.Insert(slices.Clone(list), end, clone[M](pt))
}

// altered is the list after a patch that puts nothing in. What replaces or removes must
// name what.
func altered[M proto.Message](p *Patches, pt *patch, list []M, s selection[M], at int) []M {
	out := slices.Clone(list)
	switch {
	case pt.merges():
		for i, m := range out {
			if s.selects(m) && fits(p, pt, m, s) {
				out[i] = merged(p, pt, m, s.resource)
			}
		}
	case !s.specific || at < 0:
	case pt.Operation == ir.PatchReplace:
		out[at] = clone[M](pt)
	case pt.Operation == ir.PatchRemove:
		out = slices.DeleteFunc(out, s.selects)
	}
	return out
}

// fits reports whether the settings of a patch are of the type of a filter's. They need
// not be where the patch is for every filter.
func fits[M proto.Message](p *Patches, pt *patch, m M, s selection[M]) bool {
	have, mine := typeOf(m), typeOf(pt.value)
	if have == mine || mine == "" || have == "" {
		return true
	}
	if s.specific {
		p.flaw(pt, s.resource, fmt.Errorf("typed_config: a %s cannot be merged into a %s", mine, have))
	}
	return false
}
