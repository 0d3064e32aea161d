package stats

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func written(t *testing.T, s *Store, q Query) (text, document, prom string) {
	t.Helper()
	var b [3]strings.Builder
	if err := s.WriteText(&b[0], q); err != nil {
		t.Fatal(err)
	}
	if err := s.WriteJSON(&b[1], q); err != nil {
		t.Fatal(err)
	}
	if err := s.WritePrometheus(&b[2], q); err != nil {
		t.Fatal(err)
	}
	return b[0].String(), b[1].String(), b[2].String()
}

// TestIntervals: quantiles of an interval are there until the next one ends, as Envoy printed them.
func TestIntervals(t *testing.T) {
	s := NewStore()
	h := s.Scope("cluster.c.").Histogram("upstream_rq_time")
	for _, v := range []uint64{1, 1, 120} {
		h.Record(v)
	}
	s.Flush()
	for _, v := range []uint64{124, 129, 165} {
		h.Record(v)
	}
	s.Flush()
	const both = "P0(123.33333333333333,1.0333333333333334) P25(123.33333333333333,1.0666666666666667) P50(126.66666666666667,122.5) P75(165,127.5) " +
		"P90(165,165) P95(165,165) P99(165,165) P99.5(165,165) P99.9(165,165) P100(165,165)"
	for mode, want := range map[BucketMode]string{
		Summary:    " " + both,
		Detailed:   "\n  totals=1,0.1:2, 120,10:3, 160,10:1\n  intervals=120,10:2, 160,10:1\n  summary=" + both,
		Cumulative: " B0.5(0,0) B1(0,2) B5(0,2) B10(0,2) B25(0,2) B50(0,2) B100(0,2) B250(3,6) B500(3,6) B1000(3,6) B2500(3,6) B5000(3,6) B10000(3,6) B30000(3,6) B60000(3,6) B300000(3,6) B600000(3,6) B1.8e+06(3,6) B3.6e+06(3,6)",
		Disjoint:   " B0.5(0,0) B1(0,2) B5(0,0) B10(0,0) B25(0,0) B50(0,0) B100(0,0) B250(3,4) B500(0,0) B1000(0,0) B2500(0,0) B5000(0,0) B10000(0,0) B30000(0,0) B60000(0,0) B300000(0,0) B600000(0,0) B1.8e+06(0,0) B3.6e+06(0,0)",
	} {
		if text, _, _ := written(t, s, Query{Buckets: mode}); text != "cluster.c.upstream_rq_time:"+want+"\n" {
			t.Errorf("mode %d: %s", mode, text)
		}
	}
	if _, _, prom := written(t, s, Query{Buckets: Summary}); !strings.Contains(prom, `quantile="0.999"} 165`) || !strings.Contains(prom, `_count{envoy_cluster_name="c"} 3`) {
		t.Errorf("Prometheus sees\n%s", prom)
	}
	s.Flush()
	if text, document, _ := written(t, s, Query{}); !strings.Contains(text, "P50(nan,122.5)") || !strings.Contains(document, `{"cumulative":122.5,"interval":null}`) {
		t.Errorf("after a quiet interval:\n%s%s", text, document)
	}
}

// TestJSONForms: a histogram by its buckets and by its bins.
func TestJSONForms(t *testing.T) {
	s := New(Options{Buckets: []Buckets{{func(string) bool { return true }, []float64{1, 300000}}}})
	s.Scope("").Histogram("h").Record(2)
	for mode, want := range map[BucketMode]string{
		Cumulative: `{"stats":[{"histograms":[{"name":"h","buckets":[{"upper_bound":1,"interval":0,"cumulative":0},{"upper_bound":3e+05,"interval":0,"cumulative":1}]}]}]}`,
		Detailed:   `"details":[{"name":"h","totals":[{"lower_bound":2,"width":0.1,"count":1}],"intervals":[],"percentiles":[{"cumulative":2.05,"interval":null},`,
		Summary:    `{"stats":[{"histograms":{"supported_quantiles":[0,25,50,75,90,95,99,99.5,99.9,100],"computed_quantiles":[{"name":"h","values":[{"cumulative":2.05,"interval":null},`,
	} {
		if _, document, _ := written(t, s, Query{Buckets: mode}); !strings.Contains(document, want) || !json.Valid([]byte(document)) {
			t.Errorf("mode %d: %s", mode, document)
		}
	}
}

func TestTexts(t *testing.T) {
	s := NewStore()
	s.Scope("cluster_manager.cds.").Text("version_text").Set(`v "1"`)
	s.Scope("").Text("never.set")
	text, document, prom := written(t, s, Query{Type: TextReadouts, UsedOnly: true})
	if text != "cluster_manager.cds.version_text: \"v \"1\"\"\n" || document != `{"stats":[{"name":"cluster_manager.cds.version_text","value":"v \"1\""}]}` || prom != "" {
		t.Errorf("%s%s%s", text, document, prom)
	}
	if _, _, prom = written(t, s, Query{Type: TextReadouts, UsedOnly: true, Texts: true}); prom != "# TYPE envoy_cluster_manager_cds_version_text gauge\n"+
		"envoy_cluster_manager_cds_version_text{text_value=\"v \\\"1\\\"\"} 0\n" {
		t.Errorf("Prometheus sees %s", prom)
	}
	(*Text)(nil).Set("a rejected one")
}

