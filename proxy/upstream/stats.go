package upstream

import (
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// Stats are the "cluster.<name>.upstream_…" stats of one cluster, named as Envoy
// names them. Pools keep those of connections and pending requests, the router
// those of requests, the TCP proxy uses the connection ones.
type Stats struct {
	CxTotal, CxHTTP1, CxHTTP2, CxConnectFail, CxConnectTimeout, CxIdleTimeout, CxConnectAttemptsExceeded *stats.Counter
	CxOverflow, CxPoolOverflow, CxDestroy, CxDestroyLocal, CxDestroyRemote                               *stats.Counter
	CxDestroyWithActive, CxDestroyLocalWithActive, CxDestroyRemoteWithActive                             *stats.Counter
	CxMaxRequests, CxMaxDuration, CxNoneHealthy, CxProtocolError, CxCloseNotify, CxRxBytes, CxTxBytes    *stats.Counter
	CxActive, CxRxBuffered, CxTxBuffered                                                                 *stats.Gauge
	CxConnectMs, CxLengthMs                                                                              *stats.Histogram

	RqTotal, RqPendingTotal, RqPendingOverflow, RqPendingFailure, RqCancelled, RqMaintenance *stats.Counter
	RqTimeout, RqMaxDuration, RqPerTryTimeout, RqPerTryIdleTimeout, RqRxReset, RqTxReset     *stats.Counter
	RqRetry, RqRetrySuccess, RqRetryOverflow, RqRetryLimitExceeded, RqRetryBackoff           *stats.Counter
	RqRetryRateLimited, RqActiveOverflow                                                     *stats.Counter
	RqCompleted                                                                              *stats.Counter
	RqActive, RqPendingActive                                                                *stats.Gauge
	RqTime                                                                                   *stats.Histogram
	RetryOrShadowAbandoned                                                                   *stats.Counter

	all, internal, external, retried codes
}

// NewStats returns the stats in scope, which is "cluster.<name>.".
func NewStats(scope *stats.Scope) *Stats {
	c, g, h := scope.Counter, scope.Gauge, scope.Histogram
	s := &Stats{
		CxTotal: c("upstream_cx_total"), CxHTTP1: c("upstream_cx_http1_total"), CxHTTP2: c("upstream_cx_http2_total"),
		CxConnectFail: c("upstream_cx_connect_fail"), CxConnectTimeout: c("upstream_cx_connect_timeout"), CxIdleTimeout: c("upstream_cx_idle_timeout"),
		CxConnectAttemptsExceeded: c("upstream_cx_connect_attempts_exceeded"),
		CxOverflow:                c("upstream_cx_overflow"), CxPoolOverflow: c("upstream_cx_pool_overflow"), CxDestroy: c("upstream_cx_destroy"),
		CxDestroyLocal: c("upstream_cx_destroy_local"), CxDestroyRemote: c("upstream_cx_destroy_remote"),
		CxDestroyWithActive: c("upstream_cx_destroy_with_active_rq"), CxDestroyLocalWithActive: c("upstream_cx_destroy_local_with_active_rq"),
		CxDestroyRemoteWithActive: c("upstream_cx_destroy_remote_with_active_rq"),
		CxMaxRequests:             c("upstream_cx_max_requests"), CxMaxDuration: c("upstream_cx_max_duration_reached"), CxNoneHealthy: c("upstream_cx_none_healthy"),
		CxProtocolError: c("upstream_cx_protocol_error"), CxCloseNotify: c("upstream_cx_close_notify"),
		CxRxBytes: c("upstream_cx_rx_bytes_total"), CxTxBytes: c("upstream_cx_tx_bytes_total"),
		CxActive: g("upstream_cx_active"), CxRxBuffered: g("upstream_cx_rx_bytes_buffered"), CxTxBuffered: g("upstream_cx_tx_bytes_buffered"),
		CxConnectMs: h("upstream_cx_connect_ms"), CxLengthMs: h("upstream_cx_length_ms"),
		RqTotal: c("upstream_rq_total"), RqPendingTotal: c("upstream_rq_pending_total"), RqPendingOverflow: c("upstream_rq_pending_overflow"),
		RqPendingFailure: c("upstream_rq_pending_failure_eject"), RqCancelled: c("upstream_rq_cancelled"), RqMaintenance: c("upstream_rq_maintenance_mode"),
		RqTimeout: c("upstream_rq_timeout"), RqMaxDuration: c("upstream_rq_max_duration_reached"), RqPerTryTimeout: c("upstream_rq_per_try_timeout"),
		RqPerTryIdleTimeout: c("upstream_rq_per_try_idle_timeout"), RqRxReset: c("upstream_rq_rx_reset"), RqTxReset: c("upstream_rq_tx_reset"),
		RqRetry: c("upstream_rq_retry"), RqRetrySuccess: c("upstream_rq_retry_success"), RqRetryOverflow: c("upstream_rq_retry_overflow"),
		RqRetryLimitExceeded: c("upstream_rq_retry_limit_exceeded"), RqRetryBackoff: c("upstream_rq_retry_backoff_exponential"),
		RqRetryRateLimited: c("upstream_rq_retry_backoff_ratelimited"), RqActiveOverflow: c("upstream_rq_active_overflow"),
		RqCompleted: c("upstream_rq_completed"), RqActive: g("upstream_rq_active"), RqPendingActive: g("upstream_rq_pending_active"),
		RqTime: h("upstream_rq_time"), RetryOrShadowAbandoned: c("retry_or_shadow_abandoned"),
	}
	s.all.scope, s.internal.scope, s.external.scope, s.retried.scope = scope, scope.Scope("internal"), scope.Scope("external"), scope.Scope("retry")
	return s
}

// CountCode counts a finished request under upstream_rq_<code>, upstream_rq_<class>xx
// and upstream_rq_completed, and the same below "internal." or "external.".
func (s *Stats) CountCode(code int, internal bool) {
	s.all.count(code)
	if internal {
		s.internal.count(code)
	} else {
		s.external.count(code)
	}
}

// CountRetried counts an answer that another attempt follows, below "retry.".
func (s *Stats) CountRetried(code int) { s.retried.count(code) }

// codes are counters by status; they come into being with the first such answer.
type codes struct {
	scope *stats.Scope
	seen  atomic.Pointer[[]codeCounter] // few, so a list; replaced whole
}

type codeCounter struct {
	code                  int
	one, class, completed *stats.Counter
}

var classNames = [...]string{1: "upstream_rq_1xx", "upstream_rq_2xx", "upstream_rq_3xx", "upstream_rq_4xx", "upstream_rq_5xx"}

func (c *codes) count(code int) {
	if code < 100 || code >= 600 {
		c.scope.Counter("upstream_rq_completed").Inc()
		return
	}
	n := c.find(code)
	n.one.Inc()
	n.class.Inc()
	n.completed.Inc()
}

func (c *codes) find(code int) codeCounter {
	for {
		old := c.seen.Load()
		var list []codeCounter
		if old != nil {
			list = *old
		}
		for i := range list {
			if list[i].code == code {
				return list[i]
			}
		}
		n := codeCounter{code, c.scope.Counter("upstream_rq_" + strconv.Itoa(code)), c.scope.Counter(classNames[code/100]), c.scope.Counter("upstream_rq_completed")}
		longer := append(slices.Clip(list), n)
		if c.seen.CompareAndSwap(old, &longer) {
			return n
		}
	}
}

// Counter is a counter of the cluster that a filter names, "ext_authz.ok".
func (s *Stats) Counter(name string) *stats.Counter { return s.all.scope.Counter(name) }

// OriginalDstInvalid counts a request whose header names no address to connect to.
func (s *Stats) OriginalDstInvalid() { s.all.scope.Counter("original_dst_host_invalid").Inc() }

// InternalRedirect counts a redirect that the proxy followed, or left to the client.
func (s *Stats) InternalRedirect(followed bool) {
	if followed {
		s.all.scope.Counter("upstream_internal_redirect_succeeded_total").Inc()
		return
	}
	s.all.scope.Counter("upstream_internal_redirect_failed_total").Inc()
}
