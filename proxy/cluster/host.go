package cluster

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// maxNames bounds the pools of one endpoint that differ in their server name, maxClients those
// that differ in the client of whom the endpoint is told.
const (
	maxNames   = 64
	maxClients = 1024
)

// A host is what the cluster keeps beside an endpoint.
type host struct {
	cluster  *Cluster
	ep       *endpoint.Endpoint
	socket   atomic.Pointer[transport.ClientSocket] // by the metadata
	locality map[string]map[string]any              // metadata of the locality, under the cluster's mu
	pools    [2]atomic.Pointer[upstream.Pool]       // by priority
	outlier  outlierState
	check    checkConfig
	wasWell  bool        // before its configuration changed
	used     atomic.Bool // since the last sweep (ORIGINAL_DST)

	mu       sync.Mutex
	streams  map[*counted]bool        // of TCP, where they end with the host's health
	byName   map[named]*upstream.Pool // auto_sni
	closed   bool
	returned bool // its pools are no longer counted
}

// named tells apart the pools of one endpoint that are not its common ones.
type named struct {
	priority int
	version  upstream.Version
	server   string
	alpn     string // protocols, joined by commas
	// from and to are what the endpoint is told of the client; invalid: nothing.
	from, to netip.AddrPort
}

// http is the common pool of the host for a priority, made on first use; nil when there
// are too many (max_connection_pools).
func (h *host) http(priority int) *upstream.Pool {
	pool := &h.pools[priority]
	if p := pool.Load(); p != nil {
		return p
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := pool.Load(); p != nil {
		return p
	}
	if !h.mayPool(priority) {
		return nil
	}
	name := named{priority: priority, version: h.cluster.config.http.version}
	p := h.newPool(name, h.target(name, nil))
	pool.Store(p)
	return p
}

// httpFor is the pool of the host for one name. The first request says what else is told of
// the client.
func (h *host) httpFor(name named, w *upstream.Wish) *upstream.Pool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.byName[name]; p != nil {
		return p
	}
	if h.byName == nil {
		h.byName = map[named]*upstream.Pool{}
	}
	most := maxNames
	if name.from.IsValid() {
		most = maxClients
	}
	for len(h.byName) >= most {
		h.evict()
	}
	if !h.mayPool(name.priority) {
		return nil
	}
	p := h.newPool(name, h.target(name, w))
	h.byName[name] = p
	return p
}

// offers are the ALPN protocols of each version, for TLS that configures none.
var offers = [...][]string{upstream.HTTP1: {"http/1.1"}, upstream.HTTP2: {"h2"}, upstream.ALPN: {"h2", "http/1.1"}}

// target is what a connection of a pool asks of its socket; w is nil for the common ones.
func (h *host) target(name named, w *upstream.Wish) transport.Target {
	t := transport.Target{SNI: name.server, VerifySNI: name.server != "" && (h.cluster.config.http.autoSAN || h.cluster.config.kind == dynamicForward), Fallback: offers[name.version]}
	if name.alpn != "" {
		t.ALPN = strings.Split(name.alpn, ",")
	}
	if name.from.IsValid() {
		t.Proxied = w.Proxied()
	}
	return t
}

// newPool makes a pool; after close it is one that keeps nothing idle. The caller holds mu.
func (h *host) newPool(name named, t transport.Target) *upstream.Pool {
	c := h.cluster
	o := upstream.Options{
		Dial:                  func(ctx context.Context) (transport.Conn, error) { return h.connect(ctx, t) },
		ConnectTimeout:        c.config.connectTimeout,
		IdleTimeout:           c.config.http.idle,
		MaxConnectionDuration: c.config.http.maxAge,
		MaxRequestsPerConn:    c.config.http.maxRequests,
		MaxConnections:        c.config.perHost[min(name.priority, 1)],
		Version:               name.version,
		HTTP2:                 http2.ClientOptions{Options: c.config.http.http2},
		HTTP1:                 c.config.http.http1,
		Limits:                c.Limits(name.priority),
		Stats:                 c.Stats(),
	}
	if name.version != upstream.HTTP1 {
		o.HTTP2.Stats = c.codec()
	}
	p := upstream.NewPool(h.ep, o)
	if h.closed {
		p.Close()
	}
	return p
}

// connect dials the endpoint and sets up its transport socket, within connect_timeout.
func (h *host) connect(ctx context.Context, t transport.Target) (transport.Conn, error) {
	c := h.cluster
	ctx, cancel := context.WithTimeout(ctx, c.config.connectTimeout)
	defer cancel()
	raw, err := h.dial(ctx)
	var conn transport.Conn
	if err == nil {
		t.Host = h.ep.Hostname
		conn, err = h.transport().Connect(ctx, raw, t)
	}
	if err != nil {
		c.connected(h, false)
		return nil, err
	}
	c.connected(h, true)
	return c.exchanged(conn), nil
}

// transport is the transport socket of connections that begin now.
func (h *host) transport() transport.ClientSocket { return *h.socket.Load() }

// close ends the pools of an endpoint that is gone; exchanges in flight finish.
func (h *host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.each((*upstream.Pool).Close)
	h.giveBack()
}

// fail ends idle connections to a host that has failed, the others after their exchange;
// those of TCP streams too where the cluster says so (close_connections_on_host_health_failure).
func (h *host) fail() {
	h.drain()
	h.mu.Lock()
	streams := slices.Collect(maps.Keys(h.streams))
	h.mu.Unlock()
	for _, s := range streams {
		_ = s.Reset() // it is to go either way
	}
}

// track notes a TCP stream that is to end with the host's health.
func (h *host) track(s *counted, there bool) {
	if !h.cluster.config.health.closeOnFailure {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.streams == nil {
		h.streams = map[*counted]bool{}
	}
	if there {
		h.streams[s] = true
	} else {
		delete(h.streams, s)
	}
}

func (h *host) drain() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.each((*upstream.Pool).Drain)
}

// each does f to every pool. The caller holds mu.
func (h *host) each(f func(*upstream.Pool)) {
	for i := range h.pools {
		if p := h.pools[i].Load(); p != nil {
			f(p)
		}
	}
	for _, p := range h.byName {
		f(p)
	}
}
