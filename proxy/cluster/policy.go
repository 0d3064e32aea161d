package cluster

import (
	"errors"
	"fmt"
	"math"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	commonlbv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundrobinv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

const policyURL = "type.googleapis.com/envoy.extensions.load_balancing_policies."

func (cfg *config) decodePolicy(c *clusterv3.Cluster) error {
	provided := c.GetLbPolicy() == clusterv3.Cluster_CLUSTER_PROVIDED
	if c.GetLoadBalancingPolicy() != nil {
		p, err := cfg.typedPolicy(c.GetLoadBalancingPolicy())
		if err != nil {
			return at("load_balancing_policy", err)
		}
		provided = p
	} else if err := cfg.enumPolicy(c); err != nil {
		return err
	}
	if provided != (cfg.kind == originalDst) {
		return fmt.Errorf("cluster: LB policy %s is not valid for Cluster type %s", c.GetLbPolicy(), c.GetType())
	}
	return nil
}

func (cfg *config) enumPolicy(c *clusterv3.Cluster) error {
	switch c.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		cfg.policy.Kind = lb.RoundRobin
		return at("round_robin_lb_config", xds.Only(c.GetRoundRobinLbConfig()))
	case clusterv3.Cluster_LEAST_REQUEST:
		l := c.GetLeastRequestLbConfig()
		cfg.leastRequest(l.GetChoiceCount().GetValue(), l.GetActiveRequestBias() != nil, l.GetActiveRequestBias().GetDefaultValue())
		return at("least_request_lb_config", xds.Only(l, "choice_count", "active_request_bias"))
	case clusterv3.Cluster_RANDOM:
		cfg.policy.Kind = lb.Random
	case clusterv3.Cluster_RING_HASH:
		r := c.GetRingHashLbConfig()
		if r.GetHashFunction() != clusterv3.Cluster_RingHashLbConfig_XX_HASH {
			return fmt.Errorf("ring_hash_lb_config.hash_function: %s is not supported", r.GetHashFunction())
		}
		return at("ring_hash_lb_config", cfg.ring(r.GetMinimumRingSize().GetValue(), r.GetMaximumRingSize().GetValue()))
	case clusterv3.Cluster_MAGLEV:
		return at("maglev_lb_config", cfg.maglev(c.GetMaglevLbConfig().GetTableSize().GetValue()))
	case clusterv3.Cluster_CLUSTER_PROVIDED:
	default:
		return fmt.Errorf("lb_policy: %s is not supported", c.GetLbPolicy())
	}
	return nil
}

func (cfg *config) leastRequest(choices uint32, biased bool, bias float64) {
	cfg.policy.Kind, cfg.policy.Choices = lb.LeastRequest, choices
	if biased {
		// Zero would be the default; this is as good as zero.
		cfg.policy.ActiveBias = max(bias, math.SmallestNonzeroFloat64)
	}
}

// maxRing is Envoy's bound of ring sizes.
const maxRing = 8 << 20

func (cfg *config) ring(least, most uint64) error {
	cfg.policy.Kind, cfg.policy.MinRing, cfg.policy.MaxRing = lb.RingHash, least, most
	switch {
	case least > maxRing || most > maxRing:
		return fmt.Errorf("minimum_ring_size, maximum_ring_size: must be at most %d", maxRing)
	case most != 0 && max(least, 1024) > most:
		return errors.New("minimum_ring_size: must not be greater than maximum_ring_size")
	}
	return nil
}

func (cfg *config) maglev(table uint64) error {
	cfg.policy.Kind, cfg.policy.Table = lb.Maglev, table
	if table > 5000011 || table != 0 && !prime(table) {
		return fmt.Errorf("table_size: must be a prime of at most 5000011, got %d", table)
	}
	return nil
}

func prime(n uint64) bool {
	for d := uint64(2); d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return n > 1
}

