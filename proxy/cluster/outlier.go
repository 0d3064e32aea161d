package cluster

import (
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// outlierState is what is known of one host. The atomics are of streams; the rest is
// under the cluster's mu.
type outlierState struct {
	inRow           [3]atomic.Uint32
	external, local tally

	ejections  int // the multiple of base_ejection_time; each quiet interval takes one back
	ejectedAt  time.Time
	returnedAt time.Time // when the last ejection ended
	extra      time.Duration
}

// tally counts the requests of the present interval.
type tally struct{ total, good atomic.Uint64 }

func (t *tally) add(good bool) {
	t.total.Add(1)
	if good {
		t.good.Add(1)
	}
}

// outliers is the detection of one cluster.
type outliers struct {
	running atomic.Bool // the timer is armed
	timer   *time.Timer
	ejected int
	leaving []*host // ejected just now
	rates   *Rates  // of the last interval, replaced whole; nil: there was none

	active                        *stats.Gauge
	enforced, overflow            *stats.Counter
	total, consecutive, bySuccess *stats.Counter // older names
	detected, carried             [causes]*stats.Counter
	touched                       bool // there are counters
}

// Report tells outlier detection that ep answered a request with an HTTP status.
func (c *Cluster) Report(ep *endpoint.Endpoint, status int) {
	h := ep.Owner.(*host)
	if c = h.cluster; c.config.outlier == nil {
		return
	}
	c.watch()
	if c.config.outlier.split {
		h.reached()
	}
	h.answered(status)
}

// ReportFailure tells outlier detection that a request to ep got no answer: its time was
// over, or the connection broke. Failures to connect are noticed without it.
func (c *Cluster) ReportFailure(ep *endpoint.Endpoint, timeout bool) {
	h := ep.Owner.(*host)
	if c = h.cluster; c.config.outlier == nil {
		return
	}
	c.watch()
	switch {
	case c.config.outlier.split: // it was connected, and then it failed
		h.reached()
		h.unreached()
	case timeout:
		h.answered(504)
	default:
		h.answered(503)
	}
}

// connected notes the outcome of a connect, which without
// split_external_local_origin_errors counts as a status of 503. A success says nothing
// yet: answers tell, and for TCP streams Dial.
func (c *Cluster) connected(h *host, ok bool) {
	if ok || c.config.outlier == nil {
		return
	}
	c.watch()
	if c.config.outlier.split {
		h.unreached()
		return
	}
	h.answered(503)
}

// opened notes that a TCP stream has its connection, more of which nobody will tell.
func (c *Cluster) opened(h *host) {
	if c.config.outlier == nil {
		return
	}
	c.watch()
	if c.config.outlier.split {
		h.reached()
		return
	}
	h.answered(200)
}

func (h *host) answered(status int) {
	failed := status >= 500
	h.outlier.external.add(!failed)
	h.note(gateway, status >= 502 && status <= 504)
	h.note(any5xx, failed)
}

func (h *host) reached() {
	h.outlier.local.add(true)
	h.note(localOrigin, false)
}

func (h *host) unreached() {
	h.outlier.local.add(false)
	h.note(localOrigin, true)
}

// note lengthens or ends a row of failures.
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
		h.cluster.suspect(h, cause)
	}
}

