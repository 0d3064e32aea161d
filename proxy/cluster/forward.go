package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
)

// Errors of Reach, beside those of the lookup and of the package dns.
var (
	ErrNoHost       = errors.New("empty host")
	ErrSubClusters  = errors.New("too many sub clusters")
	ErrWarming      = errors.New("the sub cluster is still warming")
	ErrNoSuchTarget = errors.New("unknown cluster")
)

// forwarding is the state of a dynamic forward proxy: its endpoints by the host that
// requests name. They come with the first request there, and go when nothing has used
// them for a while.
type forwarding struct {
	hosts sync.Map // "name:port" → *host
	cache *sharedCache
	timer *time.Timer

	subs map[string]time.Time // sub clusters by name, and when they were last asked for; under mu
}

// sharedCache is a DNS cache that clusters of the same cache name share.
type sharedCache struct {
	*dns.Cache
	key  string // its name and what it was made of
	uses int    // by clusters, under Clusters.mu
}

// Reach makes a dynamic forward proxy ready for a request for host ("name" or
// "name:port"): it resolves the name, or waits for its sub cluster, until done. Other
// clusters are ready.
func (cs *Clusters) Reach(cluster, host string, done <-chan struct{}) error {
	c := cs.Soon(cluster)
	switch {
	case c == nil:
		return ErrNoSuchTarget
	case c.config.kind != dynamicForward:
		return nil
	}
	name, port := c.destination(host)
	switch {
	case name == "":
		return ErrNoHost
	case c.config.forward.sub != nil:
		return c.subCluster(name, port, done)
	}
	_, err := c.forward.cache.Resolve(done, name)
	if errors.Is(err, dns.ErrBusy) {
		c.Stats().RqPendingOverflow.Inc()
	}
	return err
}

// destination splits a host; the port is that of the scheme where there is none.
func (c *Cluster) destination(host string) (name string, port uint16) {
	port = 80
	if len(c.sockets) > 0 && c.sockets[len(c.sockets)-1].socket.Secure() {
		port = 443
	}
	if h, p, err := net.SplitHostPort(host); err == nil {
		if n, err := strconv.ParseUint(p, 10, 16); err == nil && n > 0 {
			return lowered(h), uint16(n)
		}
		return lowered(h), port
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.String(), port
	}
	if len(host) > 2 && host[0] == '[' && host[len(host)-1] == ']' {
		host = host[1 : len(host)-1]
	}
	return lowered(host), port
}

// pickForward is the endpoint that the request's host names, nil when it was not resolved.
func (c *Cluster) pickForward(x *lb.Context) *endpoint.Endpoint {
	name, port := c.destination(string(x.Host))
	if c.config.forward.sub != nil {
		if sub := c.parent.Get(c.subName(name, port)); sub != nil {
			return sub.Pick(x)
		}
		return nil
	}
	found := c.forward.cache.Known(name)
	if len(found) == 0 {
		return nil
	}
	return c.forwardHost(name, port, found).ep
}

// forwardHost is the host of a name at its addresses; when these have changed a new one
// takes its place.
func (c *Cluster) forwardHost(name string, port uint16, found []netip.Addr) *host {
	key := net.JoinHostPort(name, strconv.Itoa(int(port)))
	addresses := addressesOf(found, port)
	if h, ok := c.forward.hosts.Load(key); ok {
		if h := h.(*host); h.ep.Address == addresses[0] && slices.Equal(h.ep.More, addresses[1:]) {
			h.touch()
			return h
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if v, ok := c.forward.hosts.Load(key); ok {
		h := v.(*host)
		if h.ep.Address == addresses[0] && slices.Equal(h.ep.More, addresses[1:]) {
			return h
		}
		c.order = slices.DeleteFunc(slices.Clone(c.order), func(o *host) bool { return o == h })
		go h.close() // it locks the host, not the cluster; exchanges in flight finish
	}
	h := c.newHost(placed{member: &member{weight: 1, hostname: key, more: addresses[1:]}, address: addresses[0]})
	h.touch()
	c.forward.hosts.Store(key, h)
	c.order = append(c.order, h)
	c.membershipChanged(1)
	c.armForward()
	return h
}

func addressesOf(found []netip.Addr, port uint16) []string {
	list := make([]string, len(found))
	for i, ip := range found {
		list[i] = netip.AddrPortFrom(ip, port).String()
	}
	return list
}

func (h *host) touch() {
	if !h.used.Load() { // avoid the write when it changes nothing
		h.used.Store(true)
	}
}

// armForward has unused endpoints looked for. The caller holds mu.
func (c *Cluster) armForward() {
	if c.forward.timer == nil && c.ctx.Err() == nil {
		c.forward.timer = time.AfterFunc(c.config.forward.ttl, c.sweepForward)
	}
}

// sweepForward drops endpoints and sub clusters that were not used since the last sweep.
func (c *Cluster) sweepForward() {
	c.mu.Lock()
	gone := c.takeUnused()
	for _, h := range gone {
		c.forward.hosts.CompareAndDelete(h.ep.Hostname, any(h))
	}
	var subs []string
	for name, used := range c.forward.subs {
		if time.Since(used) > c.config.forward.ttl {
			subs = append(subs, name)
			delete(c.forward.subs, name)
		}
	}
	c.forward.timer = nil
	if len(c.order)+len(c.forward.subs) > 0 {
		c.armForward()
	}
	if len(gone) > 0 {
		c.membershipChanged(1)
	}
	c.mu.Unlock()
	for _, h := range gone {
		h.close()
	}
	for _, name := range subs {
		c.parent.remove(name)
	}
}

// closeForward ends what a dynamic forward proxy has of its own.
func (c *Cluster) closeForward() {
	c.mu.Lock()
	subs := c.forward.subs
	c.forward.subs = nil
	c.mu.Unlock()
	for name := range subs {
		c.parent.remove(name)
	}
	if c.forward.cache != nil {
		c.parent.dropCache(c.forward.cache)
	}
}

// subName is the name of the cluster of one host, as Envoy calls it.
func (c *Cluster) subName(name string, port uint16) string {
	return "DFPCluster:" + net.JoinHostPort(name, strconv.Itoa(int(port)))
}

// subCluster makes the cluster of a host, unless it is there, and waits for it.
func (c *Cluster) subCluster(host string, port uint16, done <-chan struct{}) error {
	name := c.subName(host, port)
	c.mu.Lock()
	_, known := c.forward.subs[name]
	if !known && len(c.forward.subs) >= c.config.forward.maxSubs {
		c.mu.Unlock()
		return ErrSubClusters
	}
	if c.forward.subs == nil {
		c.forward.subs = map[string]time.Time{}
	}
	c.forward.subs[name] = time.Now()
	c.armForward()
	c.mu.Unlock()
	if !known {
		sub, err := c.parent.build(c.config.forward.subProto(name, host, port), false)
		if err != nil {
			return err
		}
		c.parent.adopt(sub)
	}
	if c.parent.Get(name) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, warmPatience)
	defer cancel()
	defer context.AfterFunc(ctx, cancel)()
	go func() {
		select {
		case <-done:
			cancel()
		case <-ctx.Done():
		}
	}()
	if _, err := c.parent.await(ctx, name); err != nil {
		return ErrWarming
	}
	return nil
}
