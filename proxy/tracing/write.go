package tracing

import (
	"math/rand/v2"

	"github.com/lateen-mesh/lateen/proxy/http"
)

var yes, no = []byte("1"), []byte("0")

// Inject writes s into the headers of the stream's request; nothing without a span.
func (s *Span) Inject(to *http.Stream) { s.inject(&to.Request.Headers, to) }

// Mirror writes a span below s into the headers of a copy of the request.
func (s *Span) Mirror(to *http.Headers, sampled bool) {
	c := *s
	c.id, c.parent, c.child, c.sampled = rand.Uint64(), s.id, true, sampled
	c.inject(to, loose{})
}

// An arena keeps bytes for as long as headers may point to them.
type arena interface {
	Scratch() []byte
	Keep(grown []byte) []byte
}

// loose leaves each value to the garbage collector.
type loose struct{}

func (loose) Scratch() []byte      { return nil }
func (loose) Keep(b []byte) []byte { return b }

func (s *Span) inject(h *http.Headers, a arena) {
	switch {
	case !s.live:
	case s.tracer.w3c:
		s.injectW3C(h, a)
	default:
		s.injectB3(h, a)
		if s.tracer.both {
			s.injectW3C(h, a)
		}
	}
}

// put writes a header as the last one, in place of others of its name.
func put(h *http.Headers, name string, value []byte) {
	h.Remove(name)
	h.Set(name, value)
}

func (s *Span) injectB3(h *http.Headers, a arena) {
	if s.single {
		s.injectSingle(h, a)
		return
	}
	put(h, "x-b3-traceid", a.Keep(s.AppendTraceID(a.Scratch())))
	put(h, "x-b3-spanid", a.Keep(s.AppendSpanID(a.Scratch())))
	if s.child {
		put(h, "x-b3-parentspanid", a.Keep(appendHex(a.Scratch(), s.parent)))
	}
	sampled := no
	if s.sampled {
		sampled = yes
	}
	put(h, "x-b3-sampled", sampled)
}

// injectSingle writes the "b3" header.
func (s *Span) injectSingle(h *http.Headers, a arena) {
	b := append(s.AppendTraceID(a.Scratch()), '-')
	b = append(s.AppendSpanID(b), "-0"...)
	if s.sampled {
		b[len(b)-1] = '1'
	}
	if s.child {
		b = appendHex(append(b, '-'), s.parent)
	}
	put(h, "b3", a.Keep(b))
}

func (s *Span) injectW3C(h *http.Headers, a arena) {
	b := append(a.Scratch(), "00-"...)
	b = append(appendHex(appendHex(b, s.high), s.low), '-')
	b = append(appendHex(b, s.id), "-00"...)
	if s.sampled {
		b[len(b)-1] = '1'
	}
	put(h, "traceparent", a.Keep(b))
	if s.tracer.w3c { // otherwise it is passed on as it is
		put(h, "tracestate", s.state)
	}
}
