package upstream

import (
	"sync"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// A Tally are the stats of some requests to a cluster: those of a virtual cluster, or of a
// route. It is safe for concurrent use.
type Tally struct {
	RqTotal                                                        *stats.Counter // that got a connection, each attempt
	RqRetry, RqRetrySuccess, RqRetryOverflow, RqRetryLimitExceeded *stats.Counter
	RqTimeout                                                      *stats.Counter

	codes codes
	time  func() *stats.Histogram
}

// NewTally returns the stats in scope.
func NewTally(scope *stats.Scope) *Tally {
	c := scope.Counter
	return &Tally{
		RqTotal: c("upstream_rq_total"), RqRetry: c("upstream_rq_retry"), RqRetrySuccess: c("upstream_rq_retry_success"),
		RqRetryOverflow: c("upstream_rq_retry_overflow"), RqRetryLimitExceeded: c("upstream_rq_retry_limit_exceeded"),
		RqTimeout: c("upstream_rq_timeout"), codes: codes{scope: scope},
		time: sync.OnceValue(func() *stats.Histogram { return scope.Histogram("upstream_rq_time") }),
	}
}

// CountCode counts a finished request by its status.
func (t *Tally) CountCode(code int) { t.codes.count(code) }

// RecordTime takes the time of a request in milliseconds. Its histogram comes into being
// with the first one.
func (t *Tally) RecordTime(ms uint64) { t.time().Record(ms) }
