// Package endpoint holds the upstream addresses that a cluster chooses among.
package endpoint

import (
	"sync/atomic"
)

// A Locality is where an endpoint runs.
type Locality struct{ Region, Zone, SubZone string }

// An Endpoint is one upstream address. Its configuration is immutable; its
// counters are updated by every stream. The same *Endpoint survives updates of
// the set as long as address and configuration stay equal, so that its pools do too.
type Endpoint struct {
	// Address is "ip:port" or "unix:/path", ready to dial and to log.
	Address  string
	Hostname string // for DNS clusters and auto host rewrite, else ""
	Weight   uint32 // ≥ 1
	Priority uint32
	Locality Locality
	// Metadata is filter_metadata as decoded JSON-like values, nil when empty.
	Metadata map[string]map[string]any
	// Owner is the state of the cluster that made the endpoint (its pools, its outlier
	// counts); nobody else looks at it.
	Owner any

	Active    atomic.Int64  // requests or connections in flight; least request reads it
	Unhealthy atomic.Uint32 // Flag bits; 0 is healthy

	Requests     atomic.Uint64 // rq_total
	Errors       atomic.Uint64 // rq_error
	Successes    atomic.Uint64 // rq_success
	Timeouts     atomic.Uint64 // rq_timeout
	Connects     atomic.Uint64 // cx_total
	ConnectFails atomic.Uint64 // cx_connect_fail
	ActiveConns  atomic.Int64  // cx_active
}

// Flags of an endpoint that is not healthy, as Envoy's /clusters names them.
const (
	FailedEDSHealth    uint32 = 1 << iota // "/failed_eds_health"
	FailedActiveHealth                    // "/failed_active_hc"
	FailedOutlier                         // "/failed_outlier_check"
	Degraded                              // "/degraded"
	Draining                              // HealthStatus DRAINING, "/eds_status_draining"
)

// Healthy reports that nothing speaks against the endpoint. A degraded one is chosen
// when healthy ones do not suffice, any other only in panic.
func (e *Endpoint) Healthy() bool { return e.Unhealthy.Load() == 0 }
