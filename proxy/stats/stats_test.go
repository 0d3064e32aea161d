package stats

import (
	"regexp"
	"strings"
	"sync"
	"testing"

	metricspb "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

func text(t *testing.T, s *Store, q Query) string {
	t.Helper()
	var b strings.Builder
	if err := s.WriteText(&b, q); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func prometheus(t *testing.T, s *Store, q Query) string {
	t.Helper()
	var b strings.Builder
	if err := s.WritePrometheus(&b, q); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// The expected text of these cases is what Envoy 1.40 printed for the same values.
func TestText(t *testing.T) {
	s := NewStore()
	c := s.Scope("cluster.c1.")
	c.Counter("upstream_rq_200").Add(3)
	c.Gauge("upstream_cx_active").Inc()
	c.Gauge("upstream_cx_active").Dec()
	c.Counter("assignment_stale")
	c.Histogram("upstream_rq_time")
	h := c.Histogram("upstream_cx_length_ms")
	for _, v := range []uint64{0, 0, 0, 100, 101, 152, 153, 1004} {
		h.Record(v)
	}
	quantiles := "cluster.c1.upstream_cx_length_ms: P0(nan,0) P25(nan,0) P50(nan,103.33333333333333) P75(nan,153.33333333333334) " +
		"P90(nan,1050) P95(nan,1050) P99(nan,1050) P99.5(nan,1050) P99.9(nan,1050) P100(nan,1050)\n"
	t.Run("all, histograms last", func(t *testing.T) {
		want := "cluster.c1.assignment_stale: 0\ncluster.c1.upstream_cx_active: 0\ncluster.c1.upstream_rq_200: 3\n" +
			quantiles + "cluster.c1.upstream_rq_time: No recorded values\n"
		if got := text(t, s, Query{}); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("usedonly keeps a gauge that is back at 0", func(t *testing.T) {
		want := "cluster.c1.upstream_cx_active: 0\ncluster.c1.upstream_rq_200: 3\n" + quantiles
		if got := text(t, s, Query{UsedOnly: true}); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("filter and its inversion", func(t *testing.T) {
		re := regexp.MustCompile("rq_2|stale")
		if got := text(t, s, Query{Filter: re}); got != "cluster.c1.assignment_stale: 0\ncluster.c1.upstream_rq_200: 3\n" {
			t.Error(got)
		}
		if got := text(t, s, Query{Filter: re, Invert: true}); strings.Contains(got, "rq_200") || !strings.Contains(got, "cx_active") {
			t.Error(got)
		}
	})
	t.Run("cumulative buckets", func(t *testing.T) {
		got := text(t, s, Query{Filter: regexp.MustCompile("length_ms"), Buckets: Cumulative})
		if !strings.Contains(got, " B50(0,3) B100(0,5) B250(0,7) B500(0,7) B1000(0,8)") || !strings.Contains(got, "B1.8e+06(0,8)") {
			t.Error(got)
		}
	})
}

func TestPrometheus(t *testing.T) {
	s := NewStore()
	s.Scope("").Counter("cluster_manager.cluster_added").Inc()
	s.Scope("cluster.c1.").Counter("upstream_rq_200").Add(3)
	s.Scope("cluster.c2.").Counter("upstream_rq_200").Add(1)
	s.Scope("cluster.c1.").Counter("upstream_rq_2xx").Add(3)
	s.Scope("cluster.outbound|80||a.b.c.").Counter("membership_change").Inc()
	s.Scope("listener.127.0.0.1_29902.").Counter("http.ingress.downstream_rq_2xx").Inc()
	s.Scope("http.ingress.").Gauge("downstream_cx_active").Set(2)
	s.Scope("tcp.tp.").Counter("downstream_cx_total").Inc()
	h := s.Scope("cluster.c3.").Histogram("upstream_cx_length_ms")
	for _, v := range []uint64{0, 0, 100, 101, 152, 153, 1004} {
		h.Record(v)
	}
	t.Run("OB-016 labels instead of name parts, by Envoy's default tags", func(t *testing.T) {
		want := `# TYPE envoy_cluster_b_c_membership_change counter
envoy_cluster_b_c_membership_change{envoy_cluster_name="outbound|80||a"} 1
# TYPE envoy_cluster_manager_cluster_added counter
envoy_cluster_manager_cluster_added{} 1
# TYPE envoy_cluster_upstream_rq counter
envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="c1"} 3
envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="c2"} 1
# TYPE envoy_cluster_upstream_rq_xx counter
envoy_cluster_upstream_rq_xx{envoy_response_code_class="2",envoy_cluster_name="c1"} 3
# TYPE envoy_listener_http_downstream_rq_xx counter
envoy_listener_http_downstream_rq_xx{envoy_response_code_class="2",envoy_http_conn_manager_prefix="ingress",envoy_listener_address="127.0.0.1_29902"} 1
# TYPE envoy_tcp_downstream_cx_total counter
envoy_tcp_downstream_cx_total{envoy_tcp_prefix="tp"} 1
# TYPE envoy_http_downstream_cx_active gauge
envoy_http_downstream_cx_active{envoy_http_conn_manager_prefix="ingress"} 2
`
		if got := prometheus(t, s, Query{Filter: regexp.MustCompile("length"), Invert: true}); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	})
	t.Run("histogram buckets, sum and count", func(t *testing.T) {
		got := prometheus(t, s, Query{Type: Histograms})
		for _, line := range []string{
			"# TYPE envoy_cluster_upstream_cx_length_ms histogram",
			`envoy_cluster_upstream_cx_length_ms_bucket{envoy_cluster_name="c3",le="0.5"} 2`,
			`envoy_cluster_upstream_cx_length_ms_bucket{envoy_cluster_name="c3",le="100"} 4`,
			`envoy_cluster_upstream_cx_length_ms_bucket{envoy_cluster_name="c3",le="1000"} 7`,
			`envoy_cluster_upstream_cx_length_ms_bucket{envoy_cluster_name="c3",le="3600000"} 7`,
			`envoy_cluster_upstream_cx_length_ms_bucket{envoy_cluster_name="c3",le="+Inf"} 7`,
			`envoy_cluster_upstream_cx_length_ms_sum{envoy_cluster_name="c3"} 1566.82027649769`,
			`envoy_cluster_upstream_cx_length_ms_count{envoy_cluster_name="c3"} 7`,
		} {
			if !strings.Contains(got, line) {
				t.Errorf("missing %q in\n%s", line, got)
			}
		}
	})
}

// The tags and the matcher of the original's sidecar bootstrap.
const sidecarConfig = `{
 "use_all_default_tags": false,
 "stats_tags": [
  {"tag_name": "cluster_name", "regex": "^cluster(\\.(.+);)"},
  {"tag_name": "response_code_class", "regex": "_rq(_(\\dxx))$"},
  {"tag_name": "http_conn_manager_listener_prefix", "regex": "^listener(?=\\.).*?\\.http\\.(((?:[_.[:digit:]]*|[_\\[\\]aAbBcCdDeEfF[:digit:]]*))\\.)"},
  {"tag_name": "zone", "fixed_value": "z1"}],
 "stats_matcher": {"inclusion_list": {"patterns": [
  {"prefix": "cluster.xds-grpc"}, {"suffix": "rbac.allowed"}, {"exact": "one"}, {"contains": "needle"},
  {"safe_regex": {"regex": "vhost\\..*\\.route\\..*"}}]}},
 "histogram_bucket_settings": [{"match": {"prefix": "cluster"}, "buckets": [10, 20]}]}`

func compiled(t *testing.T, s string) Options {
	t.Helper()
	var c metricspb.StatsConfig
	if err := protojson.Unmarshal([]byte(s), &c); err != nil {
		t.Fatal(err)
	}
	o, err := Compile(&c)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestStatsConfig(t *testing.T) {
	s := New(compiled(t, sidecarConfig))
	t.Run("OB-025 a rejected stat is nil and may be used", func(t *testing.T) {
		c, g, h := s.Scope("cluster.a.").Counter("x"), s.Scope("").Gauge("y"), s.Scope("").Histogram("z")
		if c != nil || g != nil || h != nil {
			t.Fatal("kept")
		}
		c.Inc()
		g.Set(1)
		h.Record(1)
		if c.Value() != 0 || g.Value() != 0 || h.Count() != 0 || c.Name() != "" {
			t.Error("a rejected stat has a value")
		}
	})
	for _, name := range []string{"cluster.xds-grpc.x", "http.a.rbac.allowed", "one", "a.needle.b", "vhost.a.route.b"} {
		if s.Scope("").Counter(name) == nil {
			t.Errorf("%s rejected", name)
		}
	}
	s.Scope("cluster.xds-grpc;.").Counter("upstream_rq_2xx").Inc()
	s.Scope("cluster.xds-grpc;.").Histogram("time").Record(15)
	got := prometheus(t, s, Query{UsedOnly: true})
	for _, want := range []string{
		`envoy_cluster_upstream_rq{cluster_name="xds-grpc",response_code_class="2xx",zone="z1"} 1`,
		`envoy_cluster_time_bucket{cluster_name="xds-grpc",zone="z1",le="10"} 0`,
		`envoy_cluster_time_bucket{cluster_name="xds-grpc",zone="z1",le="20"} 1`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing %q in\n%s", want, got)
		}
	}
	t.Run("look-ahead for a dot", func(t *testing.T) {
		tags := compiled(t, sidecarConfig).Tags
		if x := extract(tags, "listener.0.0.0.0_80.http.10.0.0.1_80.downstream_rq"); !x.has("http_conn_manager_listener_prefix") {
			t.Errorf("%+v", x)
		}
		if x := extract(tags, "listener_manager.a.http.10.0.0.1_80.downstream_rq"); x.has("http_conn_manager_listener_prefix") {
			t.Errorf("%+v", x)
		}
	})
	t.Run("a broken expression is named", func(t *testing.T) {
		_, err := Compile(&metricspb.StatsConfig{StatsTags: []*metricspb.TagSpecifier{{TagName: "t", TagValue: &metricspb.TagSpecifier_Regex{Regex: "("}}}})
		if err == nil || !strings.Contains(err.Error(), `stats_tags[0] "t"`) {
			t.Error(err)
		}
	})
}

func TestExclusionList(t *testing.T) {
	s := New(compiled(t, `{"stats_matcher": {"exclusion_list": {"patterns": [{"prefix": "a."}]}}}`))
	if s.Scope("a.").Counter("x") != nil || s.Scope("b.").Counter("x") == nil {
		t.Error("exclusion list not honoured")
	}
}

func TestForgetAndReset(t *testing.T) {
	s := NewStore()
	s.Scope("a.").Counter("x").Inc()
	s.Scope("b.").Counter("x").Inc()
	s.Scope("a.c.").Counter("y").Inc()
	s.Forget("a.", "a.c.")
	s.Before(func() { s.Scope("b.").Gauge("now").Set(7) })
	if got := text(t, s, Query{}); got != "a.c.y: 1\nb.now: 7\nb.x: 1\n" {
		t.Error(got)
	}
	s.ResetCounters()
	if got := text(t, s, Query{}); got != "a.c.y: 0\nb.now: 7\nb.x: 0\n" {
		t.Error(got)
	}
}

// TestClaim: stats last as long as somebody owns them, each owner's apart.
func TestClaim(t *testing.T) {
	s := NewStore()
	a, below := s.Scope("a."), s.Scope("a.b.")
	first, second, other := a.Claim(), a.Claim(), below.Claim()
	a.Counter("x").Inc()
	below.Counter("y").Inc()
	before := a.Forgotten()
	first()
	first() // a second time is nothing
	if got := text(t, s, Query{}); got != "a.b.y: 1\na.x: 1\n" || a.Forgotten() != before {
		t.Error(got)
	}
	second()
	if got := text(t, s, Query{}); got != "a.b.y: 1\n" || a.Forgotten() == before {
		t.Error(got)
	}
	again := a.Claim()
	a.Counter("x").Inc()
	other()
	if got := text(t, s, Query{}); got != "a.x: 1\n" {
		t.Error(got)
	}
	again()
	if got := text(t, s, Query{}); got != "" {
		t.Error(got)
	}
}

func TestUpdatesAllocateNothing(t *testing.T) {
	s := NewStore().Scope("x.")
	c, g, h := s.Counter("c"), s.Gauge("g"), s.Histogram("h")
	h.Record(12)
	if n := testing.AllocsPerRun(100, func() { c.Inc(); g.Inc(); g.Dec(); h.Record(13) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestHistogramConcurrent(t *testing.T) {
	h := NewStore().Scope("").Histogram("h")
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for v := range uint64(1000) {
				h.Record(v * v)
			}
		})
	}
	wg.Wait()
	if h.Count() != 8000 {
		t.Errorf("%d values", h.Count())
	}
	h.Record(1 << 63)
	if h.Count() != 8001 {
		t.Error("a huge value is not counted")
	}
}
