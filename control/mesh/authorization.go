package mesh

import (
	"slices"

	security "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"

	"github.com/lateen-mesh/lateen/control/config"
)

// An AuthorizationPolicy is an AuthorizationPolicy object with its typed body.
type AuthorizationPolicy struct {
	*config.Config
	Spec *security.AuthorizationPolicy
}

// A RequestAuthentication is a RequestAuthentication object with its typed body.
type RequestAuthentication struct {
	*config.Config
	Spec *security.RequestAuthentication
}

// AuthorizationPolicies returns those that are for the proxy: of the root namespace, then of
// its own; in each the older first. They are united, none takes the place of another.
func (s *Snapshot) AuthorizationPolicies(p *Proxy) []*AuthorizationPolicy {
	var list []*AuthorizationPolicy
	for _, ns := range s.policyNamespaces(p) {
		for _, a := range s.index.authorization[ns] {
			if p.isSubject(a.Spec, a.Namespace) {
				list = append(list, a)
			}
		}
	}
	return list
}

// RequestAuthentications returns those that are for the proxy, in the order of
// AuthorizationPolicies; their rules are united.
func (s *Snapshot) RequestAuthentications(p *Proxy) []*RequestAuthentication {
	var list []*RequestAuthentication
	for _, ns := range s.policyNamespaces(p) {
		for _, a := range s.index.authentication[ns] {
			if p.isSubject(a.Spec, a.Namespace) {
				list = append(list, a)
			}
		}
	}
	return list
}

// AllRequestAuthentications returns every RequestAuthentication, whether or not it selects a
// proxy, in conflict order.
func (s *Snapshot) AllRequestAuthentications() []*RequestAuthentication {
	var list []*RequestAuthentication
	for _, c := range s.Config.List(config.RequestAuthentication) {
		list = append(list, &RequestAuthentication{c, c.Spec.(*security.RequestAuthentication)})
	}
	return list
}

// policyNamespaces are those whose policies can be for the proxy, in their order.
func (s *Snapshot) policyNamespaces(p *Proxy) []string {
	if root := s.RootNamespace(); p.Namespace != root {
		return []string{root, p.Namespace}
	}
	return []string{p.Namespace}
}

// A policyBody is what policies that are attached alike say of whom they are for.
type policyBody interface {
	GetSelector() *typev1beta1.WorkloadSelector
	GetTargetRef() *typev1beta1.PolicyTargetReference
	GetTargetRefs() []*typev1beta1.PolicyTargetReference
}

// isSubject reports whether a policy of the namespace is for the proxy: one with references
// is for the Gateways that it names, whatever the labels.
func (p *Proxy) isSubject(body policyBody, namespace string) bool {
	refs := body.GetTargetRefs()
	if r := body.GetTargetRef(); r != nil {
		refs = append([]*typev1beta1.PolicyTargetReference{r}, refs...)
	}
	if len(refs) > 0 {
		return slices.ContainsFunc(refs, func(r *typev1beta1.PolicyTargetReference) bool { return p.isTarget(r, namespace) })
	}
	return Selects(body.GetSelector().GetMatchLabels(), p.Labels)
}

// indexPolicies has those of each namespace in the store's order, which is by age and name.
func (s *Snapshot) indexPolicies() {
	ix, old := &s.index, s.index.old
	if old != nil && slices.Equal(old.Config.List(config.AuthorizationPolicy), s.Config.List(config.AuthorizationPolicy)) {
		ix.authorization = old.index.authorization
	} else {
		ix.authorization = map[string][]*AuthorizationPolicy{}
		for _, c := range s.Config.List(config.AuthorizationPolicy) {
			ix.authorization[c.Namespace] = append(ix.authorization[c.Namespace], &AuthorizationPolicy{c, c.Spec.(*security.AuthorizationPolicy)})
		}
	}
	if old != nil && slices.Equal(old.Config.List(config.RequestAuthentication), s.Config.List(config.RequestAuthentication)) {
		ix.authentication = old.index.authentication
		return
	}
	ix.authentication = map[string][]*RequestAuthentication{}
	for _, a := range s.AllRequestAuthentications() {
		ix.authentication[a.Namespace] = append(ix.authentication[a.Namespace], a)
	}
}
