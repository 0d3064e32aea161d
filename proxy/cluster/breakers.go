package cluster

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// breakers are the circuit breakers by priority. They outlive updates of a cluster,
// so that what is in use stays counted.
type breakers struct {
	mu     sync.Mutex
	limits [2]atomic.Pointer[upstream.Limits]
}

func (cfg *config) decodeBreakers(c *clusterv3.Cluster) error {
	cfg.thresholds = [2]upstream.Thresholds{upstream.DefaultThresholds, upstream.DefaultThresholds}
	if err := xds.Only(c.GetCircuitBreakers(), "thresholds", "per_host_thresholds"); err != nil {
		return at("circuit_breakers", err)
	}
	for i, t := range c.GetCircuitBreakers().GetThresholds() {
		if err := cfg.threshold(t); err != nil {
			return at(fmt.Sprintf("circuit_breakers.thresholds[%d]", i), err)
		}
	}
	for i, t := range c.GetCircuitBreakers().GetPerHostThresholds() {
		err := xds.Only(t, "priority", "max_connections")
		if err == nil && t.GetPriority() > corev3.RoutingPriority_HIGH {
			err = fmt.Errorf("priority: unknown value %d", t.GetPriority())
		}
		if err != nil {
			return at(fmt.Sprintf("circuit_breakers.per_host_thresholds[%d]", i), err)
		}
		if v := t.GetMaxConnections(); v != nil {
			cfg.perHost[t.GetPriority()] = max(1, v.GetValue())
		}
	}
	return nil
}

func (cfg *config) threshold(t *clusterv3.CircuitBreakers_Thresholds) error {
	if err := xds.Only(t, "priority", "max_connections", "max_pending_requests", "max_requests", "max_retries", "track_remaining",
		"retry_budget", "max_connection_pools"); err != nil {
		return err
	}
	if t.GetPriority() > corev3.RoutingPriority_HIGH {
		return fmt.Errorf("priority: unknown value %d", t.GetPriority())
	}
	d := upstream.DefaultThresholds
	cfg.thresholds[t.GetPriority()] = upstream.Thresholds{
		Connections: number(t.GetMaxConnections(), d.Connections), Pending: number(t.GetMaxPendingRequests(), d.Pending),
		Requests: number(t.GetMaxRequests(), d.Requests), Retries: number(t.GetMaxRetries(), d.Retries),
		Pools: number(t.GetMaxConnectionPools(), d.Pools), TrackRemaining: t.GetTrackRemaining(),
	}
	if b := t.GetRetryBudget(); b != nil {
		out := upstream.RetryBudget{Percent: 20, Least: number(b.GetMinRetryConcurrency(), 3)}
		if p := b.GetBudgetPercent(); p != nil {
			out.Percent = p.GetValue()
		}
		cfg.thresholds[t.GetPriority()].Budget = &out
	}
	return nil
}

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
		t := c.thresholdsNow()[priority]
		t.TrackRemaining = t.TrackRemaining || priority == 0 // users look for them, and they cost nothing until then
		l = upstream.NewLimits(t, c.scope.Scope("circuit_breakers").Scope(name))
		c.limits.limits[priority].Store(l)
	}
	return l
}

// thresholdsNow are those of the configuration, but for what the runtime has.
func (c *Cluster) thresholdsNow() [2]upstream.Thresholds {
	values, now := c.parent.opts.Runtime, c.config.thresholds
	for i := range now {
		t, prefix := &now[i], "circuit_breakers."+c.Name()+"."+[...]string{"default", "high"}[i]+"."
		for name, limit := range map[string]*uint32{
			"max_connections": &t.Connections, "max_pending_requests": &t.Pending, "max_requests": &t.Requests,
			"max_retries": &t.Retries, "max_connection_pools": &t.Pools,
		} {
			*limit = uint32(min(values.Whole(prefix+name, uint64(*limit)), math.MaxUint32))
		}
		if t.Budget != nil {
			t.Budget = &upstream.RetryBudget{
				Percent: values.Number(prefix+"retry_budget.budget_percent", t.Budget.Percent),
				Least:   uint32(min(values.Whole(prefix+"retry_budget.min_retry_concurrency", uint64(t.Budget.Least)), math.MaxUint32)),
			}
		}
	}
	return now
}

// takeRuntime gives the limits of all clusters the maxima that hold now.
func (cs *Clusters) takeRuntime() {
	for _, c := range cs.live.all() {
		c.limits.setMax(c.thresholdsNow())
	}
}

// setMax gives limits that are in use already the maxima of a new configuration.
func (b *breakers) setMax(thresholds [2]upstream.Thresholds) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i, t := range thresholds {
		if l := b.limits[i].Load(); l != nil {
			l.Set(t)
		}
	}
}
