package compile

import (
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/registry"
)

// Labels that stand for a workload's place; failoverPriority may name them.
const (
	regionLabel  = "topology.kubernetes.io/region"
	zoneLabel    = "topology.kubernetes.io/zone"
	subzoneLabel = "topology.istio.io/subzone"
	networkLabel = "topology.istio.io/network"
	clusterLabel = "topology.istio.io/cluster"
)

// localitySetting is the DestinationRule's setting, else the mesh's; nil where
// the one that counts is turned off.
func (b *clusterBuilder) localitySetting(p policy) *networking.LocalityLoadBalancerSetting {
	s := p.balancer.GetLocalityLbSetting()
	if s == nil {
		s = b.mesh.MeshConfig.GetLocalityLbSetting()
		if !s.GetEnabled().GetValue() {
			return nil
		}
	}
	if s.Enabled != nil && !s.Enabled.Value {
		return nil
	}
	return s
}

// spread distributes traffic over localities: by explicit weights for clients of
// the proxy's locality, or by priorities, which need outlier detection, since
// without it no endpoint is ever found unhealthy and traffic never moves on.
func (b *clusterBuilder) spread(localities []*locality, p policy) []*locality {
	setting := b.localitySetting(p)
	if setting == nil {
		return localities
	}
	own := b.mesh.LocalityOf(b.proxy)
	switch {
	case len(setting.Distribute) > 0:
		if own == (registry.Locality{}) {
			return localities
		}
		return distribute(localities, own, setting.Distribute)
	case p.outlier == nil:
		return localities
	case len(setting.FailoverPriority) > 0:
		return b.byLabels(localities, setting.FailoverPriority)
	case own == (registry.Locality{}):
		return localities
	}
	for _, l := range localities {
		l.priority = distance(own, l.at, setting.Failover)
	}
	compress(localities)
	return localities
}

// distance is 0 for endpoints of the proxy's own subzone, 1 of its zone, 2 of its
// region, 3 elsewhere; where a failover region is named for the proxy's region
// all other regions come after it.
func distance(own, at registry.Locality, failover []*networking.LocalityLoadBalancerSetting_Failover) uint32 {
	switch {
	case own == at:
		return 0
	case own.Region == at.Region && own.Zone == at.Zone:
		return 1
	case own.Region == at.Region:
		return 2
	}
	for _, f := range failover {
		if f.From == own.Region && f.To != at.Region {
			return 4
		}
	}
	return 3
}

// compress renumbers priorities without gaps, as Envoy wants them.
func compress(localities []*locality) {
	var used []uint32
	for _, l := range localities {
		used = append(used, l.priority)
	}
	slices.Sort(used)
	used = slices.Compact(used)
	for _, l := range localities {
		l.priority = uint32(slices.Index(used, l.priority))
	}
}

// distribute gives the localities that the first matching rule names its
// weights. A weight for several localities is shared by their own weights;
// localities that are not named get no traffic.
func distribute(localities []*locality, own registry.Locality, rules []*networking.LocalityLoadBalancerSetting_Distribute) []*locality {
	for _, rule := range rules {
		if !within(own, rule.From) {
			continue
		}
		var out []*locality
		rest := localities
		for _, to := range bySpecificity(rule.To) {
			var hit, miss []*locality
			var total uint64
			for _, l := range rest {
				if within(l.at, to) {
					hit, total = append(hit, l), total+uint64(l.weight)
				} else {
					miss = append(miss, l)
				}
			}
			for _, l := range hit { // rounded up, so that no locality is left without
				l.weight = uint32((uint64(l.weight)*uint64(rule.To[to]) + total - 1) / total)
			}
			out, rest = append(out, hit...), miss
		}
		slices.SortStableFunc(out, func(x, y *locality) int { return strings.Compare(x.at.String(), y.at.String()) })
		return slices.DeleteFunc(out, func(l *locality) bool { return l.weight == 0 })
	}
	return localities
}

// bySpecificity orders locality patterns so that the longer one is tried first.
func bySpecificity(to map[string]uint32) []string {
	var keys []string
	for k := range to {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if d := strings.Count(b, "/") - strings.Count(a, "/"); d != 0 {
			return d
		}
		return strings.Compare(b, a)
	})
	return keys
}

// within reports whether a locality is covered by "region/zone/subzone", where
// "*" is any and parts left out are not looked at.
func within(l registry.Locality, pattern string) bool {
	have := []string{l.Region, l.Zone, l.SubZone}
	for i, want := range strings.SplitN(pattern, "/", 3) {
		if want == "*" {
			return true
		}
		if have[i] != want {
			return false
		}
	}
	return true
}

// byLabels splits localities by how many of the labels, counted from the first,
// an endpoint has in common with the proxy: more in common is tried first.
func (b *clusterBuilder) byLabels(localities []*locality, keys []string) []*locality {
	own := placed(b.proxy.Labels, b.mesh.LocalityOf(b.proxy), b.proxy.Network, b.proxy.ClusterID)
	var out []*locality
	for _, l := range localities {
		byPriority := map[uint32]*locality{}
		for _, e := range l.endpoints {
			labels := placed(e.Labels, e.Locality, e.Network, e.Cluster)
			n := uint32(len(keys) - common(own, labels, keys))
			if byPriority[n] == nil {
				byPriority[n] = &locality{at: l.at, priority: n}
				out = append(out, byPriority[n])
			}
			byPriority[n].endpoints = append(byPriority[n].endpoints, e)
			byPriority[n].weight += max(e.Weight, 1)
		}
	}
	compress(out)
	return out
}

// common counts the labels, up to the first that differs. "key=value" asks for a
// value whatever the proxy has.
func common(own, labels map[string]string, keys []string) int {
	for i, k := range keys {
		key, value, fixed := strings.Cut(k, "=")
		if !fixed {
			value = own[key]
		}
		if labels[key] != value {
			return i
		}
	}
	return len(keys)
}

// placed adds the labels of a place where the workload does not have them.
func placed(labels map[string]string, l registry.Locality, network, cluster string) map[string]string {
	out := map[string]string{regionLabel: l.Region, zoneLabel: l.Zone, subzoneLabel: l.SubZone,
		networkLabel: network, clusterLabel: cluster}
	maps.Copy(out, labels)
	return out
}
