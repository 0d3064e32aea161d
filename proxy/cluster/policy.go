package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"math"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// balancing is how a cluster chooses endpoints.
type balancing struct {
	lb.Policy
	subsets  *lb.Subsets // nil: none
	panic    uint32
	provided bool        // the type of the cluster decides itself
	override []lb.Source // where requests may name endpoints, nil: nowhere
}

// newBalancing is what holds where nothing is said.
func newBalancing() balancing {
	return balancing{panic: 50, Policy: lb.Policy{Zone: lb.Zone{Enabled: 100, MinSize: 6}}}
}

// over makes the balancer over a set.
func (b *balancing) over(s lb.Set) lb.Balancer {
	s.PanicThreshold = b.panic
	var out lb.Balancer
	if b.subsets != nil {
		out = lb.NewSubsets(b.Policy, b.subsets, s)
	} else {
		out = lb.New(b.Policy, s)
	}
	if b.override != nil {
		out = lb.NewOverride(b.override, out, s.Endpoints)
	}
	return out
}

func (cfg *config) decodePolicy(c *clusterv3.Cluster) error {
	cfg.balancing = newBalancing()
	if c.GetLoadBalancingPolicy() != nil {
		if err := cfg.balancing.typed(c.GetLoadBalancingPolicy()); err != nil {
			return at("load_balancing_policy", err)
		}
	} else if err := cfg.balancing.old(c); err != nil {
		return err
	}
	own := cfg.kind == originalDst || cfg.kind == aggregate || cfg.kind == dynamicForward
	if cfg.balancing.provided != own {
		return fmt.Errorf("cluster: LB policy %s is not valid for Cluster type %s", c.GetLbPolicy(), typeName(c))
	}
	if cfg.balancing.HashHostname && cfg.kind == static {
		return errors.New("cannot use hostname for consistent hashing loadbalancing for cluster of type: 'envoy.cluster.static'")
	}
	if cfg.balancing.provided && cfg.balancing.subsets != nil {
		return errors.New("cluster: LB policy CLUSTER_PROVIDED cannot be combined with lb_subset_config")
	}
	return cfg.decodeCommonLB(c)
}

func typeName(c *clusterv3.Cluster) string {
	if t := c.GetClusterType(); t != nil {
		return t.GetName()
	}
	return c.GetType().String()
}

// old reads lb_policy and the fields that belong to it.
func (b *balancing) old(c *clusterv3.Cluster) error {
	if err := b.byName(c); err != nil {
		return err
	}
	if err := b.oldCommon(c.GetCommonLbConfig()); err != nil {
		return at("common_lb_config", err)
	}
	return at("lb_subset_config", b.oldSubsets(c.GetLbSubsetConfig()))
}

func (b *balancing) byName(c *clusterv3.Cluster) error {
	switch c.GetLbPolicy() {
	case clusterv3.Cluster_ROUND_ROBIN:
		b.Kind = lb.RoundRobin
		r := c.GetRoundRobinLbConfig()
		b.slowStart(r.GetSlowStartConfig())
		return at("round_robin_lb_config", xds.Only(r, "slow_start_config"))
	case clusterv3.Cluster_LEAST_REQUEST:
		l := c.GetLeastRequestLbConfig()
		b.leastRequest(l.GetChoiceCount().GetValue(), l.GetActiveRequestBias())
		b.slowStart(l.GetSlowStartConfig())
		return at("least_request_lb_config", xds.Only(l, "choice_count", "active_request_bias", "slow_start_config"))
	case clusterv3.Cluster_RANDOM:
		b.Kind = lb.Random
	case clusterv3.Cluster_RING_HASH:
		r := c.GetRingHashLbConfig()
		b.Murmur = r.GetHashFunction() == clusterv3.Cluster_RingHashLbConfig_MURMUR_HASH_2
		if err := xds.Only(r, "minimum_ring_size", "maximum_ring_size", "hash_function"); err != nil {
			return at("ring_hash_lb_config", err)
		}
		return at("ring_hash_lb_config", b.ring(r.GetMinimumRingSize().GetValue(), r.GetMaximumRingSize().GetValue()))
	case clusterv3.Cluster_MAGLEV:
		return at("maglev_lb_config", b.maglev(c.GetMaglevLbConfig().GetTableSize().GetValue()))
	case clusterv3.Cluster_CLUSTER_PROVIDED:
		b.provided = true
	default:
		return fmt.Errorf("lb_policy: %s is not supported", c.GetLbPolicy())
	}
	return nil
}

