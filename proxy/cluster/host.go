package cluster

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
)

// maxNames bounds the pools of one endpoint that differ in their server name.
const maxNames = 64

// A host is what the cluster keeps beside an endpoint.
type host struct {
	cluster *Cluster
	ep      *endpoint.Endpoint
	socket  transport.ClientSocket
	pools   [2]atomic.Pointer[upstream.Pool] // by priority
	outlier outlierState
	used    atomic.Bool // since the last sweep (ORIGINAL_DST)

	mu     sync.Mutex
	byName map[named]*upstream.Pool // auto_sni
	closed bool
}

// named tells apart the pools of one endpoint.
type named struct {
	server   string
	priority int
}

// http is the pool of the host for a priority, made on first use.
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
	p := h.newPool(transport.Target{}, priority)
	pool.Store(p)
	return p
}

// httpFor is the pool of the host for one server name.
func (h *host) httpFor(name named) *upstream.Pool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if p := h.byName[name]; p != nil {
		return p
	}
	if h.byName == nil {
		h.byName = map[named]*upstream.Pool{}
	}
	for other, p := range h.byName {
		if len(h.byName) < maxNames {
			break
		}
		p.Close()
		delete(h.byName, other)
	}
	p := h.newPool(transport.Target{SNI: name.server, VerifySNI: h.cluster.config.http.autoSAN}, name.priority)
	h.byName[name] = p
	return p
}

// newPool makes a pool; after close it is one that keeps nothing idle. The caller holds mu.
func (h *host) newPool(t transport.Target, priority int) *upstream.Pool {
	c := h.cluster
	p := upstream.NewPool(h.ep, upstream.Options{
		Dial:                  func(ctx context.Context) (transport.Conn, error) { return h.connect(ctx, t) },
		ConnectTimeout:        c.config.connectTimeout,
		IdleTimeout:           c.config.http.idle,
		MaxConnectionDuration: c.config.http.maxAge,
		MaxRequestsPerConn:    c.config.http.maxRequests,
		PreserveCase:          c.config.http.preserveCase,
		Trailers:              c.config.http.trailers,
		Limits:                c.Limits(priority),
		Stats:                 c.Stats(),
	})
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
	raw, err := c.config.dialer.Dial(ctx, h.ep.Address, 0)
	var conn transport.Conn
	if err == nil {
		conn, err = h.socket.Connect(ctx, raw, t)
	}
	if err != nil {
		c.connected(h, false)
		return nil, err
	}
	c.connected(h, true)
	return conn, nil
}

// close ends the pools of an endpoint that is gone; exchanges in flight finish.
func (h *host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	h.each((*upstream.Pool).Close)
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
