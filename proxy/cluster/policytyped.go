package cluster

import (
	"errors"
	"fmt"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	commonlbv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	overridev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/override_host/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

const policyURL = "type.googleapis.com/envoy.extensions.load_balancing_policies."

// typed takes the first policy of the list that is known, as Envoy does.
func (b *balancing) typed(l *clusterv3.LoadBalancingPolicy) error {
	var unknown strings.Builder
	for i, p := range l.GetPolicies() {
		body := p.GetTypedExtensionConfig().GetTypedConfig()
		known, err := b.one(body)
		if err != nil {
			return at(fmt.Sprintf("policies[%d]", i), err)
		}
		if known {
			return nil
		}
		unknown.WriteString(" " + body.GetTypeUrl())
	}
	return fmt.Errorf("policies: none is supported:%s", unknown.String())
}

func (b *balancing) one(body *anypb.Any) (known bool, err error) {
	name, _ := strings.CutPrefix(body.GetTypeUrl(), policyURL)
	read := map[string]func(*anypb.Any) error{
		"cluster_provided.v3.ClusterProvided": func(*anypb.Any) error { b.provided = true; return nil },
		"random.v3.Random":                    b.typedRandom,
		"round_robin.v3.RoundRobin":           b.typedRoundRobin,
		"least_request.v3.LeastRequest":       b.typedLeastRequest,
		"ring_hash.v3.RingHash":               b.typedRing,
		"maglev.v3.Maglev":                    b.typedMaglev,
		"subset.v3.Subset":                    b.typedSubset,
		"override_host.v3.OverrideHost":       b.typedOverride,
	}[name]
	if read == nil {
		return false, nil
	}
	return true, read(body)
}

// unpack reads a message that may have no fields but those allowed.
func unpack(body *anypb.Any, m proto.Message, allowed ...protoreflect.Name) error {
	if err := proto.Unmarshal(body.GetValue(), m); err != nil {
		return err
	}
	return xds.Only(m, allowed...)
}

func (b *balancing) typedRandom(body *anypb.Any) error {
	var m randomv3.Random
	if err := unpack(body, &m, "locality_lb_config"); err != nil {
		return err
	}
	b.Kind = lb.Random
	return b.locality(m.GetLocalityLbConfig())
}

func (b *balancing) typedRoundRobin(body *anypb.Any) error {
	var m roundrobinv3.RoundRobin
	if err := unpack(body, &m, "locality_lb_config", "slow_start_config"); err != nil {
		return err
	}
	b.Kind = lb.RoundRobin
	b.slowStart(m.GetSlowStartConfig())
	return b.locality(m.GetLocalityLbConfig())
}

func (b *balancing) typedLeastRequest(body *anypb.Any) error {
	var m leastrequestv3.LeastRequest
	if err := unpack(body, &m, "choice_count", "active_request_bias", "locality_lb_config", "slow_start_config", "selection_method"); err != nil {
		return err
	}
	b.leastRequest(m.GetChoiceCount().GetValue(), m.GetActiveRequestBias())
	b.FullScan = m.GetSelectionMethod() == leastrequestv3.LeastRequest_FULL_SCAN
	b.slowStart(m.GetSlowStartConfig())
	return b.locality(m.GetLocalityLbConfig())
}

func (b *balancing) typedRing(body *anypb.Any) error {
	var m ringhashv3.RingHash
	if err := unpack(body, &m, "hash_function", "minimum_ring_size", "maximum_ring_size", "locality_weighted_lb_config",
		"use_hostname_for_hashing", "hash_balance_factor", "consistent_hashing_lb_config"); err != nil {
		return err
	}
	b.Murmur = m.GetHashFunction() == ringhashv3.RingHash_MURMUR_HASH_2
	b.HashHostname, b.HashBalance = m.GetUseHostnameForHashing(), m.GetHashBalanceFactor().GetValue()
	if m.GetLocalityWeightedLbConfig() != nil {
		b.Locality = lb.ByWeight
	}
	if err := b.hashing(m.GetConsistentHashingLbConfig()); err != nil {
		return err
	}
	return b.ring(m.GetMinimumRingSize().GetValue(), m.GetMaximumRingSize().GetValue())
}

func (b *balancing) typedMaglev(body *anypb.Any) error {
	var m maglevv3.Maglev
	if err := unpack(body, &m, "table_size", "locality_weighted_lb_config", "consistent_hashing_lb_config"); err != nil {
		return err
	}
	if m.GetLocalityWeightedLbConfig() != nil {
		b.Locality = lb.ByWeight
	}
	if err := b.hashing(m.GetConsistentHashingLbConfig()); err != nil {
		return err
	}
	return b.maglev(m.GetTableSize().GetValue())
}

func (b *balancing) hashing(c *commonlbv3.ConsistentHashingLbConfig) error {
	if c == nil {
		return nil
	}
	b.HashHostname, b.HashBalance = c.GetUseHostnameForHashing(), c.GetHashBalanceFactor().GetValue()
	return at("consistent_hashing_lb_config", xds.Only(c, "use_hostname_for_hashing", "hash_balance_factor"))
}

func (b *balancing) locality(l *commonlbv3.LocalityLbConfig) error {
	z := l.GetZoneAwareLbConfig()
	if err := xds.Only(z, "routing_enabled", "min_cluster_size", "fail_traffic_on_panic", "force_locality_direct_routing",
		"force_local_zone", "locality_basis"); err != nil {
		return at("locality_lb_config.zone_aware_lb_config", err)
	}
	if l.GetLocalityWeightedLbConfig() != nil {
		b.Locality = lb.ByWeight
	}
	b.zone(z.GetRoutingEnabled(), z.GetMinClusterSize().GetValue(), z.GetMinClusterSize() != nil)
	b.Zone.FailOnPanic = z.GetFailTrafficOnPanic()
	b.Zone.ByWeight = z.GetLocalityBasis() == commonlbv3.LocalityLbConfig_ZoneAwareLbConfig_HEALTHY_HOSTS_WEIGHT
	if f := z.GetForceLocalZone(); z.GetForceLocalityDirectRouting() || f != nil {
		b.Zone.Direct, b.Zone.DirectSize = true, 1
		if f.GetMinSize() != nil {
			b.Zone.DirectSize = uint64(f.GetMinSize().GetValue())
		}
	}
	return nil
}

func (b *balancing) typedOverride(body *anypb.Any) error {
	var m overridev3.OverrideHost
	if err := unpack(body, &m, "override_host_sources", "fallback_policy"); err != nil {
		return err
	}
	switch {
	case len(m.GetOverrideHostSources()) == 0:
		return errors.New("override_host_sources: value must contain at least 1 item(s)")
	case m.GetFallbackPolicy() == nil:
		return errors.New("fallback_policy: value is required")
	case b.override != nil:
		return errors.New("override_host: not within another one")
	}
	for i, s := range m.GetOverrideHostSources() {
		source := lb.Source{Header: strings.ToLower(s.GetHeader()), Namespace: s.GetMetadata().GetKey()}
		for _, p := range s.GetMetadata().GetPath() {
			source.Path = append(source.Path, p.GetKey())
		}
		if (source.Header == "") == (s.GetMetadata() == nil) {
			return fmt.Errorf("override_host_sources[%d]: either header or metadata must be set", i)
		}
		b.override = append(b.override, source)
	}
	return at("fallback_policy", b.typed(m.GetFallbackPolicy()))
}

func (b *balancing) typedSubset(body *anypb.Any) error {
	var m subsetv3.Subset
	if err := proto.Unmarshal(body.GetValue(), &m); err != nil {
		return err
	}
	if err := b.typed(m.GetSubsetLbPolicy()); err != nil {
		return at("subset_lb_policy", err)
	}
	old := &clusterv3.Cluster_LbSubsetConfig{
		FallbackPolicy: clusterv3.Cluster_LbSubsetConfig_LbSubsetFallbackPolicy(m.GetFallbackPolicy()), DefaultSubset: m.GetDefaultSubset(),
		LocalityWeightAware: m.GetLocalityWeightAware(), ScaleLocalityWeight: m.GetScaleLocalityWeight(), PanicModeAny: m.GetPanicModeAny(),
		ListAsAny:              m.GetListAsAny(),
		MetadataFallbackPolicy: clusterv3.Cluster_LbSubsetConfig_LbSubsetMetadataFallbackPolicy(m.GetMetadataFallbackPolicy()),
	}
	for _, s := range m.GetSubsetSelectors() {
		old.SubsetSelectors = append(old.SubsetSelectors, &clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector{
			Keys: s.GetKeys(), SingleHostPerSubset: s.GetSingleHostPerSubset(), FallbackKeysSubset: s.GetFallbackKeysSubset(),
			FallbackPolicy: clusterv3.Cluster_LbSubsetConfig_LbSubsetSelector_LbSubsetSelectorFallbackPolicy(s.GetFallbackPolicy()),
		})
	}
	if err := b.oldSubsets(old); err != nil {
		return err
	}
	if b.subsets != nil {
		b.subsets.Redundant = m.GetAllowRedundantKeys()
	}
	return nil
}
