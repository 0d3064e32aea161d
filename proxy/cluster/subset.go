package cluster

import (
	"errors"
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// oldSubsets reads lb_subset_config; without selectors there are no subsets.
func (b *balancing) oldSubsets(c *clusterv3.Cluster_LbSubsetConfig) error {
	if err := xds.Only(c, "fallback_policy", "default_subset", "subset_selectors", "locality_weight_aware", "scale_locality_weight",
		"panic_mode_any", "list_as_any", "metadata_fallback_policy"); err != nil || len(c.GetSubsetSelectors()) == 0 {
		return err
	}
	s := &lb.Subsets{
		Default: c.GetDefaultSubset().AsMap(), ByLocality: c.GetLocalityWeightAware(), ScaleLocality: c.GetScaleLocalityWeight(),
		PanicAny: c.GetPanicModeAny(), ListAsAny: c.GetListAsAny(),
		FallbackList: c.GetMetadataFallbackPolicy() == clusterv3.Cluster_LbSubsetConfig_FALLBACK_LIST,
	}
	switch c.GetFallbackPolicy() {
	case clusterv3.Cluster_LbSubsetConfig_ANY_ENDPOINT:
		s.Fallback = lb.AnyEndpoint
	case clusterv3.Cluster_LbSubsetConfig_DEFAULT_SUBSET:
		s.Fallback = lb.DefaultSubset
	default:
		s.Fallback = lb.NoEndpoint
	}
	for i, sel := range c.GetSubsetSelectors() {
		one, err := selector(sel)
		if err != nil {
			return at(fmt.Sprintf("subset_selectors[%d]", i), err)
		}
		s.Selectors = append(s.Selectors, one)
	}
	b.subsets = s
	return nil
}

// selector compiles one selector of subsets.
func selector(sel *clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector) (lb.Selector, error) {
	out := lb.Selector{Keys: keys(sel.GetKeys()), Single: sel.GetSingleHostPerSubset(), FallbackKeys: keys(sel.GetFallbackKeysSubset())}
	if err := xds.Only(sel, "keys", "single_host_per_subset", "fallback_policy", "fallback_keys_subset"); err != nil {
		return out, err
	}
	if out.Single && len(out.Keys) != 1 {
		return out, errors.New("single_host_per_subset: subset selector must have a single key")
	}
	switch sel.GetFallbackPolicy() {
	case clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_NO_FALLBACK:
		out.Fallback = lb.NoEndpoint
	case clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_ANY_ENDPOINT:
		out.Fallback = lb.AnyEndpoint
	case clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_DEFAULT_SUBSET:
		out.Fallback = lb.DefaultSubset
	case clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_KEYS_SUBSET:
		out.Fallback = lb.KeysSubset
		return out, fewer(out)
	}
	return out, nil
}

// fewer checks that the keys to fall back to are some, not all, of the selector's.
func fewer(s lb.Selector) error {
	switch {
	case len(s.FallbackKeys) == 0:
		return errors.New("fallback_keys_subset cannot be empty")
	case slices.Equal(s.FallbackKeys, s.Keys):
		return errors.New("fallback_keys_subset cannot be equal to keys")
	case slices.ContainsFunc(s.FallbackKeys, func(k string) bool { return !slices.Contains(s.Keys, k) }):
		return errors.New("fallback_keys_subset must be a subset of selector keys")
	}
	return nil
}

// keys sorts a set of names.
func keys(list []string) []string {
	list = slices.Clone(list)
	slices.Sort(list)
	return slices.Compact(list)
}
