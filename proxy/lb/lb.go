// Package lb chooses one endpoint of a set.
//
// A cluster hands New its endpoints, grouped by priority and locality, and a policy;
// the Balancer that comes back is immutable but for its cursors, safe for concurrent
// use, and never allocates in Pick. When endpoints come, go or change health, the
// cluster makes a new Balancer. A pick is three decisions, as in Envoy: the priority
// (health times the over-provisioning factor, spilling over to the next, or panic),
// the locality (only where weights are in force), the endpoint (by the policy).
package lb

import (
	"net/netip"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
)

// A Balancer chooses endpoints of one set.
type Balancer interface {
	// Pick returns the chosen endpoint, nil when none may take traffic.
	Pick(*Context) *endpoint.Endpoint
}

// A Context is what a choice may depend on beside the set. The zero value is a
// choice without preferences.
type Context struct {
	// Hash is the hash of the route's hash policy, if HasHash.
	Hash    uint64
	HasHash bool
	// Avoid are the endpoints of earlier attempts (previous_hosts): they are chosen
	// only if Attempts choices in a row found no other.
	Avoid    []*endpoint.Endpoint
	Attempts int // host_selection_retry_max_attempts; 0 is Envoy's default 1
	// OriginalDst is where the client wanted to go; ORIGINAL_DST clusters go there.
	OriginalDst netip.AddrPort
	// Without are priorities (bit n: priority n) that are left out as long as others have
	// endpoints (previous_priorities).
	Without uint64
	// Random yields random numbers, nil for the runtime's source. Explanations and
	// tests hand in their own.
	Random func() uint64
}
