// Package upstream keeps the connections to endpoints.
//
// A Pool holds the HTTP connections to one endpoint. Acquire takes an idle one, the
// last used first, or dials a new one, or waits in line for one; what it returns is
// one exchange, and the connection finds its own way back when the exchange is
// complete. Limits are the circuit breakers of a cluster and priority, shared by the
// pools of its endpoints; Stats are the cluster's counters. No lock is held while
// anything blocks.
//
// An idle connection that the peer has closed is found when it is taken (a peek at
// the socket: servers that close right after an answer are common) and by a sweep
// every second; a request is not written to it. One that ends between the look and the
// write is told by its acknowledgements (Prober.Untaken): if the peer has received no
// byte, the Reset is Unused, and the router sends the request on another connection.
package upstream

import (
	"context"
	"time"

	"github.com/lateen-mesh/lateen/proxy/transport"
)

// Options are the settings of a Pool.
type Options struct {
	// Dial connects to the endpoint, TLS included; it obeys ctx. Its error text
	// becomes the transport failure reason.
	Dial func(ctx context.Context) (transport.Conn, error)
	// ConnectTimeout bounds Dial, 0 is 5 s as in Envoy.
	ConnectTimeout time.Duration
	// IdleTimeout closes connections that are not used for so long, 0 is never.
	IdleTimeout time.Duration
	// MaxConnectionDuration closes connections of that age when they are idle, 0 is never.
	MaxConnectionDuration time.Duration
	// MaxRequestsPerConn closes a connection after so many requests, 0 is no limit.
	MaxRequestsPerConn uint32
	// PreserveCase writes header names as they were read instead of in lower case.
	PreserveCase bool
	// Trailers hands on trailers of responses and requests (enable_trailers).
	Trailers bool
	Limits   *Limits // required
	Stats    *Stats  // required
}
