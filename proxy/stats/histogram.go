package stats

import "sync/atomic"

// bounds are the upper limits of Envoy's default histogram buckets, in the unit
// that is recorded (milliseconds for times).
var bounds = [...]float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// A Histogram counts values in Envoy's default buckets.
type Histogram struct {
	name    string
	buckets [len(bounds) + 1]atomic.Uint64
	sum     atomic.Uint64
}

// Record counts one value.
func (h *Histogram) Record(v uint64) {
	i := 0
	for i < len(bounds) && float64(v) > bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.sum.Add(v)
}

// Name is the full dotted name.
func (h *Histogram) Name() string { return h.name }
