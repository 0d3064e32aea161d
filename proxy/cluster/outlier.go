package cluster

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// outlierConfig is outlier_detection by consecutive failures.
type outlierConfig struct {
	limits     [3]uint32 // failures in a row by cause, 0: off
	enforce    [3]uint32 // percent of ejections that are carried out
	split      bool      // local origin failures count on their own
	interval   time.Duration
	base, most time.Duration
	maxPercent uint32
	always     bool // always_eject_one_host
}

// The causes of ejection.
const (
	any5xx = iota
	gateway
	localOrigin
)

var causeNames = [...]string{"consecutive_5xx", "consecutive_gateway_failure", "consecutive_local_origin_failure"}

// outlierState is what is known of one host.
type outlierState struct {
	inRow     [3]atomic.Uint32
	ejections int       // so far, less one for each quiet interval
	ejectedAt time.Time // while ejected
}

// outlierStats come into being with the first ejection.
type outlierStats struct {
	timer             *time.Timer
	ejected           int
	active            *stats.Gauge
	enforced          *stats.Counter
	overflow          *stats.Counter
	detected, carried [3]*stats.Counter
}

func (cfg *config) decodeOutlier(c *clusterv3.Cluster) error {
	o := c.GetOutlierDetection()
	if o == nil {
		return nil
	}
	if err := xds.Only(o, "consecutive_5xx", "interval", "base_ejection_time", "max_ejection_percent", "enforcing_consecutive_5xx",
		"enforcing_success_rate", "success_rate_minimum_hosts", "success_rate_request_volume", "success_rate_stdev_factor",
		"consecutive_gateway_failure", "enforcing_consecutive_gateway_failure", "split_external_local_origin_errors",
		"consecutive_local_origin_failure", "enforcing_consecutive_local_origin_failure", "enforcing_local_origin_success_rate",
		"failure_percentage_threshold", "enforcing_failure_percentage", "enforcing_failure_percentage_local_origin",
		"failure_percentage_minimum_hosts", "failure_percentage_request_volume", "max_ejection_time", "always_eject_one_host"); err != nil {
		return at("outlier_detection", err)
	}
	if number(o.GetEnforcingSuccessRate(), 100) > 0 {
		return fmt.Errorf("outlier_detection.enforcing_success_rate: ejection by success rate is not supported; set it to 0")
	}
	for field, v := range map[string]*wrapperspb.UInt32Value{
		"enforcing_failure_percentage":              o.GetEnforcingFailurePercentage(),
		"enforcing_failure_percentage_local_origin": o.GetEnforcingFailurePercentageLocalOrigin(),
	} {
		if v.GetValue() > 0 {
			return fmt.Errorf("outlier_detection.%s: not supported", field)
		}
	}
	if o.GetSplitExternalLocalOriginErrors() && number(o.GetEnforcingLocalOriginSuccessRate(), 100) > 0 {
		return fmt.Errorf("outlier_detection.enforcing_local_origin_success_rate: not supported; set it to 0")
	}
	cfg.outlier = &outlierConfig{
		limits: [3]uint32{number(o.GetConsecutive_5Xx(), 5), number(o.GetConsecutiveGatewayFailure(), 5), number(o.GetConsecutiveLocalOriginFailure(), 5)},
		enforce: [3]uint32{number(o.GetEnforcingConsecutive_5Xx(), 100), number(o.GetEnforcingConsecutiveGatewayFailure(), 0),
			number(o.GetEnforcingConsecutiveLocalOriginFailure(), 100)},
		split: o.GetSplitExternalLocalOriginErrors(), interval: seconds(o.GetInterval(), 10*time.Second),
		base: seconds(o.GetBaseEjectionTime(), 30*time.Second), most: seconds(o.GetMaxEjectionTime(), 300*time.Second),
		maxPercent: number(o.GetMaxEjectionPercent(), 10), always: o.GetAlwaysEjectOneHost().GetValue(),
	}
	cfg.outlier.most = max(cfg.outlier.most, cfg.outlier.base)
	return nil
}

