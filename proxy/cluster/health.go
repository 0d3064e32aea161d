package cluster

import (
	"context"
	"fmt"
	"sync/atomic"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/health"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// healthConfig is what a resource says of active health checks.
type healthConfig struct {
	plan           *health.Plan // nil: there are none
	dropRemoved    bool         // ignore_health_on_host_removal
	closeOnFailure bool         // close_connections_on_host_health_failure
}

// checking is a cluster's health checks at work.
type checking struct {
	checker *health.Checker // nil: there are none
	used    atomic.Bool     // the cluster has had a connection
}

// checkConfig is health_check_config of an endpoint.
type checkConfig struct {
	address  string // host or path, "" for the endpoint's
	port     uint16
	hostname string
	off      bool
}

func (cfg *config) decodeHealth(c *clusterv3.Cluster) (err error) {
	cfg.health.dropRemoved, cfg.health.closeOnFailure = c.GetIgnoreHealthOnHostRemoval(), c.GetCloseConnectionsOnHostHealthFailure()
	for _, pb := range c.GetHealthChecks() {
		if pb.GetGrpcHealthCheck() != nil && cfg.http.version == upstream.HTTP1 {
			return fmt.Errorf("%s cluster must support HTTP/2 for gRPC healthchecking", cfg.name)
		}
	}
	cfg.health.plan, err = health.Compile(c.GetHealthChecks())
	return err
}

func decodeCheck(pb *endpointv3.Endpoint_HealthCheckConfig) (k checkConfig, err error) {
	if err := xds.Only(pb, "port_value", "hostname", "address", "disable_active_health_check"); err != nil {
		return k, err
	}
	if pb.GetPortValue() > 65535 {
		return k, fmt.Errorf("port_value: must be at most 65535, got %d", pb.GetPortValue())
	}
	k = checkConfig{port: uint16(pb.GetPortValue()), hostname: pb.GetHostname(), off: pb.GetDisableActiveHealthCheck()}
	if pb.GetAddress() == nil {
		return k, nil
	}
	var m member
	if err := m.decodeAddress(pb.GetAddress(), true); err != nil {
		return k, at("address", err)
	}
	k.address = m.address(m.host)
	return k, nil
}

// startChecks makes the checker of the cluster, which is live when each of its hosts has
// been checked once.
func (c *Cluster) startChecks() {
	if c.config.health.plan == nil {
		return
	}
	c.checking.checker = c.config.health.plan.Start(health.Env{
		Cluster: c.Name(), Stats: c.scope, Connect: c.connectCheck, Used: c.everUsed, Checked: c.checked,
	})
	c.await(c.checking.checker.Ready())
}

// checkHosts tells the checker which hosts there are. The caller holds mu.
func (c *Cluster) checkHosts(fresh []*host) {
	if c.checking.checker == nil {
		return
	}
	if c.config.ignoreNew {
		for _, h := range fresh {
			if !h.check.off {
				h.ep.Unhealthy.Or(endpoint.PendingActive)
			}
		}
	}
	list := make([]health.Host, len(c.order))
	for i, h := range c.order {
		list[i] = health.Host{Endpoint: h.ep, Address: h.check.address, Port: h.check.port, Hostname: h.check.hostname, Unchecked: h.check.off, Well: h.wasWell}
	}
	c.checking.checker.Set(list)
}

// keepsRemoved reports that a host that is not assigned any more stays because its checks
// pass: service discovery may be wrong about it.
func (c *Cluster) keepsRemoved(h *host) bool {
	if c.checking.checker == nil || c.config.health.dropRemoved || c.config.kind != eds && c.config.kind != strictDNS {
		return false
	}
	return !h.check.off && h.ep.Unhealthy.Load()&(endpoint.FailedActiveHealth|endpoint.FailedEDSHealth) == 0
}

// checked takes in the result of a check.
func (c *Cluster) checked(ep *endpoint.Endpoint, passed, changed bool) {
	h := ep.Owner.(*host)
	if passed {
		c.healed(h)
	}
	if !changed {
		return
	}
	c.mu.Lock()
	flags := ep.Unhealthy.Load()
	failed := flags&endpoint.FailedActiveHealth != 0
	gone := failed && flags&endpoint.PendingRemoval != 0 && c.dropHost(h)
	c.rebuild()
	c.mu.Unlock()
	switch {
	case gone:
		h.close()
	case failed:
		h.fail()
	}
}

// dropHost takes out a host that only its checks have held. The caller holds mu.
func (c *Cluster) dropHost(h *host) bool {
	for id, other := range c.hosts {
		if other == h {
			delete(c.hosts, id)
			order := c.order[:0:0]
			for _, o := range c.order {
				if o != h {
					order = append(order, o)
				}
			}
			c.order = order
			c.checkHosts(nil)
			return true
		}
	}
	return false
}

// connectCheck connects to a host for a health check.
func (c *Cluster) connectCheck(ctx context.Context, ep *endpoint.Endpoint, address string, w health.Way) (transport.Conn, error) {
	socket := ep.Owner.(*host).transport()
	if w.Criteria != nil {
		socket = c.socketFor(map[string]map[string]any{matchKey: w.Criteria}, nil)
	}
	raw, err := c.config.dialer.Dial(ctx, address, c.config.connectTimeout)
	if err != nil {
		return nil, err
	}
	return socket.Connect(ctx, raw, transport.Target{ALPN: w.ALPN})
}

// everUsed reports that the cluster has had a connection for traffic.
func (c *Cluster) everUsed() bool {
	if c.checking.used.Load() {
		return true
	}
	for _, ep := range c.Endpoints() {
		if ep.Connects.Load() > 0 {
			c.checking.used.Store(true)
			return true
		}
	}
	return false
}

// Refuse notes that an answer of ep asked for no more requests
// (x-envoy-immediate-health-check-fail). Without health checks it means nothing.
func (c *Cluster) Refuse(ep *endpoint.Endpoint) {
	if c.checking.checker != nil {
		c.checking.checker.Refuse(ep)
	}
}

// endChecks ends them and waits until they have ended.
func (c *Cluster) endChecks() {
	if c.checking.checker != nil {
		c.checking.checker.Close()
	}
}
