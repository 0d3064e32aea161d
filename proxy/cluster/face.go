// Package cluster holds the upstream clusters: their endpoints, which of them a
// stream goes to, and the connections there.
package cluster

import (
	"context"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// Clusters are all clusters of the proxy by name.
type Clusters struct{}

// Get returns the live cluster of that name, nil when there is none (or it is still
// warming for the first time). It takes no lock and does not allocate.
func (cs *Clusters) Get(name string) *Cluster { return nil }

// A Cluster is one upstream cluster under one configuration. A stream keeps the
// Cluster it began with; its endpoints change underneath.
type Cluster struct{}

// Name is the cluster's name.
func (c *Cluster) Name() string { return "" }

// Pick chooses an endpoint, nil when none may take traffic (UH).
func (c *Cluster) Pick(x *lb.Context) *endpoint.Endpoint { return nil }

// Dial connects to ep for a TCP proxy, bounded by connect_timeout and ctx, counted in
// the cluster's connection stats and limits until the Conn is closed. The error is a
// *transport.Error, or ErrOverflow when max_connections is reached.
func (c *Cluster) Dial(ctx context.Context, ep *endpoint.Endpoint) (transport.Conn, error) {
	return nil, nil
}

// ConnectTimeout is connect_timeout, 5 s by default.
func (c *Cluster) ConnectTimeout() time.Duration { return 0 }

// Secure reports that connections to ep are TLS.
func (c *Cluster) Secure(ep *endpoint.Endpoint) bool { return false }

// HTTP is the pool of HTTP connections to ep, made on first use. It takes no lock.
func (c *Cluster) HTTP(ep *endpoint.Endpoint) *upstream.Pool { return nil }

// AutoSNI reports that TLS connections ask for the host of the request (auto_sni);
// the router then takes its pool from HTTPFor instead of HTTP.
func (c *Cluster) AutoSNI() bool { return false }

// HTTPFor is the pool of connections to ep whose server name is host.
func (c *Cluster) HTTPFor(ep *endpoint.Endpoint, host string) *upstream.Pool { return nil }

// Limits are the circuit breakers of a priority: 0 default, 1 high.
func (c *Cluster) Limits(priority int) *upstream.Limits { return nil }

// Stats are the cluster's upstream stats, made on first use.
func (c *Cluster) Stats() *upstream.Stats { return nil }
