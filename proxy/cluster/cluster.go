// Package cluster holds the upstream clusters: their endpoints, which of them a
// stream goes to, and the connections there.
//
// Clusters has them all by name. They come from the bootstrap (AddStatic) and from CDS
// (Start); each compiles its configuration, finds its endpoints (static, EDS, DNS, or
// where the client wanted to go), and becomes live once these and its secrets have
// arrived. A stream takes a Cluster by Get, an endpoint by Pick, and a connection by
// HTTP or Dial. A changed resource makes a new Cluster that takes the place of the old
// one when it is warm; streams in flight stay with the old one, whose idle connections
// are closed. An endpoint that an update does not touch keeps its connections.
//
// Pools, stats and circuit breakers come into being on first use: what is configured
// and not used costs little. What a resource asks for and is not supported here is an
// error that names the field. Not here yet: active health checks, subsets, aggregate
// clusters, zone aware routing, slow start.
package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// ErrOverflow says that max_connections is reached (response flag UO).
var ErrOverflow = errors.New("overflow")

// A Cluster is one upstream cluster under one configuration. A stream keeps the
// Cluster it began with; its endpoints change underneath. It is safe for concurrent use.
type Cluster struct {
	config   *config
	parent   *Clusters
	scope    *stats.Scope
	sockets  []match
	balancer atomic.Pointer[lb.Balancer]
	added    time.Time
	version  string
	dynamic  bool

	resolver *dns.Resolver
	waiting  atomic.Int32  // what has still to arrive
	live     chan struct{} // closed when all of it has
	ctx      context.Context
	stop     context.CancelFunc
	eds      *xds.Client // of an EDS cluster
	drop     func()      // ends its subscription, under mu
	settle   func()      // tells Initialized that this cluster is live or gone

	placing sync.Mutex // one placement of DNS targets at a time

	mu               sync.Mutex
	hosts            map[identity]*host
	order            []*host
	weights          map[lb.LocalityKey]uint32
	overProvisioning uint32
	membership       *membership
	original         originals
	targets          []*target
	warmed           bool // every DNS target has had an answer
	outlier          outlierStats

	once   sync.Once
	stats  *upstream.Stats
	limits *breakers
}

// breakers are the circuit breakers by priority. They outlive updates of a cluster,
// so that what is in use stays counted.
type breakers struct {
	mu     sync.Mutex
	limits [2]atomic.Pointer[upstream.Limits]
}

// membership are the gauges of the endpoint set.
type membership struct {
	change                   *stats.Counter
	total, healthy, degraded *stats.Gauge
}

// Name is the cluster's name.
func (c *Cluster) Name() string { return c.config.name }

// Pick chooses an endpoint, nil when none may take traffic (UH).
func (c *Cluster) Pick(x *lb.Context) *endpoint.Endpoint {
	if c.config.kind == originalDst {
		return c.pickOriginal(x)
	}
	if b := c.balancer.Load(); b != nil {
		return (*b).Pick(x)
	}
	return nil
}

// HTTP is the pool of HTTP connections to ep, an endpoint of this cluster, for requests
// of a priority (0 default, 1 high), made on first use. It takes no lock after that.
func (c *Cluster) HTTP(ep *endpoint.Endpoint, priority int) *upstream.Pool {
	return ep.Owner.(*host).http(priority)
}

// AutoSNI reports that TLS connections ask for the host of the request (auto_sni);
// the router then takes its pool from HTTPFor instead of HTTP.
func (c *Cluster) AutoSNI() bool { return c.config.http.autoSNI }

// HTTPFor is the pool of connections to ep whose server name is the host of authority.
// Without TLS, and for an address, which is no server name, it is the pool of HTTP.
func (c *Cluster) HTTPFor(ep *endpoint.Endpoint, priority int, authority string) *upstream.Pool {
	h := ep.Owner.(*host)
	name := serverName(authority)
	if name == "" || !h.socket.Secure() {
		return h.http(priority)
	}
	return h.httpFor(named{name, priority})
}

// serverName is the host of an authority without its port, "" for an address.
func serverName(authority string) string {
	if host, _, err := net.SplitHostPort(authority); err == nil {
		authority = host
	}
	if _, err := netip.ParseAddr(strings.Trim(authority, "[]")); err == nil {
		return ""
	}
	return strings.ToLower(authority)
}

// ConnectTimeout is connect_timeout, 5 s by default.
func (c *Cluster) ConnectTimeout() time.Duration { return c.config.connectTimeout }

// Secure reports that connections to ep are TLS.
func (c *Cluster) Secure(ep *endpoint.Endpoint) bool { return ep.Owner.(*host).socket.Secure() }

// Limits are the circuit breakers of a priority: 0 default, 1 high.
func (c *Cluster) Limits(priority int) *upstream.Limits {
	if priority != 1 {
		priority = 0
	}
	if l := c.limits.limits[priority].Load(); l != nil {
		return l
	}
	c.limits.mu.Lock()
	defer c.limits.mu.Unlock()
	l := c.limits.limits[priority].Load()
	if l == nil {
		name := [...]string{"default", "high"}[priority]
		l = upstream.NewLimits(c.config.thresholds[priority], c.scope.Scope("circuit_breakers").Scope(name))
		c.limits.limits[priority].Store(l)
	}
	return l
}

// setMax gives limits that are in use already the maxima of a new configuration.
func (b *breakers) setMax(thresholds [2]upstream.Thresholds) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, t := range thresholds {
		if l := b.limits[i].Load(); l != nil {
			l.Connections.SetMax(t.Connections)
			l.Pending.SetMax(t.Pending)
			l.Requests.SetMax(t.Requests)
			l.Retries.SetMax(t.Retries)
		}
	}
}

// Stats are the cluster's upstream stats, made on first use.
func (c *Cluster) Stats() *upstream.Stats {
	c.once.Do(func() {
		c.stats = upstream.NewStats(c.scope)
		c.mu.Lock()
		defer c.mu.Unlock()
		c.membership = newMembership(c.scope)
		c.showMembership()
	})
	return c.stats
}

func newMembership(s *stats.Scope) *membership {
	s.Gauge("membership_excluded")
	return &membership{
		change: s.Counter("membership_change"), total: s.Gauge("membership_total"),
		healthy: s.Gauge("membership_healthy"), degraded: s.Gauge("membership_degraded"),
	}
}
