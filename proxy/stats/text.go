package stats

import (
	"bufio"
	"io"
	"math"
	"strconv"
)

// quantiles are those that Envoy computes, in percent.
var quantiles = [...]float64{0, 25, 50, 75, 90, 95, 99, 99.5, 99.9, 100}

// defaultLimits are the upper limits of Envoy's default histogram buckets.
var defaultLimits = []float64{0.5, 1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000}

// A BucketMode says how histograms are shown.
type BucketMode uint8

// The bucket modes: quantiles in text and JSON and cumulative buckets in Prometheus'
// format by default.
const (
	DefaultBuckets BucketMode = iota
	Cumulative
	Disjoint
	Detailed // every bin, in text and JSON
	Summary
)

// WriteText prints "name: value" lines: texts, then counters and gauges sorted together,
// then histograms. Two values stand for each quantile or bucket, of the last interval
// between two calls of Flush ("nan" for a quiet one) and of all time.
func (s *Store) WriteText(w io.Writer, q Query) error {
	v := s.view(q)
	b := bufio.NewWriter(w)
	for _, t := range v.texts {
		b.WriteString(t.name + `: "` + t.Value() + "\"\n")
	}
	v.scalars(func(name string, value int64, unsigned uint64) {
		b.WriteString(name)
		b.WriteString(": ")
		b.Write(appendScalar(b.AvailableBuffer(), value, unsigned))
		b.WriteByte('\n')
	})
	for _, h := range v.histograms {
		b.WriteString(h.name)
		b.WriteByte(':')
		s.writeHistogram(b, h, q.Buckets)
		b.WriteByte('\n')
	}
	return b.Flush()
}

func appendScalar(b []byte, value int64, unsigned uint64) []byte {
	if value < 0 {
		return strconv.AppendInt(b, value, 10)
	}
	return strconv.AppendUint(b, unsigned, 10)
}

// scalars walks counters and gauges in one sorted order. A gauge may be negative for
// a moment; a counter may exceed int64: both come as a pair.
func (v view) scalars(yield func(name string, value int64, unsigned uint64)) {
	c, g := v.counters, v.gauges
	for len(c) > 0 || len(g) > 0 {
		if len(g) == 0 || len(c) > 0 && c[0].name <= g[0].name {
			yield(c[0].name, 0, c[0].Value())
			c = c[1:]
			continue
		}
		n := g[0].Value()
		yield(g[0].name, n, uint64(n))
		g = g[1:]
	}
}

func (s *Store) writeHistogram(b *bufio.Writer, h *Histogram, mode BucketMode) {
	all, last := h.read(), h.interval()
	switch {
	case all.count == 0:
		b.WriteString(" No recorded values")
	case mode == Cumulative || mode == Disjoint:
		for _, k := range buckets(s.limits(h.name), all, last, mode) {
			b.WriteString(" B" + short(k.limit) + "(" + strconv.FormatUint(k.interval, 10) + "," + strconv.FormatUint(k.all, 10) + ")")
		}
	case mode == Detailed:
		b.WriteString("\n  totals=")
		writeBins(b, all)
		b.WriteString("\n  intervals=")
		writeBins(b, last)
		b.WriteString("\n  summary=")
		writeQuantiles(b, all, last)
	default:
		b.WriteByte(' ')
		writeQuantiles(b, all, last)
	}
}

func writeQuantiles(b *bufio.Writer, all, last reading) {
	for i, p := range quantiles {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString("P" + number(p) + "(" + number(last.quantile(p/100)) + "," + number(all.quantile(p/100)) + ")")
	}
}

func writeBins(b *bufio.Writer, r reading) {
	for i, x := range r.bins {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(short(x.low) + "," + short(x.width) + ":" + strconv.FormatUint(x.n, 10))
	}
}

// A bucket is how many values are at most limit, or, disjoint, above the limit before.
type bucket struct {
	limit         float64
	interval, all uint64
}

func buckets(limits []float64, all, last reading, mode BucketMode) []bucket {
	list := make([]bucket, len(limits))
	for i, limit := range limits {
		list[i] = bucket{limit, last.atMost(limit), all.atMost(limit)}
	}
	if mode == Disjoint {
		for i := len(list) - 1; i > 0; i-- {
			list[i].interval -= list[i-1].interval
			list[i].all -= list[i-1].all
		}
	}
	return list
}

func (s *Store) limits(name string) []float64 {
	for _, b := range s.options.Buckets {
		if b.Match(name) {
			return b.Limits
		}
	}
	return defaultLimits
}

// number prints all digits, "nan" for what is none.
func number(v float64) string {
	if math.IsNaN(v) {
		return "nan"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// short prints six digits, large numbers with an exponent.
func short(v float64) string { return strconv.FormatFloat(v, 'g', 6, 64) }
