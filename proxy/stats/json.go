package stats

import (
	"bytes"
	"encoding/json"
	"io"
	"math"
	"strconv"
)

// WriteJSON prints the form of /stats?format=json: {"stats":[{"name","value"}…,
// {"histograms": …}]}.
func (s *Store) WriteJSON(w io.Writer, q Query) error {
	v := s.view(q)
	list := make([]any, 0, len(v.texts)+len(v.counters)+len(v.gauges)+1)
	for _, t := range v.texts {
		list = append(list, jsonStat{t.name, t.Value()})
	}
	v.scalars(func(name string, value int64, unsigned uint64) {
		if value < 0 {
			list = append(list, jsonStat{name, value})
			return
		}
		list = append(list, jsonStat{name, unsigned})
	})
	if len(v.histograms) > 0 {
		list = append(list, map[string]any{"histograms": s.jsonHistograms(v.histograms, q.Buckets)})
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(map[string]any{"stats": list}); err != nil {
		return err
	}
	_, err := w.Write(bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	return err
}

type jsonStat struct {
	Name  string `json:"name"`
	Value any    `json:"value"`
}

type jsonQuantile struct {
	Cumulative jsonNumber `json:"cumulative"`
	Interval   jsonNumber `json:"interval"`
}

type jsonQuantiles struct {
	Supported []float64 `json:"supported_quantiles"`
	Computed  []any     `json:"computed_quantiles"`
}

type jsonDetails struct {
	Supported []float64 `json:"supported_percentiles"`
	Details   []any     `json:"details"`
}

type jsonBucket struct {
	Limit    jsonNumber `json:"upper_bound"`
	Interval uint64     `json:"interval"`
	All      uint64     `json:"cumulative"`
}

type jsonBin struct {
	Low   jsonNumber `json:"lower_bound"`
	Width jsonNumber `json:"width"`
	Count uint64     `json:"count"`
}

// jsonNumber prints null for what is none, and of the forms of a number the shorter.
type jsonNumber float64

// MarshalJSON is how a number is printed.
func (n jsonNumber) MarshalJSON() ([]byte, error) {
	v := float64(n)
	if math.IsNaN(v) {
		return []byte("null"), nil
	}
	plain, exponent := strconv.FormatFloat(v, 'f', -1, 64), strconv.FormatFloat(v, 'e', -1, 64)
	if len(exponent) < len(plain) {
		return []byte(exponent), nil
	}
	return []byte(plain), nil
}

func (s *Store) jsonHistograms(list []*Histogram, mode BucketMode) any {
	out := make([]any, len(list))
	for i, h := range list {
		all, last := h.read(), h.interval()
		switch mode {
		case Cumulative, Disjoint:
			out[i] = struct {
				Name    string       `json:"name"`
				Buckets []jsonBucket `json:"buckets"`
			}{h.name, jsonBuckets(buckets(s.limits(h.name), all, last, mode))}
		case Detailed:
			out[i] = struct {
				Name      string         `json:"name"`
				Totals    []jsonBin      `json:"totals"`
				Intervals []jsonBin      `json:"intervals"`
				Quantiles []jsonQuantile `json:"percentiles"`
			}{h.name, jsonBins(all), jsonBins(last), jsonAt(all, last)}
		default:
			out[i] = struct {
				Name   string         `json:"name"`
				Values []jsonQuantile `json:"values"`
			}{h.name, jsonAt(all, last)}
		}
	}
	switch mode {
	case Cumulative, Disjoint:
		return out
	case Detailed:
		return jsonDetails{quantiles[:], out}
	}
	return jsonQuantiles{quantiles[:], out}
}

func jsonAt(all, last reading) []jsonQuantile {
	list := make([]jsonQuantile, len(quantiles))
	for i, p := range quantiles {
		list[i] = jsonQuantile{jsonNumber(all.quantile(p / 100)), jsonNumber(last.quantile(p / 100))}
	}
	return list
}

func jsonBuckets(from []bucket) []jsonBucket {
	list := make([]jsonBucket, len(from))
	for i, b := range from {
		list[i] = jsonBucket{jsonNumber(b.limit), b.interval, b.all}
	}
	return list
}

func jsonBins(r reading) []jsonBin {
	list := make([]jsonBin, len(r.bins))
	for i, b := range r.bins {
		list[i] = jsonBin{jsonNumber(b.low), jsonNumber(b.width), b.n}
	}
	return list
}
