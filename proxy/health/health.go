// Package health checks the hosts of a cluster actively: it asks each of them, again and
// again, by HTTP, TCP or gRPC, whether it is well.
//
// Compile turns the health_checks of a cluster resource into a Plan. Plan.Start gives the
// Checker of one cluster; its cluster tells it by Set which hosts there are, and by Env
// how they are reached. A host has one goroutine for each check. What it finds is written
// into the flags of the endpoint (active health bits only) and told to the cluster, which
// balances anew. A host with several checks is well when all of them say so.
//
// Intervals, thresholds, jitter, stats and events are Envoy's. Nothing of a Checker lives
// on after Close: goroutines, timers and connections end with it.
package health

import (
	"context"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// A Plan is the health checks of one cluster, compiled. It is immutable.
type Plan struct{ checks []*check }

// check is one of them.
type check struct {
	name  string
	kind  prober
	times times
	// thresholds, at least 1
	unhealthy, healthy uint32
	port               uint16 // alt_port, 0: the endpoint's
	way                Way
	reuse              bool
	logs               []string // files of events
	logFailures        bool     // each, not only those that change something
	logSuccesses       bool
}

// times are a check's durations.
type times struct {
	timeout                     time.Duration
	interval, unhealthy         time.Duration // by the outcome of the last check
	healthyEdge, unhealthyEdge  time.Duration // while a threshold is being reached
	noTraffic, noTrafficHealthy time.Duration // before the cluster's first connection
	initialJitter, jitter       time.Duration
	jitterPercent               uint32
}

// A Way is how the connection of a check differs from those of requests.
type Way struct {
	// ALPN replaces the configured protocols when not nil (tls_options).
	ALPN []string
	// Criteria choose the transport socket in place of the endpoint's metadata when not
	// nil (transport_socket_match_criteria).
	Criteria map[string]any
}

// A Host is an endpoint with its health_check_config.
type Host struct {
	Endpoint *endpoint.Endpoint
	// Address is where checks connect, "ip:port" or "unix:/path"; "" is where requests do.
	Address string
	// Port replaces the port of the address unless 0; it is before the check's alt_port.
	Port uint16
	// Hostname is the authority of checks, "" for what the check says.
	Hostname string
	// Unchecked is disable_active_health_check: the host counts as well.
	Unchecked bool
	// Well says that it was so before its configuration changed: a new host has failed until
	// its first check, this one has not.
	Well bool
}

// Env is what a Checker needs of its cluster. The functions may be called from any
// goroutine, and must not call the Checker.
type Env struct {
	Cluster string
	Stats   *stats.Scope // "cluster.NAME."
	// Connect opens a connection to an address of ep within ctx.
	Connect func(ctx context.Context, ep *endpoint.Endpoint, address string, w Way) (transport.Conn, error)
	// Used reports that the cluster has had a connection: until then checks are rare.
	Used func() bool
	// Checked is told after each check whether it passed, and whether the endpoint's flags
	// are others than before.
	Checked func(ep *endpoint.Endpoint, passed, changed bool)
}

// activeFlags are those that a Checker decides.
const activeFlags = endpoint.FailedActiveHealth | endpoint.DegradedActive | endpoint.PendingActive | endpoint.TimedOut | endpoint.Excluded

// A cause is why a check failed, in the order of Envoy's HealthCheckFailureType.
type cause uint8

const (
	active         cause = iota // the host said so
	passive                     // an answer to a request did
	network                     // it could not be asked
	networkTimeout              // it did not answer in time
)

// An outcome is what one check found.
type outcome struct {
	passed   bool
	cause    cause // when it did not pass
	patient  bool  // the threshold counts although the host said so (retriable_statuses)
	degraded bool
	excluded bool // x-envoy-immediate-health-check-fail
	status   int  // of HTTP, 0 for none
}

// A prober is a kind of check: it makes a probe for each host.
type prober interface {
	probe(s *session) probe
	kind() kind
}

// A probe asks one host. try is not called by two goroutines at once; it ends with ctx.
type probe interface {
	try(ctx context.Context) outcome
	// close ends the connection that was kept for the next try.
	close()
}
