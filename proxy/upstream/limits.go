package upstream

import (
	"sync/atomic"

	"github.com/lateen-mesh/lateen/proxy/stats"
)

// Limits are the circuit breakers of one cluster and priority. They are safe for
// concurrent use and survive updates of the cluster.
type Limits struct {
	Connections, Pending, Requests, Retries Limit
}

// Thresholds are the settings of Limits.
type Thresholds struct {
	Connections, Pending, Requests, Retries uint32
	// TrackRemaining keeps the gauges remaining_cx, remaining_pending, remaining_rq
	// and remaining_retries.
	TrackRemaining bool
}

// DefaultThresholds are Envoy's when a cluster names none.
var DefaultThresholds = Thresholds{Connections: 1024, Pending: 1024, Requests: 1024, Retries: 3}

// NewLimits returns the circuit breakers with their gauges in scope, which is
// "cluster.<name>.circuit_breakers.<default|high>.".
func NewLimits(t Thresholds, scope *stats.Scope) *Limits {
	l := &Limits{}
	l.Connections.init(t.Connections, scope, "cx_open", remaining(t, "remaining_cx"))
	l.Pending.init(t.Pending, scope, "rq_pending_open", remaining(t, "remaining_pending"))
	l.Requests.init(t.Requests, scope, "rq_open", remaining(t, "remaining_rq"))
	l.Retries.init(t.Retries, scope, "rq_retry_open", remaining(t, "remaining_retries"))
	return l
}

func remaining(t Thresholds, name string) string {
	if !t.TrackRemaining {
		return ""
	}
	return name
}

// A Limit counts what is in use against a maximum.
type Limit struct {
	max, used atomic.Int64
	open      *stats.Gauge // 1 while nothing is left
	left      *stats.Gauge // nil unless tracked
}

func (l *Limit) init(max uint32, scope *stats.Scope, open, left string) {
	l.max.Store(int64(max))
	l.open = scope.Gauge(open)
	if left != "" {
		l.left = scope.Gauge(left)
	}
	l.show(0)
}

// SetMax replaces the maximum; what is in use stays in use.
func (l *Limit) SetMax(max uint32) {
	l.max.Store(int64(max))
	l.show(l.used.Load())
}

// Take takes one if one is left.
func (l *Limit) Take() bool {
	max := l.max.Load()
	n := l.used.Add(1)
	if n > max {
		l.used.Add(-1)
		return false
	}
	if n == max || l.left != nil {
		l.show(n)
	}
	return true
}

// Force takes one even if none is left.
func (l *Limit) Force() {
	n := l.used.Add(1)
	if n >= l.max.Load() || l.left != nil {
		l.show(n)
	}
}

// Give returns one.
func (l *Limit) Give() {
	n := l.used.Add(-1)
	if n+1 >= l.max.Load() || l.left != nil {
		l.show(n)
	}
}

// Used is how many are in use, Max how many there may be.
func (l *Limit) Used() int64 { return l.used.Load() }

// Max is how many may be in use.
func (l *Limit) Max() int64 { return l.max.Load() }

func (l *Limit) show(used int64) {
	left := max(l.max.Load()-used, 0)
	if left == 0 {
		l.open.Set(1)
	} else {
		l.open.Set(0)
	}
	if l.left != nil {
		l.left.Set(left)
	}
}
