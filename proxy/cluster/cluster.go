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
// error that names the field.
//
// An aggregate has no endpoints of its own: it chooses among those of others, whose pools
// and circuit breakers count. A dynamic forward proxy has those that requests name, found
// by DNS when they are first asked for (Reach).
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
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/transport"
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
	sockets  []matched
	tells    bool // some of sockets tell for whom a connection is made
	balancer atomic.Pointer[lb.Balancer]
	shed     atomic.Uint32 // of a million requests
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
	weightedHealth   bool
	membership       *membership
	original         originals
	targets          []*target
	warmed           bool // every DNS target has had an answer
	checking         checking
	outlier          outliers
	forward          forwarding
	changes          uint64      // of the set of endpoints
	stale            *time.Timer // until the assignment is too old

	once      sync.Once
	stats     *upstream.Stats
	codecOnce sync.Once
	codecs    *http2.Stats
	limits    *breakers
	lbStats   *lb.Stats
	combined  atomic.Pointer[combination] // of an aggregate
}

// membership are the gauges of the endpoint set.
type membership struct {
	change                   *stats.Counter
	total, healthy, degraded *stats.Gauge
	excluded, heaviest       *stats.Gauge
}

// Name is the cluster's name.
func (c *Cluster) Name() string { return c.config.name }

// Pick chooses an endpoint, nil when none may take traffic (UH).
func (c *Cluster) Pick(x *lb.Context) *endpoint.Endpoint {
	switch c.config.kind {
	case originalDst:
		return c.pickOriginal(x)
	case dynamicForward:
		return c.pickForward(x)
	case aggregate:
		return c.combine().Pick(x)
	}
	if b := c.balancer.Load(); b != nil {
		return (*b).Pick(x)
	}
	return nil
}

// HTTP is the pool of HTTP connections to ep, an endpoint of this cluster, for requests
// of that kind, made on first use. It takes no lock after that unless the request is to
// have connections that others may not use.
func (c *Cluster) HTTP(ep *endpoint.Endpoint, w upstream.Wish) *upstream.Pool {
	h := ep.Owner.(*host)
	c = h.cluster // another one, of an aggregate
	if !c.config.http.particular() && !c.tells && w.State == nil && c.config.kind != dynamicForward {
		return h.http(w.Priority)
	}
	name := c.named(h, &w)
	if name == (named{priority: w.Priority, version: c.config.http.version}) {
		return h.http(w.Priority)
	}
	return h.httpFor(name, &w)
}

// named tells which pool of a host a request goes to.
func (c *Cluster) named(h *host, w *upstream.Wish) named {
	name := named{priority: w.Priority, version: c.config.http.version}
	if c.config.http.follow {
		name.version = upstream.HTTP1
		if w.Client == http.HTTP2 {
			name.version = upstream.HTTP2
		}
	}
	socket := h.transport()
	if _, ok := socket.(transport.Teller); ok {
		if p := w.Proxied(); p != nil {
			name.from, name.to = p.From, p.To
		}
	}
	if !socket.Secure() {
		return name
	}
	if w.ALPN != "" {
		name.alpn = w.ALPN
	} else if alpn, ok := w.State[upstream.ALPNKey].([]string); ok {
		name.alpn = strings.Join(alpn, ",")
	}
	if server, ok := w.State[upstream.NameKey].(string); ok {
		name.server = server
	} else if c.config.kind == dynamicForward {
		name.server = serverName(h.ep.Hostname)
	} else if c.config.http.autoSNI {
		name.server = serverName(string(w.Authority))
	}
	return name
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
func (c *Cluster) Secure(ep *endpoint.Endpoint) bool { return ep.Owner.(*host).transport().Secure() }

// Stats are the cluster's upstream stats, made on first use.
func (c *Cluster) Stats() *upstream.Stats {
	c.once.Do(func() {
		c.stats = upstream.NewStats(c.scope)
		c.Limits(0)
		c.Limits(1) // its gauges are shown, whether or not such a request has come
		c.mu.Lock()
		defer c.mu.Unlock()
		c.membership = newMembership(c.scope)
		c.membership.change.Add(c.changes)
		c.showMembership()
		c.lbStats.Open()
		if c.config.outlier != nil {
			c.outlier.open(c.scope)
		}
		for _, name := range atRest {
			c.scope.Counter(name)
		}
	})
	return c.stats
}

// atRest are further counters of a cluster that is used: monitoring finds them before
// something happens that they count.
var atRest = [...]string{
	"assignment_stale", "assignment_timeout_received", "assignment_use_cached", "bind_errors", "original_dst_host_invalid",
	"update_attempt", "update_empty", "update_failure", "update_no_rebuild", "update_rejected", "update_success",
	"upstream_internal_redirect_failed_total", "upstream_internal_redirect_succeeded_total",
}

// codec are the stats of the cluster's HTTP/2 connections, made on first use.
func (c *Cluster) codec() *http2.Stats {
	c.codecOnce.Do(func() { c.codecs = http2.NewStats(c.scope) })
	return c.codecs
}

func newMembership(s *stats.Scope) *membership {
	return &membership{
		heaviest: s.Gauge("max_host_weight"), excluded: s.Gauge("membership_excluded"), change: s.Counter("membership_change"), total: s.Gauge("membership_total"),
		healthy: s.Gauge("membership_healthy"), degraded: s.Gauge("membership_degraded"),
	}
}
