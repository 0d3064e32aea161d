package mesh

import (
	"cmp"
	"slices"

	"istio.io/api/label"
	networking "istio.io/api/networking/v1alpha3"
	typev1beta1 "istio.io/api/type/v1beta1"

	"github.com/lateen-mesh/lateen/control/config"
)

// An EnvoyFilter is an EnvoyFilter object with its typed body.
type EnvoyFilter struct {
	*config.Config
	Spec *networking.EnvoyFilter
}

// EnvoyFilters returns the EnvoyFilters that select the proxy, in the order in which
// they apply: those of the root namespace, then those of the proxy's own; in each by
// priority, then by age, then by name.
func (s *Snapshot) EnvoyFilters(p *Proxy) []*EnvoyFilter {
	var list []*EnvoyFilter
	namespaces := []string{s.RootNamespace()}
	if p.Namespace != namespaces[0] {
		namespaces = append(namespaces, p.Namespace)
	}
	for _, ns := range namespaces {
		for _, f := range s.index.envoyFilters[ns] {
			if f.selects(p) {
				list = append(list, f)
			}
		}
	}
	return list
}

// AllEnvoyFilters returns every EnvoyFilter, whether or not it selects a proxy, in
// conflict order.
func (s *Snapshot) AllEnvoyFilters() []*EnvoyFilter {
	var list []*EnvoyFilter
	for _, c := range s.Config.List(config.EnvoyFilter) {
		list = append(list, &EnvoyFilter{Config: c, Spec: c.Spec.(*networking.EnvoyFilter)})
	}
	return list
}

// PatchesRead reports whether an EnvoyFilter selects proxies by metadata under one of the
// keys.
func (s *Snapshot) PatchesRead(keys ...string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { return s.index.patchKeys[k] })
}

// indexEnvoyFilters orders them in each namespace. The store's order is by age and
// name already.
func (s *Snapshot) indexEnvoyFilters() {
	s.index.envoyFilters, s.index.patchKeys = map[string][]*EnvoyFilter{}, map[string]bool{}
	for _, f := range s.AllEnvoyFilters() {
		s.index.envoyFilters[f.Namespace] = append(s.index.envoyFilters[f.Namespace], f)
		for _, c := range f.Spec.ConfigPatches {
			for k := range c.GetMatch().GetProxy().GetMetadata() {
				s.index.patchKeys[k] = true
			}
		}
	}
	for _, list := range s.index.envoyFilters {
		slices.SortStableFunc(list, func(a, b *EnvoyFilter) int { return cmp.Compare(a.Spec.Priority, b.Spec.Priority) })
	}
}

func (f *EnvoyFilter) selects(p *Proxy) bool {
	if refs := f.Spec.TargetRefs; len(refs) > 0 {
		return slices.ContainsFunc(refs, func(r *typev1beta1.PolicyTargetReference) bool { return p.isTarget(r, f.Namespace) })
	}
	return Selects(f.Spec.GetWorkloadSelector().GetLabels(), p.Labels)
}

// isTarget reports whether a reference in an object of the namespace names the Gateway that
// the proxy was made for. What other kinds it can name (GatewayClass, Service, ServiceEntry)
// stand for waypoints.
func (p *Proxy) isTarget(r *typev1beta1.PolicyTargetReference, namespace string) bool {
	return p.Type == Router && r.Kind == "Gateway" && r.Group == "gateway.networking.k8s.io" &&
		r.Name == p.Labels[label.IoK8sNetworkingGatewayGatewayName.Name] && cmp.Or(r.Namespace, namespace) == p.Namespace
}