// watch has intervals pass as long as there is traffic or somebody is ejected.
func (c *Cluster) watch() {
	if c.outlier.running.Load() {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() == nil && !c.outlier.running.Swap(true) {
		c.outlier.timer = time.AfterFunc(c.config.outlier.interval, c.interval)
	}
}

// suspect ejects a host for a row of failures.
func (c *Cluster) suspect(h *host, cause int) {
	c.mu.Lock()
	defer c.unlock()
	if c.eject(h, cause) {
		c.rebuild()
	}
}

// unlock gives back mu and then ends connections of those that were ejected under it.
func (c *Cluster) unlock() {
	leaving := c.outlier.leaving
	c.outlier.leaving = nil
	c.mu.Unlock()
	for _, h := range leaving {
		h.fail()
	}
}

// eject takes a host out of the balancing, unless too many are out already. The caller
// holds mu, rebuilds when it is true, and gives mu back by unlock.
func (c *Cluster) eject(h *host, cause int) bool {
	o, s := c.config.outlier, &c.outlier
	if h.ep.Unhealthy.Load()&endpoint.FailedOutlier != 0 {
		return false
	}
	s.open(c.scope)
	s.detected[cause].Inc()
	switch cause {
	case any5xx:
		s.consecutive.Inc()
	case successRate:
		s.bySuccess.Inc()
	}
	fits := 100*(s.ejected+1) <= int(min(o.maxPercent, 100))*len(c.order)
	if !fits && (s.ejected > 0 || !o.always) {
		s.overflow.Inc()
		return false
	}
	if cause == any5xx || cause == successRate {
		s.total.Inc()
	}
	if rand.Uint32N(100) >= o.enforce[cause] {
		return false
	}
	s.carried[cause].Inc()
	s.enforced.Inc()
	s.ejected++
	s.active.Set(int64(s.ejected))
	x := &h.outlier
	x.ejectedAt = time.Now()
	if time.Duration(x.ejections)*o.base < o.most+o.base {
		x.ejections++
	}
	if o.jitter > 0 {
		x.extra = rand.N(o.jitter)
	}
	h.ep.Unhealthy.Or(endpoint.FailedOutlier)
	c.outlier.leaving = append(c.outlier.leaving, h)
	return true
}

// readmit ends the ejection of a host. The caller holds mu.
func (c *Cluster) readmit(h *host) {
	h.ep.Unhealthy.And(^endpoint.FailedOutlier)
	for i := range h.outlier.inRow {
		h.outlier.inRow[i].Store(0)
	}
	h.outlier.returnedAt = time.Now()
	c.outlier.ejected--
	c.outlier.active.Set(int64(c.outlier.ejected))
}

// healed ends the ejection of a host that has passed a health check.
func (c *Cluster) healed(h *host) {
	if o := c.config.outlier; o == nil || !o.healed {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.ep.Unhealthy.Load()&endpoint.FailedOutlier != 0 {
		c.readmit(h)
		c.rebuild()
	}
}

func (s *outliers) open(scope *stats.Scope) {
	if s.touched {
		return
	}
	s.touched = true
	scope = scope.Scope("outlier_detection")
	s.active, s.enforced, s.overflow = scope.Gauge("ejections_active"), scope.Counter("ejections_enforced_total"), scope.Counter("ejections_overflow")
	s.total, s.consecutive, s.bySuccess = scope.Counter("ejections_total"), scope.Counter("ejections_consecutive_5xx"), scope.Counter("ejections_success_rate")
	scope.Counter("ejections_detected_degradation") // which nothing here detects
	for i, name := range causeNames {
		s.detected[i], s.carried[i] = scope.Counter("ejections_detected_"+name), scope.Counter("ejections_enforced_"+name)
	}
}

// interval lets hosts back in whose time is over, judges the others by the rates of the
// interval that has passed, and forgets one ejection of those that were quiet in it.
func (c *Cluster) interval() {
	o := c.config.outlier
	c.mu.Lock()
	defer c.unlock()
	changed, busy := c.readmitAll(), false
	judged := c.judge(&busy)
	now := time.Now()
	for _, h := range c.order {
		x := &h.outlier
		if h.ep.Unhealthy.Load()&endpoint.FailedOutlier != 0 {
			busy = true
			continue
		}
		if x.ejections > 0 && now.Sub(x.returnedAt) >= o.interval {
			x.ejections--
		}
		busy = busy || x.ejections > 0
	}
	if changed || judged {
		c.rebuild()
	}
	c.outlier.running.Store(false)
	if busy && c.ctx.Err() == nil {
		c.outlier.running.Store(true)
		c.outlier.timer = time.AfterFunc(o.interval, c.interval)
	}
}

// readmitAll ends the ejections that are over: base_ejection_time times the number of
// them, at most max_ejection_time. The caller holds mu.
func (c *Cluster) readmitAll() (changed bool) {
	o := c.config.outlier
	for _, h := range c.order {
		if h.ep.Unhealthy.Load()&endpoint.FailedOutlier == 0 {
			continue
		}
		x := &h.outlier
		if time.Since(x.ejectedAt) >= min(o.base*time.Duration(x.ejections), o.most)+x.extra {
			c.readmit(h)
			changed = true
		}
	}
	return changed
}