// oldCommon reads what common_lb_config says of the choice.
func (b *balancing) oldCommon(l *clusterv3.Cluster_CommonLbConfig) error {
	h := l.GetConsistentHashingLbConfig()
	if err := xds.Only(h, "use_hostname_for_hashing", "hash_balance_factor"); err != nil {
		return at("consistent_hashing_lb_config", err)
	}
	b.HashHostname, b.HashBalance = h.GetUseHostnameForHashing(), h.GetHashBalanceFactor().GetValue()
	if l.GetLocalityWeightedLbConfig() != nil {
		b.Locality = lb.ByWeight
	}
	z := l.GetZoneAwareLbConfig()
	if err := xds.Only(z, "routing_enabled", "min_cluster_size", "fail_traffic_on_panic"); err != nil {
		return at("zone_aware_lb_config", err)
	}
	b.zone(z.GetRoutingEnabled(), z.GetMinClusterSize().GetValue(), z.GetMinClusterSize() != nil)
	b.Zone.FailOnPanic = z.GetFailTrafficOnPanic()
	return nil
}

func (b *balancing) zone(enabled *typev3.Percent, least uint64, bounded bool) {
	if enabled != nil {
		b.Zone.Enabled = enabled.GetValue()
	}
	if bounded {
		b.Zone.MinSize = least
	}
}

// slowStarter is slow_start_config in either of its forms.
type slowStarter interface {
	proto.Message
	GetSlowStartWindow() *durationpb.Duration
	GetAggression() *corev3.RuntimeDouble
	GetMinWeightPercent() *typev3.Percent
}

func (b *balancing) slowStart(s slowStarter) {
	if !s.ProtoReflect().IsValid() {
		return
	}
	b.SlowStart = lb.SlowStart{Window: s.GetSlowStartWindow().AsDuration(), Aggression: 1, Least: 0.1}
	if a := s.GetAggression(); a != nil && a.GetDefaultValue() > 0 {
		b.SlowStart.Aggression = a.GetDefaultValue()
	}
	if p := s.GetMinWeightPercent(); p != nil {
		b.SlowStart.Least = p.GetValue() / 100
	}
}

func (b *balancing) leastRequest(choices uint32, bias *corev3.RuntimeDouble) {
	b.Kind, b.Choices = lb.LeastRequest, choices
	if bias != nil {
		// Zero would be the default; this is as good as zero.
		b.ActiveBias = max(bias.GetDefaultValue(), math.SmallestNonzeroFloat64)
	}
}

// maxRing is Envoy's bound of ring sizes.
const maxRing = 8 << 20

func (b *balancing) ring(least, most uint64) error {
	b.Kind, b.MinRing, b.MaxRing = lb.RingHash, least, most
	switch {
	case least > maxRing || most > maxRing:
		return fmt.Errorf("minimum_ring_size, maximum_ring_size: must be at most %d", maxRing)
	case most != 0 && cmp.Or(least, 1024) > most:
		return errors.New("minimum_ring_size: must not be greater than maximum_ring_size")
	}
	return nil
}

func (b *balancing) maglev(table uint64) error {
	b.Kind, b.Table = lb.Maglev, table
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

func (cfg *config) decodeCommonLB(c *clusterv3.Cluster) error {
	l := c.GetCommonLbConfig()
	if err := xds.Only(l, "healthy_panic_threshold", "locality_weighted_lb_config", "zone_aware_lb_config", "update_merge_window",
		"ignore_new_hosts_until_first_hc", "consistent_hashing_lb_config", "close_connections_on_host_set_change"); err != nil {
		return at("common_lb_config", err)
	}
	cfg.ignoreNew, cfg.closeOnChange = l.GetIgnoreNewHostsUntilFirstHc(), l.GetCloseConnectionsOnHostSetChange()
	if p := l.GetHealthyPanicThreshold(); p != nil {
		cfg.balancing.panic = uint32(min(100, max(0, p.GetValue())))
	}
	return nil
}
