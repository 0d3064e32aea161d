// Package lb chooses one endpoint of a set.
//
// A cluster hands New its endpoints, grouped by priority and locality, and a policy;
// the Balancer that comes back is immutable but for its cursors, safe for concurrent
// use, and never allocates in Pick once each of its parts has been used. When endpoints
// come, go or change health, the cluster makes a new Balancer; what it needs is built by
// its first Pick, so that clusters without traffic cost little. A pick is three
// decisions, as in Envoy: the priority (health times the over-provisioning factor,
// spilling over to the next, or panic), the locality (by weights, or near the proxy
// itself where zone aware routing is in force), the endpoint (by the policy).
//
// NewSubsets chooses among the endpoints whose metadata a route asks for; NewAggregate
// among other balancers, in their order of priority; NewOverride where the request says.
package lb

import (
	"net/netip"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// A Balancer chooses endpoints of one set.
type Balancer interface {
	// Pick returns the chosen endpoint, nil when none may take traffic.
	Pick(*Context) *endpoint.Endpoint
	// health and pickIn are what an aggregate needs of its parts: the health of each
	// priority, and a choice in one of them.
	health() []health
	pickIn(x *Context, priority int, degraded bool) *endpoint.Endpoint
}

// A Context is what a choice may depend on beside the set. The zero value is a
// choice without preferences.
type Context struct {
	// Hash is the hash of the route's hash policy, if HasHash.
	Hash    uint64
	HasHash bool
	// Match is the metadata that endpoints must have (the route's metadata_match, key
	// envoy.lb), nil for none. It is never changed. Only clusters with subsets look at it.
	Match map[string]any
	// Avoid are the endpoints of earlier attempts (previous_hosts): they are chosen
	// only if Attempts choices in a row found no other.
	Avoid []*endpoint.Endpoint
	// Omit tells of other endpoints to be avoided so, nil for none.
	Omit     func(*endpoint.Endpoint) bool
	Attempts int // host_selection_retry_max_attempts; 0 is Envoy's default 1
	// OriginalDst is where the client wanted to go; ORIGINAL_DST clusters go there.
	OriginalDst netip.AddrPort
	// Host is the host that the request asks for, "name" or "name:port", for clusters that
	// go wherever it says (dynamic forward proxy).
	Host []byte
	// Request tells what the request says of itself, nil for nothing (NewOverride).
	Request Request
	named   named
	// Without are priorities (bit n: priority n) that are left out as long as others have
	// endpoints (previous_priorities).
	Without uint64
	// Priority is set by Pick: the priority of the choice in this set.
	Priority int
	// Random yields random numbers, nil for the runtime's source. Explanations and
	// tests hand in their own.
	Random func() uint64
}

// A Policy says how an endpoint of a group is chosen.
type Policy struct {
	Kind Kind
	// Choices is how many endpoints least request compares, 2 by default; FullScan has it
	// compare all.
	Choices  uint32
	FullScan bool
	// ActiveBias is least request's active_request_bias for unequal weights, 1 by default.
	ActiveBias float64
	// SlowStart lets round robin and least request send less to new endpoints at first.
	SlowStart SlowStart
	// MinRing and MaxRing bound the ring of ring hash: 1024 and 8 Mi by default.
	MinRing, MaxRing uint64
	// Murmur hashes the ring's points with MURMUR_HASH_2 instead of XX_HASH.
	Murmur bool
	// Table is Maglev's table size, a prime, 65537 by default.
	Table uint64
	// HashHostname hashes the host name instead of the address (use_hostname_for_hashing).
	HashHostname bool
	// HashBalance bounds the load of an endpoint, in percent of the mean
	// (hash_balance_factor); 0 is no bound.
	HashBalance uint32
	// Locality says how a locality is chosen.
	Locality Locality
	// Zone are the settings of ZoneAware.
	Zone Zone
}

// A Kind is a load balancing policy.
type Kind uint8

// The policies.
const (
	RoundRobin Kind = iota
	LeastRequest
	Random
	RingHash
	Maglev
)

// A Locality is a way to choose among localities.
type Locality uint8

// The ways.
const (
	ZoneAware  Locality = iota // near the proxy, where Set.Local is there
	ByWeight                   // locality_weighted_lb_config
	NoLocality                 // as if there were none
)

// SlowStart is slow_start_config; the zero value is off.
type SlowStart struct {
	Window     time.Duration
	Aggression float64 // 1 by default
	Least      float64 // part of the weight at the start, 0.1 by default
}

// Zone are the settings of zone aware routing.
type Zone struct {
	// Enabled is the percentage of picks that look at zones (routing_enabled).
	Enabled float64
	// MinSize is how many healthy endpoints it takes (min_cluster_size).
	MinSize uint64
	// FailOnPanic gives no endpoint rather than any in panic (fail_traffic_on_panic).
	FailOnPanic bool
	// Direct keeps all traffic in the zone where it has any healthy endpoint
	// (force_locality_direct_routing, force_local_zone), of at least DirectSize.
	Direct     bool
	DirectSize uint64
	// ByWeight counts weights instead of endpoints (locality_basis HEALTHY_HOSTS_WEIGHT).
	ByWeight bool
}

// A Set is what a Balancer chooses among.
type Set struct {
	Endpoints []*endpoint.Endpoint // of all priorities and localities
	// LocalityWeights are those of ByWeight; a locality without weight gets no traffic as
	// long as another has some.
	LocalityWeights map[LocalityKey]uint32
	// PanicThreshold is the percentage of available endpoints below which all are used
	// (healthy_panic_threshold); 0 is never.
	PanicThreshold uint32
	// OverProvisioning is in percent, 140 by default.
	OverProvisioning uint32
	// WeightedHealth has the health of a priority count weights instead of endpoints
	// (weighted_priority_health).
	WeightedHealth bool
	// Here is the locality of the proxy, and Local are the endpoints of its own cluster;
	// without them there is no zone aware routing.
	Here  endpoint.Locality
	Local []*endpoint.Endpoint
	// Active tells how many requests of the cluster are in flight, for HashBalance; nil:
	// the sum of the endpoints'.
	Active func() int64
	Stats  *Stats // nil: none are kept
}

// A LocalityKey is a locality at a priority.
type LocalityKey struct {
	Priority uint32
	Locality endpoint.Locality
}

// String names the policy as lb_policy does.
func (k Kind) String() string {
	names := [...]string{"ROUND_ROBIN", "LEAST_REQUEST", "RANDOM", "RING_HASH", "MAGLEV"}
	if int(k) >= len(names) {
		return "Kind(" + string(rune('0'+k%10)) + ")"
	}
	return names[k]
}
