package stats

import (
	"bufio"
	"encoding/json"
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
	Summary
)

// WriteText prints "name: value" lines, counters and gauges sorted together, then
// histograms. Envoy shows two values per quantile, of the last flush interval and of
// all time; an interval would need a second copy of every histogram for a column that
// is hardly read, so it is always "nan" here, as Envoy prints after a quiet interval.
func (s *Store) WriteText(w io.Writer, q Query) error {
	v := s.view(q)
	b := bufio.NewWriter(w)
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
	r := h.read()
	if r.count == 0 {
		b.WriteString(" No recorded values")
		return
	}
	if mode == Cumulative || mode == Disjoint {
		var before uint64
		for _, limit := range s.limits(h.name) {
			n := r.atMost(limit)
			shown := n
			if mode == Disjoint {
				shown, before = n-before, n
			}
			b.WriteString(" B" + strconv.FormatFloat(limit, 'g', -1, 64) + "(0," + strconv.FormatUint(shown, 10) + ")")
		}
		return
	}
	for _, p := range quantiles {
		b.WriteString(" P" + number(p) + "(nan," + number(r.quantile(p/100)) + ")")
	}
}

func (s *Store) limits(name string) []float64 {
	for _, b := range s.options.Buckets {
		if b.Match(name) {
			return b.Limits
		}
	}
	return defaultLimits
}

func number(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }

type jsonStat struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
}

type jsonQuantile struct {
	Cumulative *float64 `json:"cumulative"`
	Interval   *float64 `json:"interval"`
}

type jsonHistogram struct {
	Name   string         `json:"name"`
	Values []jsonQuantile `json:"values"`
}

type jsonHistograms struct {
	Supported []float64       `json:"supported_quantiles"`
	Computed  []jsonHistogram `json:"computed_quantiles"`
}

// WriteJSON prints the form of /stats?format=json: {"stats":[{"name","value"}…,
// {"histograms": …}]}.
func (s *Store) WriteJSON(w io.Writer, q Query) error {
	v := s.view(q)
	list := make([]any, 0, len(v.counters)+len(v.gauges)+1)
	v.scalars(func(name string, value int64, unsigned uint64) {
		if value < 0 {
			list = append(list, jsonStat{name, value})
			return
		}
		list = append(list, jsonStat{name, unsigned})
	})
	if len(v.histograms) > 0 {
		h := jsonHistograms{Supported: quantiles[:]}
		for _, x := range v.histograms {
			h.Computed = append(h.Computed, x.json())
		}
		list = append(list, map[string]jsonHistograms{"histograms": h})
	}
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return e.Encode(map[string]any{"stats": list})
}

func (h *Histogram) json() jsonHistogram {
	r := h.read()
	j := jsonHistogram{Name: h.name, Values: make([]jsonQuantile, len(quantiles))}
	for i, p := range quantiles {
		if v := r.quantile(p / 100); !math.IsNaN(v) {
			j.Values[i].Cumulative = &v
		}
	}
	return j
}
