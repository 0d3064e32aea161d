// Package endpoint holds the upstream addresses that a cluster chooses among.
package endpoint

import (
	"sync/atomic"
)

// A Locality is where an endpoint runs.
type Locality struct{ Region, Zone, SubZone string }

// An Endpoint is one upstream address. It survives updates of the set, with its pools and
// counts, as long as what it is stays equal: address, name and locality. What it is worth
// (Weight, Priority, Metadata) may change underneath; whoever reads one of these twice may
// find two values. Its counters are updated by every stream.
type Endpoint struct {
	// Address is "ip:port" or "unix:/path", ready to dial and to log.
	Address string
	// More are further addresses of the same endpoint, "ip:port", in the order in which they
	// are tried after Address (additional_addresses, names with several addresses).
	More     []string
	Hostname string // for DNS clusters and auto host rewrite, else ""
	Locality Locality
	Weight   atomic.Uint32 // ≥ 1
	Priority atomic.Uint32
	Metadata Metadata
	// Owner is the state of the cluster that made the endpoint (its pools, its outlier
	// counts); nobody else looks at it.
	Owner any

	Active    atomic.Int64  // requests or connections in flight; least request reads it
	Unhealthy atomic.Uint32 // Flag bits; 0 is healthy
	// HealthySince is when the endpoint came or last passed a health check after it had
	// failed, in ns since 1970: slow start counts from there. 0 is long ago.
	HealthySince atomic.Int64

	Requests     atomic.Uint64 // rq_total
	Errors       atomic.Uint64 // rq_error
	Successes    atomic.Uint64 // rq_success
	Timeouts     atomic.Uint64 // rq_timeout
	Connects     atomic.Uint64 // cx_total
	ConnectFails atomic.Uint64 // cx_connect_fail
	ActiveConns  atomic.Int64  // cx_active
}

// Metadata is filter_metadata as decoded JSON-like values, which are never changed but
// replaced whole.
type Metadata struct {
	p atomic.Pointer[map[string]map[string]any]
}

// Load returns the metadata, nil when empty.
func (m *Metadata) Load() map[string]map[string]any {
	if p := m.p.Load(); p != nil {
		return *p
	}
	return nil
}

// Store replaces the metadata.
func (m *Metadata) Store(v map[string]map[string]any) {
	if v == nil {
		m.p.Store(nil)
		return
	}
	m.p.Store(&v)
}

// Flags of an endpoint, as Envoy's /clusters names them.
const (
	FailedEDSHealth    uint32 = 1 << iota // "/failed_eds_health"
	FailedActiveHealth                    // "/failed_active_hc"
	FailedOutlier                         // "/failed_outlier_check"
	Degraded                              // HealthStatus DEGRADED, "/degraded_eds_health"
	Draining                              // HealthStatus DRAINING, "/eds_status_draining"
	DegradedActive                        // a health check says so, "/degraded_active_hc"
	PendingActive                         // not checked yet, "/pending_active_hc"
	PendingRemoval                        // gone, but a health check holds it, "/pending_dynamic_removal"
	TimedOut                              // the last check timed out, "/active_hc_timeout"
	Excluded                              // refused by a header of an answer, "/excluded_via_immediate_hc_fail"
)

// A State is what the flags come to.
type State uint8

// The states.
const (
	Healthy   State = iota // may be chosen
	Worse                  // degraded: chosen when healthy ones do not suffice
	Unhealthy              // chosen in panic only
)

// State is what the endpoint's flags come to.
func (e *Endpoint) State() State {
	switch f := e.Unhealthy.Load(); {
	case f&(FailedEDSHealth|FailedActiveHealth|FailedOutlier|Draining) != 0:
		return Unhealthy
	case f&(Degraded|DegradedActive) != 0:
		return Worse
	}
	return Healthy
}

// Healthy reports that nothing speaks against the endpoint. A degraded one is chosen
// when healthy ones do not suffice, any other only in panic.
func (e *Endpoint) Healthy() bool { return e.State() == Healthy }

// Counts reports that the endpoint counts in the health of its priority: not so are new
// ones that no check has seen, and those that refused by an answer's header.
func (e *Endpoint) Counts() bool { return e.Unhealthy.Load()&(Excluded|PendingActive) == 0 }
