package mesh

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/registry"
)

// A DestinationRule is what one or several DestinationRule objects of one
// namespace say about a host: the traffic policy of the oldest that has one and
// the subsets of all, the first of a name. Spec.Host is fully qualified.
type DestinationRule struct {
	Spec *networking.DestinationRule
	// From are the merged objects, oldest first. The first one stands for all in
	// metadata.
	From []*config.Config
}

// Subset returns the subset with the name, nil if there is none.
func (d *DestinationRule) Subset(name string) *networking.Subset {
	if d == nil {
		return nil
	}
	for _, s := range d.Spec.Subsets {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Policy returns the traffic policy for all ports and subsets, nil if there is none.
func (d *DestinationRule) Policy() *networking.TrafficPolicy {
	if d == nil {
		return nil
	}
	return d.Spec.TrafficPolicy
}

func (d *DestinationRule) selector() map[string]string {
	return d.Spec.GetWorkloadSelector().GetMatchLabels()
}

// ruleSet is the rules of one namespace by host. Rules of one host that could
// not be merged follow one another, oldest first.
type ruleSet struct {
	exact    map[string][]*DestinationRule
	wildcard []string // hosts with a wildcard, the most specific first

	duplicates int // subsets whose name an older rule for the host has
}

func (s *Snapshot) indexDestinationRules() {
	if old := s.index.old; old != nil && slices.Equal(old.Config.List(config.DestinationRule), s.Config.List(config.DestinationRule)) {
		s.index.rules, s.index.duplicateSubsets = old.index.rules, old.index.duplicateSubsets
		return
	}
	s.index.rules = map[string]*ruleSet{}
	for _, c := range s.Config.List(config.DestinationRule) {
		set := s.index.rules[c.Namespace]
		if set == nil {
			set = &ruleSet{exact: map[string][]*DestinationRule{}}
			s.index.rules[c.Namespace] = set
		}
		dr := proto.Clone(c.Spec.(*networking.DestinationRule)).(*networking.DestinationRule)
		dr.Host = s.FQDN(dr.Host, c.Namespace)
		if len(dr.ExportTo) == 0 {
			dr.ExportTo = slices.Clone(s.MeshConfig.DefaultDestinationRuleExportTo)
		}
		slices.Sort(dr.ExportTo)
		set.add(dr, c)
	}
	for _, set := range s.index.rules {
		s.index.duplicateSubsets += set.duplicates
		slices.SortFunc(set.wildcard, moreSpecific)
	}
}

// moreSpecific orders wildcard hosts: the longer one first.
func moreSpecific(a, b string) int {
	if len(a) != len(b) {
		return len(b) - len(a)
	}
	return strings.Compare(a, b)
}

func (r *ruleSet) add(dr *networking.DestinationRule, c *config.Config) {
	have := r.exact[dr.Host]
	if len(have) == 0 && isWildcard(dr.Host) {
		r.wildcard = append(r.wildcard, dr.Host)
	}
	for _, d := range have {
		if merged, duplicates := d.merge(dr, c); merged {
			r.duplicates += duplicates
			return
		}
	}
	r.exact[dr.Host] = append(have, &DestinationRule{Spec: dr, From: []*config.Config{c}})
}

// merge takes what a younger rule adds. Rules that apply to different workloads
// or are seen by different namespaces stay apart. It counts the subsets that are there already.
func (d *DestinationRule) merge(dr *networking.DestinationRule, c *config.Config) (merged bool, duplicates int) {
	if !proto.Equal(d.Spec.WorkloadSelector, dr.WorkloadSelector) || !slices.Equal(d.Spec.ExportTo, dr.ExportTo) {
		return false, 0
	}
	if d.Spec.TrafficPolicy == nil {
		d.Spec.TrafficPolicy = dr.TrafficPolicy
	}
	for _, s := range dr.Subsets {
		if d.Subset(s.Name) != nil {
			duplicates++
			continue
		}
		d.Spec.Subsets = append(d.Spec.Subsets, s)
	}
	d.From = append(d.From, c)
	return true, duplicates
}

// find returns the rule for the most specific host that covers the given one and
// that has a rule which use accepts.
func (r *ruleSet) find(host string, use func([]*DestinationRule) *DestinationRule) *DestinationRule {
	if r == nil {
		return nil
	}
	if d := use(r.exact[host]); d != nil {
		return d
	}
	for _, w := range r.wildcard {
		if config.HostWithin(host, w) {
			if d := use(r.exact[w]); d != nil {
				return d
			}
		}
	}
	return nil
}

// DestinationRule returns the rule that governs the proxy's traffic to a service,
// nil if there is none. The first of these namespaces that has a rule for the
// host decides: the proxy's own (unless it is the root namespace, whose rules are
// defaults for everybody and come last), the service's, the root namespace. Of the
// latter two only rules exported to the proxy's namespace count. Within a
// namespace the most specific host wins, and a rule that selects the proxy by
// its labels goes before one without selector.
func (sc *Scope) DestinationRule(service *registry.Service) *DestinationRule {
	if service == nil {
		return nil
	}
	s, own, root := sc.snapshot, sc.namespace, sc.snapshot.RootNamespace()
	local := func(list []*DestinationRule) *DestinationRule { return sc.choose(list, true, nil) }
	if own != root {
		if d := s.index.rules[own].find(service.Host, local); d != nil {
			return d
		}
	} else if d := s.index.rules[root].find(service.Host, func(list []*DestinationRule) *DestinationRule {
		return sc.choose(list, true, private)
	}); d != nil {
		return d
	}
	for _, ns := range []string{service.Namespace, root} {
		exported := func(list []*DestinationRule) *DestinationRule {
			return sc.choose(list, ns == own, func(d *DestinationRule) bool {
				return visible(d.Spec.ExportTo, nil, ns, own)
			})
		}
		if d := s.index.rules[ns].find(service.Host, exported); d != nil {
			return d
		}
	}
	return nil
}

// private reports whether a rule is for its own namespace only.
func private(d *DestinationRule) bool { return len(d.Spec.ExportTo) == 1 && d.Spec.ExportTo[0] == "." }

// choose picks the rule for this proxy among those of one host. Rules with a
// workload selector apply to proxies of their own namespace only.
func (sc *Scope) choose(list []*DestinationRule, own bool, accept func(*DestinationRule) bool) *DestinationRule {
	var general *DestinationRule
	for _, d := range list {
		if accept != nil && !accept(d) {
			continue
		}
		sel := d.selector()
		switch {
		case len(sel) == 0 && general == nil:
			general = d
		case len(sel) > 0 && own && Selects(sel, sc.labels):
			return d
		}
	}
	return general
}
