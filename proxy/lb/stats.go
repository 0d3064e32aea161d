package lb

import (
	"iter"
	"sync"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// Stats are the "cluster.<name>.lb_…" stats of one cluster, named as Envoy names them.
// They come into being with Open, or with the first event. A nil *Stats counts nothing.
type Stats struct {
	scope *stats.Scope
	once  sync.Once

	mu    sync.Mutex
	known map[string]bool // the subsets that there were last

	healthyPanic, localNotOK, recalculated                                         *stats.Counter
	zoneTooSmall, zoneDirect, zoneSampled, zoneCross, zoneNoCapacity               *stats.Counter
	subsetsCreated, subsetsRemoved, subsetsSelected, subsetsFallback, subsetsPanic *stats.Counter
	subsetsActive                                                                  *stats.Gauge
}

// NewStats returns the stats in scope, which is "cluster.<name>.".
func NewStats(scope *stats.Scope) *Stats { return &Stats{scope: scope} }

// Open has all of them exist.
func (s *Stats) Open() {
	s.once.Do(func() {
		c := s.scope.Counter
		s.healthyPanic, s.localNotOK, s.recalculated = c("lb_healthy_panic"), c("lb_local_cluster_not_ok"), c("lb_recalculate_zone_structures")
		s.zoneTooSmall, s.zoneDirect, s.zoneSampled = c("lb_zone_cluster_too_small"), c("lb_zone_routing_all_directly"), c("lb_zone_routing_sampled")
		s.zoneCross, s.zoneNoCapacity = c("lb_zone_routing_cross_zone"), c("lb_zone_no_capacity_left")
		s.subsetsCreated, s.subsetsRemoved, s.subsetsSelected = c("lb_subsets_created"), c("lb_subsets_removed"), c("lb_subsets_selected")
		s.subsetsFallback, s.subsetsPanic = c("lb_subsets_fallback"), c("lb_subsets_fallback_panic")
		s.subsetsActive = s.scope.Gauge("lb_subsets_active")
	})
}

// count counts an event that which names.
func (s *Stats) count(which func(*Stats) *stats.Counter) {
	if s == nil {
		return
	}
	s.Open()
	which(s).Inc()
}

// tableSize shows how many points of a ring, or places of a table, the endpoints have.
func (s *Stats) tableSize(prefix, unit string, hosts iter.Seq[*endpoint.Endpoint]) {
	if s == nil {
		return
	}
	by, size := map[*endpoint.Endpoint]int64{}, int64(0)
	for e := range hosts {
		by[e]++
		size++
	}
	least, most := size, int64(0)
	for _, n := range by {
		least, most = min(least, n), max(most, n)
	}
	if unit == "hashes" {
		s.scope.Gauge(prefix + "size").Set(size)
	}
	s.scope.Gauge(prefix + "min_" + unit + "_per_host").Set(least)
	s.scope.Gauge(prefix + "max_" + unit + "_per_host").Set(most)
}