// TestComputed: a gauge that nobody writes is what it is when somebody looks, and goes with its scope.
func TestComputed(t *testing.T) {
	s := NewStore()
	sc := s.Scope("cluster.a:b.")
	release := sc.Claim()
	n := int64(1)
	sc.Computed("left", func() int64 { return n })
	n = 7
	if text, _, _ := written(t, s, Query{}); text != "cluster.a_b.left: 7\n" || sc.Gauge("left").Value() != 7 {
		t.Errorf("%s", text)
	}
	release()
	if text, _, _ := written(t, s, Query{}); text != "" {
		t.Errorf("still there: %s", text)
	}
}

// TestAsked: OB-025 why a cluster refuses requests is told to those who ask the proxy, but not to Prometheus.
func TestAsked(t *testing.T) {
	s := New(Options{Accept: func(name string) bool { return strings.HasPrefix(name, "server.") }, Asked: breaking})
	for _, name := range []string{"cluster.c.upstream_rq_pending_overflow", "cluster.c.circuit_breakers.default.rq_open", "cluster.c.upstream_rq_total", "server.live"} {
		s.Scope("").Counter(name).Inc()
	}
	text, _, prom := written(t, s, Query{})
	if text != "cluster.c.circuit_breakers.default.rq_open: 1\ncluster.c.upstream_rq_pending_overflow: 1\nserver.live: 1\n" {
		t.Errorf("text: %s", text)
	}
	if prom != "# TYPE envoy_server_live counter\nenvoy_server_live{} 1\n" {
		t.Errorf("Prometheus sees %s", prom)
	}
}

// TestIdleSeries: what traffic has named is forgotten when it rests, and comes back.
func TestIdleSeries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Idle: time.Hour})
		f := s.Family("istio_requests_total", []string{"host"}, 10, nil)
		busy, open := f.Counter([]string{"busy"}), f.Gauge([]string{"open"})
		open.Set(1)
		resting := f.Counter([]string{"resting"})
		resting.Inc()
		before := s.Scope("").Forgotten()
		for range 13 {
			time.Sleep(10 * time.Minute)
			busy.Inc()
			s.Flush()
		}
		text, _, prom := written(t, s, Query{})
		if want := "istiocustom.istio_requests_total.host.busy: 13\nistiocustom.istio_requests_total.host.open: 1\n"; text != want {
			t.Errorf("%s", text)
		}
		if strings.Contains(prom, "resting") || s.Scope("").Forgotten() == before || len(s.given.of) != 2 {
			t.Errorf("%d are known, Prometheus sees %s", len(s.given.of), prom)
		}
		if again := f.Counter([]string{"resting"}); again == resting || again.Value() != 0 {
			t.Error("it did not begin anew")
		}
	})
}

// TestSeriesComeAndGo: a label that exploded is told apart again when there is room.
func TestSeriesComeAndGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Options{Idle: time.Minute})
		told := 0
		f := s.Family("m", []string{"host"}, 4, func(string, int) { told++ })
		for round := range 3 {
			for i := range 100 {
				f.Counter([]string{fmt.Sprint(round, "-", i)}).Inc()
			}
			if told != round+1 || len(s.counters) != 5 {
				t.Errorf("round %d: told %d times, %d series", round, told, len(s.counters))
			}
			s.Flush()
			time.Sleep(2 * time.Minute)
			s.Flush()
		}
		if len(s.counters) != 0 {
			t.Errorf("%d series rest for ever", len(s.counters))
		}
	})
}

func TestLookups(t *testing.T) {
	s := NewStore()
	sc := s.Scope("a.")
	sc.Counter("x")
	page := func() string {
		var b strings.Builder
		if err := s.WriteLookups(&b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got := page(); got != "Lookup tracking is not enabled. Use /stats/recentlookups/enable to enable.\n\ntotal: 1\n" {
		t.Error(got)
	}
	s.TrackLookups(true)
	for range 2 {
		sc.Counter("x")
	}
	sc.Gauge("y")
	if got := page(); got != "   Count Lookup\n       1 a.y\n       2 a.x\n\ntotal: 4\n" {
		t.Error(got)
	}
	for i := range 2 * mostLookups {
		sc.Counter(fmt.Sprint(i))
	}
	if len(s.lookups.names) != mostLookups {
		t.Errorf("%d names are remembered", len(s.lookups.names))
	}
	s.ClearLookups()
	s.TrackLookups(false)
	if s.Lookups() != 0 {
		t.Error("look-ups are not forgotten")
	}
}

// FuzzExtract: whatever a stat is called, its labels are parts of its name, and Prometheus can read it.
func FuzzExtract(f *testing.F) {
	for _, name := range []string{"cluster.outbound|80||a.b.upstream_rq_200", "listener.127.0.0.1_80.http.front.downstream_rq_2xx", "http.a.rds.b.c.update_success",
		"listener.admin.downstream_cx_total", "listener.[__1]_80.ssl.cipher.X", "cluster..grpc.a.b.c", "vhost.a.vcluster.b.upstream_rq_5xx", "tcp..x", "_rq_500"} {
		f.Add(name)
	}
	tags := DefaultTags()
	f.Fuzz(func(t *testing.T, name string) {
		got := extract(tags, name)
		if len(got.name) > len(name) {
			t.Errorf("%q became %q", name, got.name)
		}
		for i := 1; i < len(got.tags); i += 2 {
			if !strings.Contains(name, got.tags[i]) {
				t.Errorf("%q is no part of %q", got.tags[i], name)
			}
		}
		s := NewStore()
		s.Scope("").Counter(name)
		_, document, prom := written(t, s, Query{})
		if !json.Valid([]byte(document)) || strings.Count(prom, "\n") != 2 {
			t.Errorf("%q is printed as\n%s\n%s", name, document, prom)
		}
	})
}
