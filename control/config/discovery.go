package config

import (
	"cmp"
	"maps"
	"slices"

	meshconfig "istio.io/api/mesh/v1alpha1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// namespaceNameLabel is on every Namespace that an API server keeps.
const namespaceNameLabel = "kubernetes.io/metadata.name"

// Discovered returns the set without the objects of namespaces that no selector of
// MeshConfig.discoverySelectors selects by the labels of the Namespace; without selectors
// all are. The root namespace always is, and what is in no namespace stays.
func Discovered(set *Set, mc *meshconfig.MeshConfig) *Set {
	if len(mc.GetDiscoverySelectors()) == 0 {
		return set
	}
	var selectors []labels.Selector
	for _, s := range mc.DiscoverySelectors {
		if selector, err := namespaceSelector(s); err == nil { // else it was refused as it was read
			selectors = append(selectors, selector)
		}
	}
	known := map[string]bool{"": true, cmp.Or(mc.RootNamespace, DefaultRootNamespace): true}
	return set.within(func(namespace string) bool {
		selected, ok := known[namespace]
		if !ok {
			of := labels.Set{namespaceNameLabel: namespace}
			if n := set.Get(Namespace, "", namespace); n != nil {
				maps.Copy(of, n.Labels)
			}
			selected = slices.ContainsFunc(selectors, func(s labels.Selector) bool { return s.Matches(of) })
			known[namespace] = selected
		}
		return selected
	})
}

// within is the set with the objects of some namespaces.
func (s *Set) within(selected func(namespace string) bool) *Set {
	out := &Set{generation: s.Generation(), objects: map[Key]*Config{}, lists: map[Kind][]*Config{}}
	if s == nil {
		return out
	}
	for kind, list := range s.lists {
		for _, o := range list {
			if selected(o.Namespace) {
				out.objects[o.Key] = o
				out.lists[kind] = append(out.lists[kind], o)
			}
		}
	}
	return out
}

func namespaceSelector(s *meshconfig.LabelSelector) (labels.Selector, error) {
	selector := &metav1.LabelSelector{MatchLabels: s.GetMatchLabels()}
	for _, e := range s.GetMatchExpressions() {
		selector.MatchExpressions = append(selector.MatchExpressions,
			metav1.LabelSelectorRequirement{Key: e.Key, Operator: metav1.LabelSelectorOperator(e.Operator), Values: e.Values})
	}
	return metav1.LabelSelectorAsSelector(selector)
}

func validateDiscoverySelectors(p place, mc *meshconfig.MeshConfig) {
	for i, s := range mc.DiscoverySelectors {
		if _, err := namespaceSelector(s); err != nil {
			p.at("discoverySelectors", i).add(Error, "operators are In, NotIn, Exists and DoesNotExist", "selects nothing: %v", err)
		}
	}
}
