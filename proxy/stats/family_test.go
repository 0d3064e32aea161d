package stats

import (
	"fmt"
	"strings"
	"testing"
)

// TestFamily: labels that are given are printed as they are, in their order, and the
// metric without the namespace that it has in the text form.
func TestFamily(t *testing.T) {
	s := NewStore()
	f := s.Family("istio_requests_total", []string{"reporter", "destination_service"}, 10, nil)
	f.Counter([]string{"source", "a.b.c"}).Inc()
	f.Counter([]string{"source", `say "hi"`}).Add(2)
	s.Family("istio_request_bytes", []string{"reporter"}, 10, nil).Histogram([]string{"source"}).Record(7)
	var text, prom strings.Builder
	if err := s.WriteText(&text, Query{Type: Counters}); err != nil {
		t.Fatal(err)
	}
	if err := s.WritePrometheus(&prom, Query{}); err != nil {
		t.Fatal(err)
	}
	if want := "istiocustom.istio_requests_total.reporter.source.destination_service.a.b.c: 1\n"; !strings.Contains(text.String(), want) {
		t.Errorf("no %q in\n%s", want, text.String())
	}
	for _, want := range []string{
		"# TYPE istio_requests_total counter\nistio_requests_total{reporter=\"source\",destination_service=\"a.b.c\"} 1\n" +
			"istio_requests_total{reporter=\"source\",destination_service=\"say \\\"hi\\\"\"} 2\n",
		"# TYPE istio_request_bytes histogram\n", "istio_request_bytes_count{reporter=\"source\"} 1\n",
	} {
		if !strings.Contains(prom.String(), want) {
			t.Errorf("no %q in\n%s", want, prom.String())
		}
	}
}

// TestFamilyIsBounded: when a label explodes its further values are one, and it is named once.
func TestFamilyIsBounded(t *testing.T) {
	s := NewStore()
	var said []string
	f := s.Family("m", []string{"code", "host"}, 20, func(label string, values int) { said = append(said, fmt.Sprint(label, " ", values)) })
	for i := range 1000 {
		f.Counter([]string{"200", fmt.Sprint(i)}).Inc()
	}
	if want := "[host 20]"; fmt.Sprint(said) != want {
		t.Errorf("said %v, want %s", said, want)
	}
	if got := f.Counter([]string{"200", Other}).Value(); got != 980 {
		t.Errorf("%d counts at the value that stands for all others, want 980", got)
	}
	for i := range 1000 { // and if another one explodes too
		f.Counter([]string{fmt.Sprint(i), "x"}).Inc()
	}
	if n := len(s.counters); n > 41 {
		t.Errorf("%d series", n)
	}
	if got := f.Counter([]string{"200", "3"}).Value(); got != 1 {
		t.Errorf("a series that was there has %d", got)
	}
}
