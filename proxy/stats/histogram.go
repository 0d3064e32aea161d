package stats

import (
	"math"
	"sync/atomic"
)

// A value falls into a bin by its first two decimal digits, as in Envoy's
// circllhist, so that quantiles come out as Envoy prints them: 0 has a bin of its
// own, [1.0, 1.1) is the first of decade 0, [10, 11) the first of decade 1.
const (
	perDecade = 90
	decades   = 13 // up to 10^13 of the unit; larger values count in the last bin
)

type decade [perDecade]atomic.Uint64

// bins is allocated on the first value and its decades on theirs: most histograms
// of a proxy never record anything, and the others use two or three decades.
type bins struct {
	zero    atomic.Uint64
	decades [decades]atomic.Pointer[decade]
}

// A Histogram counts values, in the unit that its name says (usually "_ms").
type Histogram struct {
	data    atomic.Pointer[bins]
	flushed atomic.Pointer[flushed]
	name    string
}

// flushed is what Flush saw: all values, and those since the Flush before.
type flushed struct{ total, interval reading }

// flush ends an interval.
func (h *Histogram) flush() {
	if !h.used() {
		return
	}
	last := h.flushed.Load()
	if last == nil {
		last = &flushed{}
	}
	now := h.read()
	if now.count == last.total.count && last.interval.count == 0 && h.flushed.Load() != nil {
		return // it rests
	}
	h.flushed.Store(&flushed{now, now.minus(last.total)})
}

// interval are the values of the last whole interval.
func (h *Histogram) interval() reading {
	if f := h.flushed.Load(); f != nil {
		return f.interval
	}
	return reading{}
}

// minus are the values that came since an earlier reading.
func (r reading) minus(before reading) (d reading) {
	old := before.bins
	for _, b := range r.bins {
		for len(old) > 0 && old[0].low < b.low {
			old = old[1:]
		}
		if len(old) > 0 && old[0].low == b.low {
			b.n -= old[0].n
		}
		if b.n > 0 {
			d.bins = append(d.bins, b)
			d.count += b.n
		}
	}
	return d
}

// Record counts one value. Only the first value of a decade allocates.
func (h *Histogram) Record(v uint64) {
	if h == nil {
		return
	}
	b := h.data.Load()
	if b == nil {
		h.data.CompareAndSwap(nil, new(bins))
		b = h.data.Load()
	}
	if v == 0 {
		b.zero.Add(1)
		return
	}
	at, i := bin(v)
	d := b.decades[at].Load()
	if d == nil {
		b.decades[at].CompareAndSwap(nil, new(decade))
		d = b.decades[at].Load()
	}
	d[i].Add(1)
}

// bin finds decade and bin of a value that is not zero.
func bin(v uint64) (at, i int) {
	if v < 10 {
		return 0, int(v*10) - 10
	}
	at = 1
	for v >= 100 {
		v /= 10
		at++
	}
	if at >= decades {
		return decades - 1, perDecade - 1
	}
	return at, int(v) - 10
}

// Name is the full dotted name, "" for a rejected histogram.
func (h *Histogram) Name() string {
	if h == nil {
		return ""
	}
	return h.name
}

// used reports whether a value was ever recorded.
func (h *Histogram) used() bool { return h.data.Load() != nil }

// Count is the number of values recorded.
func (h *Histogram) Count() uint64 {
	if h == nil {
		return 0
	}
	return h.read().count
}

// a filled bin: values in [low, low+width).
type filled struct {
	low, width float64
	n          uint64
}

// reading is one consistent-enough look at a histogram.
type reading struct {
	bins  []filled
	count uint64
}

func (h *Histogram) read() reading {
	var r reading
	b := h.data.Load()
	if b == nil {
		return r
	}
	add := func(low, width float64, n uint64) {
		if n > 0 {
			r.bins = append(r.bins, filled{low, width, n})
			r.count += n
		}
	}
	add(0, 0, b.zero.Load())
	for at := range b.decades {
		d := b.decades[at].Load()
		if d == nil {
			continue
		}
		width := math.Pow10(at - 1)
		for i := range d {
			add(float64(i+10)*width, width, d[i].Load())
		}
	}
	return r
}

// quantile interpolates within the bin that holds the value of that rank, as
// circllhist does; NaN when nothing was recorded.
func (r reading) quantile(q float64) float64 {
	if r.count == 0 {
		return math.NaN()
	}
	rank := max(1, math.Ceil(q*float64(r.count)))
	below := 0.0
	for _, b := range r.bins {
		if below+float64(b.n) >= rank {
			return b.low + b.width*(rank-below)/float64(b.n+1)
		}
		below += float64(b.n)
	}
	return math.NaN()
}

// sum is the approximate sum of all values: circllhist takes a point of each bin
// that lies below its middle in proportion to the bin's bounds.
func (r reading) sum() float64 {
	s := 0.0
	for _, b := range r.bins {
		if b.low > 0 {
			s += float64(b.n) * (b.low + b.width*b.low/(2*b.low+b.width))
		}
	}
	return s
}

// atMost counts the values of all bins that begin at or below limit.
func (r reading) atMost(limit float64) uint64 {
	var n uint64
	for _, b := range r.bins {
		if b.low <= limit {
			n += b.n
		}
	}
	return n
}
