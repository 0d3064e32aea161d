package hcm

import "github.com/lateen-mesh/lateen/proxy/stats"

// counters are the stats "http.<stat_prefix>.…", named as Envoy names them.
type counters struct {
	cxTotal, cxHTTP1, cxHTTP2, cxSSL, cxDestroy, cxDestroyRemote, cxDestroyLocal   *stats.Counter
	cxDestroyActive, cxDestroyRemoteActive, cxDestroyLocalActive                   *stats.Counter
	cxProtocolError, cxDrainClose, cxIdleTimeout, cxMaxDuration, cxMaxRequests     *stats.Counter
	rqTotal, rqHTTP1, rqHTTP2, rqCompleted, rqTooLarge, rqRxReset, rqIdleTimeout   *stats.Counter
	rqTimeout, rqHeaderTimeout, rqMaxDuration, rqBeforeComplete, rqNonRelative     *stats.Counter
	rqFailedPath, rqRedirectedPath, rqWS, rqRejectedByIP, rqTxReset, upgradesTotal *stats.Counter
	http1Dropped, http1Underscored                                                 *stats.Counter // http1.…, of all connection managers
	rxBytes, txBytes                                                               *stats.Counter
	byClient, forced, sampled, notTraced                                           *stats.Counter    // tracing.…
	healthChecks                                                                   *stats.Counter    // tracing.health_check: requests that a filter took for such
	class, ofListener                                                              [6]*stats.Counter // by class; 0 is all that were completed
	cxActive, cxHTTP1Active, cxHTTP2Active, cxSSLActive, rqActive, upgradesActive  *stats.Gauge
	rqTime, cxLength                                                               *stats.Histogram
}

// newCounters makes the stats of a connection manager and those of its codec.
func newCounters(s, codec *stats.Scope) counters {
	c, g := s.Counter, s.Gauge
	n := counters{
		http1Dropped: codec.Counter("dropped_headers_with_underscores"), http1Underscored: codec.Counter("requests_rejected_with_underscores_in_headers"),
		cxTotal: c("downstream_cx_total"), cxHTTP1: c("downstream_cx_http1_total"), cxHTTP2: c("downstream_cx_http2_total"), cxHTTP2Active: g("downstream_cx_http2_active"), cxSSL: c("downstream_cx_ssl_total"),
		cxDestroy: c("downstream_cx_destroy"), cxDestroyRemote: c("downstream_cx_destroy_remote"), cxDestroyLocal: c("downstream_cx_destroy_local"),
		cxDestroyActive: c("downstream_cx_destroy_active_rq"), cxDestroyRemoteActive: c("downstream_cx_destroy_remote_active_rq"),
		cxDestroyLocalActive: c("downstream_cx_destroy_local_active_rq"), cxProtocolError: c("downstream_cx_protocol_error"),
		cxDrainClose: c("downstream_cx_drain_close"), cxIdleTimeout: c("downstream_cx_idle_timeout"), cxMaxDuration: c("downstream_cx_max_duration_reached"),
		rxBytes: c("downstream_cx_rx_bytes_total"), txBytes: c("downstream_cx_tx_bytes_total"),
		cxMaxRequests: c("downstream_cx_max_requests_reached"),
		rqTotal:       c("downstream_rq_total"), rqHTTP1: c("downstream_rq_http1_total"), rqHTTP2: c("downstream_rq_http2_total"), rqCompleted: c("downstream_rq_completed"),
		rqTooLarge: c("downstream_rq_too_large"), rqRxReset: c("downstream_rq_rx_reset"), rqIdleTimeout: c("downstream_rq_idle_timeout"),
		rqTimeout: c("downstream_rq_timeout"), rqHeaderTimeout: c("downstream_rq_header_timeout"), rqMaxDuration: c("downstream_rq_max_duration_reached"),
		rqBeforeComplete: c("downstream_rq_response_before_rq_complete"), rqNonRelative: c("downstream_rq_non_relative_path"),
		rqFailedPath: c("downstream_rq_failed_path_normalization"), rqRedirectedPath: c("downstream_rq_redirected_with_normalized_path"),
		rqWS: c("downstream_rq_ws_on_non_ws_route"), rqRejectedByIP: c("downstream_rq_rejected_via_ip_detection"), rqTxReset: c("downstream_rq_tx_reset"),
		upgradesTotal: c("downstream_cx_upgrades_total"), cxActive: g("downstream_cx_active"), cxHTTP1Active: g("downstream_cx_http1_active"),
		cxSSLActive: g("downstream_cx_ssl_active"), rqActive: g("downstream_rq_active"), upgradesActive: g("downstream_cx_upgrades_active"),
		byClient: c("tracing.client_enabled"), forced: c("tracing.service_forced"), sampled: c("tracing.random_sampling"), notTraced: c("tracing.not_traceable"),
		healthChecks: c("tracing.health_check"),
		rqTime:       s.Histogram("downstream_rq_time"), cxLength: s.Histogram("downstream_cx_length_ms"),
	}
	for _, name := range []string{"downstream_rq_overload_close", "rs_too_large"} {
		c(name) // nothing here is these; a page lists them all the same
	}
	for i, name := range [...]string{1: "downstream_rq_1xx", "downstream_rq_2xx", "downstream_rq_3xx", "downstream_rq_4xx", "downstream_rq_5xx"} {
		if name != "" {
			n.class[i] = c(name)
		}
	}
	return n
}

// tellListener has answers counted among the stats of the listener, too.
func (n *counters) tellListener(s *stats.Scope) {
	for i, name := range [...]string{"completed", "1xx", "2xx", "3xx", "4xx", "5xx"} {
		n.ofListener[i] = s.Counter("downstream_rq_" + name)
	}
}

// traced counts why a request is traced, or that it is not.
func (n *counters) traced(reason byte) {
	switch reason {
	case byClient:
		n.byClient.Inc()
	case forced:
		n.forced.Inc()
	case sampled:
		n.sampled.Inc()
	default:
		n.notTraced.Inc()
	}
}

// answered counts the status of an answer.
func (n *counters) answered(status int) {
	n.rqCompleted.Inc()
	n.ofListener[0].Inc()
	if class := status / 100; class >= 1 && class <= 5 {
		n.class[class].Inc()
		n.ofListener[class].Inc()
	}
}
