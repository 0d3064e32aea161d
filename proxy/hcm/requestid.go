package hcm

import (
	"math/rand/v2"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// requestID says how x-request-id is made.
type requestID struct {
	generate     bool
	keepExternal bool
	answer       bool // also in the response
	traces       bool // tracing samples by the number
	fixed        bool // pack_trace_reason: false; the digit stays as it is
}

// tracing is how often traces are sampled, in percent.
type tracing struct{ client, random, overall float64 }

// traceDigit is the place in a UUID that tells why a request is traced.
const traceDigit = 14

// The reasons.
const (
	notTraced = '4'
	sampled   = '9'
	forced    = 'a'
	byClient  = 'b'
)

// apply sets the request's id: at the edge a new one, else the one it came with.
func (r *requestID) apply(m *manager, s *http.Stream, atEdge bool) {
	h := &s.Request.Headers
	id := h.Get("x-request-id")
	switch {
	case !r.generate && id == nil:
		return
	case r.generate && (id == nil || atEdge && !r.keepExternal):
		var b [36]byte
		newUUID(&b)
		id = s.Copy(b[:])
		h.Set("x-request-id", id)
	}
	if m.tracing != nil && r.traces && !r.fixed && len(id) == 36 {
		m.sample(s, id)
	}
}

// sample writes the decision about tracing into the id.
func (m *manager) sample(s *http.Stream, id []byte) {
	if id[traceDigit] != notTraced {
		return // somebody has decided before
	}
	t, h := m.tracing, &s.Request.Headers
	reason := byte(notTraced)
	switch {
	case h.Has("x-client-trace-id") && chance(t.client):
		reason = byClient
	case h.Has("x-envoy-force-trace"):
		reason = forced
	case chance(t.random):
		reason = sampled
	}
	if reason == notTraced || !chance(t.overall) {
		return
	}
	id = s.Copy(id)
	id[traceDigit] = reason
	h.Set("x-request-id", id)
}

func chance(percent float64) bool {
	return percent >= 100 || percent > 0 && rand.Float64()*100 < percent
}

// newUUID writes a random UUID of version 4.
func newUUID(b *[36]byte) {
	const hex = "0123456789abcdef"
	bits := [2]uint64{rand.Uint64(), rand.Uint64()}
	n := 0
	for i := range b {
		if i == 8 || i == 13 || i == 18 || i == 23 {
			b[i] = '-'
			continue
		}
		b[i] = hex[bits[n>>4]&15]
		bits[n>>4] >>= 4
		n++
	}
	b[traceDigit] = notTraced
	b[19] = hex[8|rand.Uint32()&3]
}