// typedPolicy takes the first policy of the list that is known, as Envoy does.
func (cfg *config) typedPolicy(l *clusterv3.LoadBalancingPolicy) (provided bool, err error) {
	var unknown strings.Builder
	for i, p := range l.GetPolicies() {
		body := p.GetTypedExtensionConfig().GetTypedConfig()
		known, err := cfg.onePolicy(body)
		if err != nil {
			return false, at(fmt.Sprintf("policies[%d]", i), err)
		}
		if known {
			return body.GetTypeUrl() == policyURL+"cluster_provided.v3.ClusterProvided", nil
		}
		unknown.WriteString(" " + body.GetTypeUrl())
	}
	return false, fmt.Errorf("policies: none is supported:%s", unknown.String())
}

func (cfg *config) onePolicy(body *anypb.Any) (known bool, err error) {
	switch body.GetTypeUrl() {
	case policyURL + "cluster_provided.v3.ClusterProvided":
		return true, nil
	case policyURL + "random.v3.Random":
		cfg.policy.Kind = lb.Random
		return true, nil
	case policyURL + "round_robin.v3.RoundRobin":
		var m roundrobinv3.RoundRobin
		cfg.policy.Kind = lb.RoundRobin
		return true, cfg.typed(body, &m, func() error { return cfg.localityConfig(m.GetLocalityLbConfig()) }, "locality_lb_config")
	case policyURL + "least_request.v3.LeastRequest":
		var m leastrequestv3.LeastRequest
		return true, cfg.typed(body, &m, func() error {
			cfg.leastRequest(m.GetChoiceCount().GetValue(), m.GetActiveRequestBias() != nil, m.GetActiveRequestBias().GetDefaultValue())
			return cfg.localityConfig(m.GetLocalityLbConfig())
		}, "choice_count", "active_request_bias", "locality_lb_config")
	case policyURL + "ring_hash.v3.RingHash":
		var m ringhashv3.RingHash
		return true, cfg.typed(body, &m, func() error {
			if m.GetHashFunction() == ringhashv3.RingHash_MURMUR_HASH_2 {
				return errors.New("hash_function: MURMUR_HASH_2 is not supported")
			}
			cfg.byLocality = m.GetLocalityWeightedLbConfig() != nil
			return cfg.ring(m.GetMinimumRingSize().GetValue(), m.GetMaximumRingSize().GetValue())
		}, "hash_function", "minimum_ring_size", "maximum_ring_size", "locality_weighted_lb_config")
	case policyURL + "maglev.v3.Maglev":
		var m maglevv3.Maglev
		return true, cfg.typed(body, &m, func() error {
			cfg.byLocality = m.GetLocalityWeightedLbConfig() != nil
			return cfg.maglev(m.GetTableSize().GetValue())
		}, "table_size", "locality_weighted_lb_config")
	}
	return false, nil
}

func (cfg *config) typed(body *anypb.Any, m proto.Message, then func() error, allowed ...protoreflect.Name) error {
	if err := proto.Unmarshal(body.GetValue(), m); err != nil {
		return err
	}
	if err := xds.Only(m, allowed...); err != nil {
		return err
	}
	return then()
}

func (cfg *config) localityConfig(l *commonlbv3.LocalityLbConfig) error {
	if l.GetZoneAwareLbConfig() != nil {
		return errors.New("locality_lb_config.zone_aware_lb_config: not supported")
	}
	cfg.byLocality = l.GetLocalityWeightedLbConfig() != nil
	return nil
}

func (cfg *config) decodeCommonLB(c *clusterv3.Cluster) error {
	l := c.GetCommonLbConfig()
	if err := xds.Only(l, "healthy_panic_threshold", "locality_weighted_lb_config", "update_merge_window",
		"ignore_new_hosts_until_first_hc", "consistent_hashing_lb_config"); err != nil {
		return at("common_lb_config", err)
	}
	if err := xds.Only(l.GetConsistentHashingLbConfig(), "use_hostname_for_hashing"); err != nil {
		return at("common_lb_config.consistent_hashing_lb_config", err)
	}
	cfg.policy.HashHostname = l.GetConsistentHashingLbConfig().GetUseHostnameForHashing()
	cfg.byLocality = cfg.byLocality || l.GetLocalityWeightedLbConfig() != nil
	cfg.panic = 50
	if p := l.GetHealthyPanicThreshold(); p != nil {
		cfg.panic = uint32(min(100, max(0, p.GetValue())))
	}
	return nil
}
