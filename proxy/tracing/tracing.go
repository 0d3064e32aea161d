// Package tracing carries traces from proxy to proxy: it reads the ids of a trace from a
// request's headers, makes a span for this proxy, and writes it for whoever is next.
// Nothing is reported anywhere.
//
// A Tracer is what an envoy.config.trace.v3.Tracing.Http configures, in the bootstrap or
// in a connection manager:
//
//	envoy.tracers.zipkin         B3: x-b3-traceid, -spanid, -parentspanid, -sampled, or "b3" for
//	                             who sends that; W3C beside it with trace_context_option
//	envoy.tracers.opentelemetry  W3C: traceparent, tracestate
//
// Rules, which are those of Envoy 1.40 (test/cases/tracing-*.txtar are measured):
//
//   - A request without ids begins a trace. In B3 the id of its span is the low half of the
//     trace's; whether it is sampled is what x-b3-sampled or "b3" says, else our own decision.
//   - A request with ids gets a new span below the caller's. A server that shares spans
//     (shared_span_context) goes on with the caller's own.
//   - A request with ids that are malformed has no span: its headers stay as they are.
package tracing

import (
	"fmt"
	"math/rand/v2"

	tracepb "github.com/envoyproxy/go-control-plane/envoy/config/trace/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// A Tracer is a compiled provider. It is immutable.
type Tracer struct {
	w3c    bool // the headers of OpenTelemetry
	wide   bool // trace ids of 128 bits
	shared bool // servers go on with the span of their client
	both   bool // B3, and W3C beside it
}

// New compiles a provider. Where spans would be reported to is not looked at.
func New(p *tracepb.Tracing_Http) (*Tracer, error) {
	cfg := p.GetTypedConfig()
	var zipkin tracepb.ZipkinConfig
	switch {
	case cfg.MessageIs(&zipkin):
		if err := cfg.UnmarshalTo(&zipkin); err != nil {
			return nil, err
		}
		return &Tracer{wide: zipkin.GetTraceId_128Bit(), shared: zipkin.GetSharedSpanContext() == nil || zipkin.GetSharedSpanContext().GetValue(),
			both: zipkin.GetTraceContextOption() == tracepb.ZipkinConfig_USE_B3_WITH_W3C_PROPAGATION}, nil
	case cfg.MessageIs(&tracepb.OpenTelemetryConfig{}):
		return &Tracer{w3c: true, wide: true}, nil
	}
	return nil, fmt.Errorf("provider %q (%s): not supported", p.GetName(), cfg.GetTypeUrl())
}

// A Span is this proxy's part of a trace. The zero value is none.
type Span struct {
	tracer     *Tracer
	live       bool // the ids below are to be passed on
	high, low  uint64
	id, parent uint64
	child      bool // parent is one
	sampled    bool
	single     bool   // passed on in the "b3" header
	state      []byte // tracestate
}

// Start makes s the span of a request: the one that its headers ask for, or the first of
// a new trace, which is sampled as decided says. Egress: the proxy is its client's, not
// its server's. What s keeps of the headers lives as long as they do.
func (t *Tracer) Start(s *Span, h *http.Headers, decided, egress bool) {
	*s = Span{tracer: t}
	var from span
	found := absent
	switch {
	case t.w3c:
		found = readW3C(h, &from)
		s.state = from.state
	default:
		s.single = h.Has("b3")
		from.sampled = decided
		found = readB3(h, &from)
		if found == absent && t.both && readW3C(h, &from) == present {
			found = present
		}
	}
	switch found {
	case absent:
		s.begin(decided)
		if !t.w3c {
			s.sampled = from.sampled
		}
	case present:
		s.follow(&from, egress)
	}
}

func (s *Span) begin(sampled bool) {
	s.live, s.sampled = true, sampled
	s.id = rand.Uint64()
	s.low = s.id
	switch {
	case s.tracer.w3c:
		s.high, s.low = rand.Uint64(), rand.Uint64()
	case s.tracer.wide:
		s.high = rand.Uint64()
	}
}

func (s *Span) follow(from *span, egress bool) {
	s.live, s.high, s.low, s.sampled = true, from.high, from.low, from.sampled
	if s.tracer.shared && !egress {
		s.id, s.parent, s.child = from.id, from.parent, from.parent != 0
		return
	}
	s.id, s.parent, s.child = rand.Uint64(), from.id, true
}

// Live reports that there is a span.
func (s *Span) Live() bool { return s.live }

// AppendTraceID appends the id of the trace in hexadecimal digits: 32 of them, 16 where
// the trace has an id of 64 bits.
func (s *Span) AppendTraceID(b []byte) []byte {
	if s.high != 0 || s.tracer.w3c {
		b = appendHex(b, s.high)
	}
	return appendHex(b, s.low)
}

// AppendSpanID appends the id of the span in 16 hexadecimal digits.
func (s *Span) AppendSpanID(b []byte) []byte { return appendHex(b, s.id) }

func appendHex(b []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[v>>shift&15])
	}
	return b
}
