package upstream

import (
	"math"
	"sync/atomic"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// Limits are the circuit breakers of one cluster and priority. They are safe for
// concurrent use and survive updates of the cluster.
type Limits struct {
	Connections, Pending, Requests, Retries Limit
	Pools                                   Limit // max_connection_pools
}

// Thresholds are the settings of Limits.
type Thresholds struct {
	Connections, Pending, Requests, Retries, Pools uint32
	// Budget bounds retries by what is in flight instead of Retries, nil: it does not.
	Budget *RetryBudget
	// TrackRemaining is track_remaining: there are gauges of what is left, "remaining_…".
	TrackRemaining bool
}

// A RetryBudget allows retries as a part of the requests in flight and waiting.
type RetryBudget struct {
	Percent float64
	Least   uint32 // as many are always allowed
}

// DefaultThresholds are Envoy's when a cluster names none.
var DefaultThresholds = Thresholds{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3, Pools: math.MaxUint32}

// NewLimits returns the circuit breakers with their gauges in scope, which is
// "cluster.<name>.circuit_breakers.<default|high>.".
func NewLimits(t Thresholds, scope *stats.Scope) *Limits {
	l := &Limits{}
	for _, x := range []struct {
		limit      *Limit
		open, left string
	}{
		{&l.Connections, "cx_open", "remaining_cx"}, {&l.Pending, "rq_pending_open", "remaining_pending"}, {&l.Requests, "rq_open", "remaining_rq"},
		{&l.Retries, "rq_retry_open", "remaining_retries"}, {&l.Pools, "cx_pool_open", "remaining_cx_pools"},
	} {
		scope.Computed(x.open, x.limit.open)
		if t.TrackRemaining {
			scope.Computed(x.left, x.limit.left)
		}
	}
	l.Set(t)
	return l
}

// Set replaces the maxima; what is in use stays in use.
func (l *Limits) Set(t Thresholds) {
	l.Connections.SetMax(t.Connections)
	l.Pending.SetMax(t.Pending)
	l.Requests.SetMax(t.Requests)
	l.Retries.SetMax(t.Retries)
	l.Pools.SetMax(t.Pools)
	if t.Budget == nil {
		l.Retries.budget.Store(nil)
		return
	}
	b := *t.Budget
	allowed := func() int64 {
		return max(int64(b.Percent/100*float64(l.Requests.Used()+l.Pending.Used())), int64(b.Least))
	}
	l.Retries.budget.Store(&allowed)
}

// A Limit counts what is in use against a maximum.
type Limit struct {
	max, used atomic.Int64
	budget    atomic.Pointer[func() int64] // decides instead of max, nil: it does not
}

// open is 1 while nothing is left of what there was.
func (l *Limit) open() int64 {
	if l.left() == 0 && l.used.Load() > 0 {
		return 1
	}
	return 0
}

func (l *Limit) left() int64 { return max(l.Max()-l.used.Load(), 0) }

// SetMax replaces the maximum; what is in use stays in use.
func (l *Limit) SetMax(max uint32) { l.max.Store(int64(max)) }

// Take takes one if one is left.
func (l *Limit) Take() bool {
	if l.used.Add(1) > l.Max() {
		l.used.Add(-1)
		return false
	}
	return true
}

// Force takes one even if none is left.
func (l *Limit) Force() { l.used.Add(1) }

// Give returns one.
func (l *Limit) Give() { l.used.Add(-1) }

// Used is how many are in use, Max how many there may be.
func (l *Limit) Used() int64 { return l.used.Load() }

// Max is how many may be in use.
func (l *Limit) Max() int64 {
	if b := l.budget.Load(); b != nil {
		return (*b)()
	}
	return l.max.Load()
}
