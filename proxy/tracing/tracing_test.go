package tracing

import (
	"regexp"
	"strings"
	"testing"

	tracepb "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/proxy/http"
)

func tracer(t testing.TB, m proto.Message) *Tracer {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	tr, err := New(&tracepb.Tracing_Http{Name: "x", ConfigType: &tracepb.Tracing_Http_TypedConfig{TypedConfig: a}})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// request makes a stream with headers "name: value", one a line.
func request(text string) *http.Stream {
	s := &http.Stream{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			s.Request.Headers.Add([]byte(name), []byte(value))
		}
	}
	return s
}

func written(s *http.Stream) string {
	var b strings.Builder
	for _, f := range s.Request.Headers.Fields {
		b.WriteString(string(f.Name) + ": " + string(f.Value) + "\n")
	}
	return b.String()
}

const (
	trace = "0af7651916cd43dd8448eb211c80319c"
	spanA = "b7ad6b7169203331"
	spanB = "a7ad6b7169203331"
	newID = "([0-9a-f]{16})"
)

// TestHops: what a request has when it leaves, by what it had when it came.
func TestHops(t *testing.T) {
	b3 := tracer(t, &tracepb.ZipkinConfig{TraceId_128Bit: true, SharedSpanContext: wrapperspb.Bool(false)})
	shared := tracer(t, &tracepb.ZipkinConfig{})
	both := tracer(t, &tracepb.ZipkinConfig{TraceId_128Bit: true, TraceContextOption: tracepb.ZipkinConfig_USE_B3_WITH_W3C_PROPAGATION})
	w3c := tracer(t, &tracepb.OpenTelemetryConfig{})
	ids := "x-b3-traceid: " + trace + "\nx-b3-spanid: " + spanA + "\n"
	for _, c := range []struct {
		name           string
		tracer         *Tracer
		decided, agree bool
		in, want       string
	}{
		{"OB-038 a trace begins", b3, true, true, "", `x-b3-traceid: [0-9a-f]{16}` + newID + `\nx-b3-spanid: ` + newID + `\nx-b3-sampled: 1\n`},
		{"one that is not sampled", b3, false, true, "", `x-b3-traceid: [0-9a-f]{16}` + newID + `\nx-b3-spanid: ` + newID + `\nx-b3-sampled: 0\n`},
		{"64 bits", shared, true, true, "", `x-b3-traceid: ` + newID + `\nx-b3-spanid: ` + newID + `\nx-b3-sampled: 1\n`},
		{"OB-038 the caller's decision counts", b3, true, false, ids + "x-b3-sampled: 0\n",
			`x-b3-traceid: ` + trace + `\nx-b3-spanid: ` + newID + `\nx-b3-parentspanid: ` + spanA + `\nx-b3-sampled: 0\n`},
		{"else ours", b3, true, false, ids, `x-b3-traceid: ` + trace + `\nx-b3-spanid: ` + newID + `\nx-b3-parentspanid: ` + spanA + `\nx-b3-sampled: 1\n`},
		{"a server shares its client's span", shared, true, false, ids + "x-b3-parentspanid: " + spanB + "\n",
			`x-b3-traceid: ` + trace + `\nx-b3-spanid: ` + spanA + `\nx-b3-parentspanid: ` + spanB + `\nx-b3-sampled: 1\n`},
		{"OB-038 one header", b3, false, false, "b3: " + trace + "-" + spanA + "-d-" + spanB + "\n", `b3: ` + trace + `-` + newID + `-1-` + spanA + `\n`},
		{"malformed", b3, true, false, "x-b3-traceid: xyz\nx-b3-spanid: 1\n", `x-b3-traceid: xyz\nx-b3-spanid: 1\n`},
		{"OB-040 W3C", w3c, false, false, "traceparent: 00-" + trace + "-" + spanA + "-01\ntracestate: a=b\ntracestate: c=d\n",
			`traceparent: 00-` + trace + `-` + newID + `-01\ntracestate: a=b,c=d\n`},
		{"W3C, malformed", w3c, true, false, "traceparent: 00-" + trace + "-" + spanA + "\n", `traceparent: 00-` + trace + `-` + spanA + `\n`},
		{"W3C for who reads B3 too", both, false, false, "traceparent: 00-" + trace + "-" + spanA + "-01\n",
			`x-b3-traceid: ` + trace + `\nx-b3-spanid: ` + spanA + `\nx-b3-sampled: 1\ntraceparent: 00-` + trace + `-` + spanA + `-01\n`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := request(c.in)
			var span Span
			c.tracer.Start(&span, &s.Request.Headers, c.decided, false)
			span.Inject(s)
			got := written(s)
			m := regexp.MustCompile("^" + c.want + "$").FindStringSubmatch(got)
			if m == nil {
				t.Fatalf("got\n%swant\n%s", got, c.want)
			}
			if c.agree && m[1] != m[2] {
				t.Errorf("the first span's id is the end of the trace's: %q", got)
			}
		})
	}
}

func TestUnknownProvider(t *testing.T) {
	a, err := anypb.New(&tracepb.DatadogConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(&tracepb.Tracing_Http{Name: "envoy.tracers.datadog", ConfigType: &tracepb.Tracing_Http_TypedConfig{TypedConfig: a}}); err == nil ||
		!strings.Contains(err.Error(), `provider "envoy.tracers.datadog"`) {
		t.Errorf("got %v", err)
	}
}

// FuzzIDs: whatever stands in the headers, what is written can be read again, and the
// trace stays the same.
func FuzzIDs(f *testing.F) {
	for _, s := range []string{trace, trace + "-" + spanA + "-1", "00-" + trace + "-" + spanA + "-01", "0", "d", "", "--", trace + "-" + spanA + "-1-" + spanB} {
		f.Add(s, s, s)
	}
	b3 := tracer(f, &tracepb.ZipkinConfig{TraceId_128Bit: true, TraceContextOption: tracepb.ZipkinConfig_USE_B3_WITH_W3C_PROPAGATION})
	f.Fuzz(func(t *testing.T, single, ids, parent string) {
		for _, name := range []string{"b3", "x-b3-traceid"} {
			s := &http.Stream{}
			s.Request.Headers.Add([]byte(name), []byte(single))
			s.Request.Headers.Add([]byte("x-b3-spanid"), []byte(ids))
			s.Request.Headers.Add([]byte("traceparent"), []byte(parent))
			var first, next Span
			if b3.Start(&first, &s.Request.Headers, true, true); !first.Live() {
				continue
			}
			first.Inject(s)
			b3.Start(&next, &s.Request.Headers, false, true)
			if !next.live || next.low != first.low || next.high != first.high || next.sampled != first.sampled || next.parent != first.id {
				t.Fatalf("%+v, then %+v", first, next)
			}
		}
	})
}