func number(v *wrapperspb.UInt32Value, otherwise uint32) uint32 {
	if v == nil {
		return otherwise
	}
	return v.GetValue()
}

// Report tells outlier detection how ep answered a request: the HTTP status, 504 for a
// timeout, 503 for a reset. Failures to connect are noticed without it.
func (c *Cluster) Report(ep *endpoint.Endpoint, status int) {
	if c.config.outlier == nil {
		return
	}
	h := ep.Owner.(*host)
	h.note(any5xx, status >= 500)
	h.note(gateway, status >= 502 && status <= 504)
}

// connected notes the outcome of a connect, which without
// split_external_local_origin_errors counts as a status of 503. A success ends a row of
// failures of split counting only: otherwise answers tell, and for TCP streams Dial.
func (c *Cluster) connected(h *host, ok bool) {
	switch o := c.config.outlier; {
	case o == nil:
	case o.split:
		h.note(localOrigin, !ok)
	case !ok:
		c.Report(h.ep, 503)
	}
}

func (h *host) note(cause int, failed bool) {
	n, o := &h.outlier.inRow[cause], h.cluster.config.outlier
	if !failed {
		if n.Load() != 0 {
			n.Store(0)
		}
		return
	}
	if limit := o.limits[cause]; limit > 0 && n.Add(1) == limit {
		n.Store(0)
		h.cluster.eject(h, cause)
	}
}

// eject takes a host out of the balancing, unless too many are out already.
func (c *Cluster) eject(h *host, cause int) {
	o := c.config.outlier
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &c.outlier
	s.open(c.scope)
	if h.ep.Unhealthy.Load()&endpoint.FailedOutlier != 0 {
		return
	}
	s.detected[cause].Inc()
	if rand.Uint32N(100) >= o.enforce[cause] {
		return
	}
	fits := 100*(s.ejected+1) <= int(o.maxPercent)*len(c.order)
	if !fits && (s.ejected > 0 || !o.always) {
		s.overflow.Inc()
		return
	}
	s.carried[cause].Inc()
	s.enforced.Inc()
	s.ejected++
	s.active.Set(int64(s.ejected))
	h.outlier.ejections++
	h.outlier.ejectedAt = time.Now()
	h.ep.Unhealthy.Or(endpoint.FailedOutlier)
	c.rebuild()
	if s.timer == nil && c.ctx.Err() == nil {
		s.timer = time.AfterFunc(o.interval, c.sweepOutliers)
	}
}

func (s *outlierStats) open(scope *stats.Scope) {
	if s.enforced != nil || s.overflow != nil {
		return
	}
	scope = scope.Scope("outlier_detection")
	s.active, s.enforced, s.overflow = scope.Gauge("ejections_active"), scope.Counter("ejections_enforced_total"), scope.Counter("ejections_overflow")
	for i, name := range causeNames {
		s.detected[i], s.carried[i] = scope.Counter("ejections_detected_"+name), scope.Counter("ejections_enforced_"+name)
	}
}

// sweepOutliers lets hosts back in whose time is over: base_ejection_time times the
// number of their ejections. Each quiet interval takes one of these back.
func (c *Cluster) sweepOutliers() {
	o := c.config.outlier
	c.mu.Lock()
	defer c.mu.Unlock()
	busy, ejected := false, 0
	for _, h := range c.order {
		x := &h.outlier
		if h.ep.Unhealthy.Load()&endpoint.FailedOutlier == 0 {
			x.ejections = max(0, x.ejections-1)
			busy = busy || x.ejections > 0
			continue
		}
		if time.Since(x.ejectedAt) >= min(o.base*time.Duration(x.ejections), o.most) {
			h.ep.Unhealthy.And(^endpoint.FailedOutlier)
			busy = true
			continue
		}
		ejected++
	}
	c.outlier.ejected = ejected
	c.outlier.active.Set(int64(ejected))
	c.rebuild()
	c.outlier.timer = nil
	if (busy || ejected > 0) && c.ctx.Err() == nil {
		c.outlier.timer = time.AfterFunc(o.interval, c.sweepOutliers)
	}
}
