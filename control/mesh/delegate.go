package mesh

import (
	"maps"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"
)

// mergeDelegates replaces each HTTP route that delegates by the routes of its
// delegate. A delegate that is missing or not visible from the root's namespace,
// or that delegates on, leaves nothing in the route's place. The second result is
// where each route is written.
func (s *Snapshot) mergeDelegates(root *VirtualService) ([]*networking.HTTPRoute, []RuleOrigin) {
	var merged []*networking.HTTPRoute
	origins := make([]RuleOrigin, 0, len(root.Spec.Http))
	for i, r := range root.Spec.Http {
		if r.Delegate == nil {
			merged = append(merged, r)
			origins = append(origins, RuleOrigin{root.Config, i})
			continue
		}
		d := s.index.delegates[r.Delegate.Namespace+"/"+r.Delegate.Name]
		if d == nil || !visible(d.Spec.ExportTo, s.MeshConfig.DefaultVirtualServiceExportTo, d.Namespace, root.Namespace) {
			continue
		}
		for j, leaf := range d.Spec.Http {
			if m := mergeRoute(r, leaf); m != nil {
				merged = append(merged, m)
				origins = append(origins, RuleOrigin{d.Config, j})
			}
		}
	}
	return merged, origins
}

// mergeRoute is the delegate's route under the root's conditions: it matches what
// both match, and takes from the root what it does not say. It is nil when no
// request could match both.
func mergeRoute(root, leaf *networking.HTTPRoute) *networking.HTTPRoute {
	if leaf.Delegate != nil {
		return nil
	}
	matches, ok := mergeMatches(root.Match, leaf.Match)
	if !ok {
		return nil
	}
	m := proto.Clone(leaf).(*networking.HTTPRoute)
	m.Match = matches
	m.Name = joinNames(root.Name, leaf.Name)
	inherit := proto.Clone(root).(*networking.HTTPRoute)
	inherit.Match, inherit.Delegate, inherit.Route, inherit.Redirect, inherit.Name = nil, nil, nil, nil, ""
	fields := m.ProtoReflect()
	for _, set := range setFields(inherit) {
		if !fields.Has(set.field) {
			fields.Set(set.field, set.value)
		}
	}
	return m
}

func joinNames(root, leaf string) string {
	if root == "" || leaf == "" {
		return root + leaf
	}
	return root + "-" + leaf
}

// mergeMatches combines each of the root's matches with each of the delegate's;
// false when every pair contradicts itself.
func mergeMatches(root, leaf []*networking.HTTPMatchRequest) ([]*networking.HTTPMatchRequest, bool) {
	if len(root) == 0 {
		return leaf, true
	}
	if len(leaf) == 0 {
		return root, true
	}
	var merged []*networking.HTTPMatchRequest
	for _, l := range leaf {
		for _, r := range root {
			if !contradict(r, l) {
				merged = append(merged, mergeMatch(r, l))
			}
		}
	}
	return merged, len(merged) > 0
}

func mergeMatch(root, leaf *networking.HTTPMatchRequest) *networking.HTTPMatchRequest {
	m := proto.Clone(root).(*networking.HTTPMatchRequest)
	m.Name = joinNames(root.Name, leaf.Name)
	into := m.ProtoReflect()
	for _, set := range setFields(leaf) {
		if set.field.IsMap() || set.field.Name() == "name" {
			continue
		}
		into.Set(set.field, set.value)
	}
	m.Headers = union(root.Headers, leaf.Headers)
	m.WithoutHeaders = union(root.WithoutHeaders, leaf.WithoutHeaders)
	m.QueryParams = union(root.QueryParams, leaf.QueryParams)
	m.SourceLabels = union(root.SourceLabels, leaf.SourceLabels)
	return m
}

func union[V any](root, leaf map[string]V) map[string]V {
	if len(root)+len(leaf) == 0 {
		return nil
	}
	m := maps.Clone(root)
	if m == nil {
		m = map[string]V{}
	}
	maps.Copy(m, leaf)
	return m
}

// contradict reports whether no request satisfies both matches, or whether that
// cannot be decided (regular expressions), which Istio treats alike.
func contradict(root, leaf *networking.HTTPMatchRequest) bool {
	switch {
	case root.IgnoreUriCase != leaf.IgnoreUriCase,
		root.Port != 0 && leaf.Port != 0 && root.Port != leaf.Port,
		root.SourceNamespace != "" && leaf.SourceNamespace != "" && root.SourceNamespace != leaf.SourceNamespace,
		stringsContradict(root.Uri, leaf.Uri),
		stringsContradict(root.Scheme, leaf.Scheme),
		stringsContradict(root.Method, leaf.Method),
		stringsContradict(root.Authority, leaf.Authority),
		mapsContradict(root.Headers, leaf.Headers),
		mapsContradict(root.WithoutHeaders, leaf.WithoutHeaders),
		mapsContradict(root.QueryParams, leaf.QueryParams):
		return true
	}
	for k, v := range leaf.SourceLabels {
		if have, ok := root.SourceLabels[k]; ok && have != v {
			return true
		}
	}
	return false
}

func mapsContradict(root, leaf map[string]*networking.StringMatch) bool {
	for k, l := range leaf {
		if stringsContradict(root[k], l) {
			return true
		}
	}
	return false
}

func stringsContradict(root, leaf *networking.StringMatch) bool {
	if root.GetMatchType() == nil || leaf.GetMatchType() == nil {
		return false
	}
	if root.GetRegex() != "" || leaf.GetRegex() != "" {
		return true
	}
	if exact := root.GetExact(); exact != "" {
		return leaf.GetExact() != exact
	}
	return !strings.HasPrefix(leaf.GetExact()+leaf.GetPrefix(), root.GetPrefix())
}
