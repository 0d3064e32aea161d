package cluster

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// originalConfig is what an ORIGINAL_DST cluster is configured with.
type originalConfig struct {
	port    uint16        // upstream_port_override, 0: none
	header  string        // by which requests override the destination, "" for none
	cleanup time.Duration // cleanup_interval
}

// originals are the endpoints of an ORIGINAL_DST cluster by where clients wanted to
// go. They come with the first connection there and go when nothing has used them for
// a whole interval.
type originals struct {
	hosts sync.Map // netip.AddrPort → *host
	timer *time.Timer
}

// maxCleanup bounds cleanup_interval: the original sets it to three centuries, which
// would keep every address that a scan ever touched.
const maxCleanup = 5 * time.Minute

func (cfg *config) decodeOriginal(c *clusterv3.Cluster) error {
	o := c.GetOriginalDstLbConfig()
	if err := xds.Only(o, "upstream_port_override", "use_http_header", "http_header_name"); err != nil {
		return at("original_dst_lb_config", err)
	}
	if p := o.GetUpstreamPortOverride().GetValue(); p > 65535 {
		return fmt.Errorf("original_dst_lb_config.upstream_port_override: must be at most 65535, got %d", p)
	}
	cfg.original = originalConfig{
		port:    uint16(o.GetUpstreamPortOverride().GetValue()),
		cleanup: min(seconds(c.GetCleanupInterval(), 5*time.Second), maxCleanup),
	}
	if o.GetUseHttpHeader() {
		if cfg.original.header = strings.ToLower(o.GetHttpHeaderName()); cfg.original.header == "" {
			cfg.original.header = "x-envoy-original-dst-host"
		}
	}
	return nil
}

// OriginalDstHeader names the header by which requests say where to connect to (use_http_header),
// "" for none.
func (c *Cluster) OriginalDstHeader() string { return c.config.original.header }

func (c *Cluster) pickOriginal(x *lb.Context) *endpoint.Endpoint {
	dst := x.OriginalDst
	if !dst.IsValid() {
		return nil
	}
	if p := c.config.original.port; p != 0 {
		dst = netip.AddrPortFrom(dst.Addr(), p)
	}
	h := c.originalHost(dst)
	h.touch()
	return h.ep
}

func (c *Cluster) originalHost(dst netip.AddrPort) *host {
	if h, ok := c.original.hosts.Load(dst); ok {
		return h.(*host)
	}
	h := c.newHost(placed{member: &member{weight: 1}, address: dst.String()})
	if other, there := c.original.hosts.LoadOrStore(dst, h); there {
		return other.(*host)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.order = append(c.order, h)
	c.membershipChanged(1)
	if c.original.timer == nil && c.ctx.Err() == nil {
		c.original.timer = time.AfterFunc(c.config.original.cleanup, c.sweepOriginals)
	}
	return h
}

// takeUnused takes out the endpoints that were not used since it was called last, of
// clusters whose endpoints are made by their use. The caller holds mu, and closes them
// without it.
func (c *Cluster) takeUnused() (gone []*host) {
	kept := c.order[:0:0]
	for _, h := range c.order {
		if h.used.Swap(false) || h.ep.Active.Load() > 0 {
			kept = append(kept, h)
		} else {
			gone = append(gone, h)
		}
	}
	c.order = kept
	return gone
}

// sweepOriginals drops endpoints that were not used since the last sweep.
func (c *Cluster) sweepOriginals() {
	c.mu.Lock()
	gone := c.takeUnused()
	c.original.timer = nil
	if len(gone) > 0 {
		c.membershipChanged(1)
	}
	if len(c.order) > 0 && c.ctx.Err() == nil {
		c.original.timer = time.AfterFunc(c.config.original.cleanup, c.sweepOriginals)
	}
	c.mu.Unlock()
	for _, h := range gone {
		dst, err := netip.ParseAddrPort(h.ep.Address)
		if err == nil {
			c.original.hosts.CompareAndDelete(dst, any(h))
		}
		h.close()
	}
}
