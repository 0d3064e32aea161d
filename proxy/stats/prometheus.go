package stats

import (
	"bufio"
	"io"
	"sort"
	"strconv"
	"strings"
)

// WritePrometheus prints the Prometheus text form as Envoy does: names begin with
// "envoy_", tags are labels, all series of one name stand together under their TYPE
// line; counters come first, then gauges, texts if they are asked for, then histograms,
// each sorted. Quantiles are those of the last interval.
func (s *Store) WritePrometheus(w io.Writer, q Query) error {
	v := s.view(q)
	b := bufio.NewWriter(w)
	writeFamilies(b, "counter", families(s, v.counters), func(name, labels string, c *Counter) {
		writeSample(b, name, labels, strconv.FormatUint(c.Value(), 10))
	})
	writeFamilies(b, "gauge", families(s, v.gauges), func(name, labels string, g *Gauge) {
		writeSample(b, name, labels, strconv.FormatInt(g.Value(), 10))
	})
	if q.Texts {
		writeFamilies(b, "gauge", families(s, v.texts), func(name, labels string, t *Text) {
			writeSample(b, name, and(labels)+`text_value="`+escapeLabel(t.Value())+`"`, "0")
		})
	}
	kind := "histogram"
	if q.Buckets == Summary {
		kind = "summary"
	}
	writeFamilies(b, kind, families(s, v.histograms), func(name, labels string, h *Histogram) {
		s.writePrometheusHistogram(b, name, labels, h, q.Buckets)
	})
	return b.Flush()
}

// series is one stat with its labels printed.
type series[T any] struct {
	labels string
	stat   T
}

// families groups stats by their name without tags.
func families[T interface{ Name() string }](s *Store, list []T) map[string][]series[T] {
	m := map[string][]series[T]{}
	for _, x := range list {
		if !s.scraped(x.Name()) {
			continue
		}
		name, tags := s.identify(x.Name())
		m[name] = append(m[name], series[T]{labels(tags), x})
	}
	return m
}

func writeFamilies[T any](b *bufio.Writer, kind string, m map[string][]series[T], write func(name, labels string, stat T)) {
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		b.WriteString("# TYPE " + name + " " + kind + "\n")
		for _, x := range m[name] {
			write(name, x.labels, x.stat)
		}
	}
}

func writeSample(b *bufio.Writer, name, labels, value string) {
	b.WriteString(name)
	b.WriteByte('{')
	b.WriteString(labels)
	b.WriteString("} ")
	b.WriteString(value)
	b.WriteByte('\n')
}

func (s *Store) writePrometheusHistogram(b *bufio.Writer, name, labels string, h *Histogram, mode BucketMode) {
	r := h.read()
	if mode == Summary {
		r = h.interval()
		for _, p := range quantiles {
			writeSample(b, name, and(labels)+`quantile="`+short(p/100)+`"`, number(r.quantile(p/100)))
		}
	} else {
		for _, limit := range s.limits(h.name) {
			writeSample(b, name+"_bucket", and(labels)+`le="`+number(limit)+`"`, strconv.FormatUint(r.atMost(limit), 10))
		}
		writeSample(b, name+"_bucket", and(labels)+`le="+Inf"`, strconv.FormatUint(r.count, 10))
	}
	writeSample(b, name+"_sum", labels, strconv.FormatFloat(r.sum(), 'g', 32, 64))
	writeSample(b, name+"_count", labels, strconv.FormatUint(r.count, 10))
}

// and are labels that others follow.
func and(labels string) string {
	if labels == "" {
		return ""
	}
	return labels + ","
}

func labels(tags []string) string {
	var b strings.Builder
	for i := 0; i < len(tags); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(sanitize(tags[i]))
		b.WriteString(`="`)
		b.WriteString(escapeLabel(tags[i+1]))
		b.WriteByte('"')
	}
	return b.String()
}

func escapeLabel(s string) string {
	if !strings.ContainsAny(s, "\\\"\n") {
		return s
	}
	return strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s)
}

// sanitize turns every byte that Prometheus does not allow in a name into "_".
func sanitize(s string) string {
	b := []byte(s)
	for i, c := range b {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_'
		if !letter && (c < '0' || c > '9') {
			b[i] = '_'
		}
	}
	return string(b)
}
