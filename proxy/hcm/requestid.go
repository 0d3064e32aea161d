package hcm

import (
	"math/rand/v2"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/runtime"
)

// requestID says how x-request-id is made.
type requestID struct {
	generate     bool
	keepExternal bool
	answer       bool // also in the response
	traces       bool // tracing samples by the number
	fixed        bool // pack_trace_reason: false; the digit stays as it is
}

// sampling is how often requests are traced.
type sampling struct{ client, random, overall runtime.Share }

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
	if m.sampling == nil {
		return
	}
	reason := byte(notTraced)
	if r.traces && len(id) == 36 {
		reason = m.sample(s, id, !r.fixed)
	}
	s.Traced = reason != notTraced
	m.stats.traced(reason)
}

// sample decides whether the request is traced: by what its id says, else by who asks for
// it, else by chance, for which the id's first digits stand, so that all proxies decide
// alike. The decision is written into the id.
func (m *manager) sample(s *http.Stream, id []byte, write bool) (reason byte) {
	number, ok := leading(id)
	if !ok {
		return notTraced
	}
	p, h := m.sampling, &s.Request.Headers
	reason = notTraced
	switch {
	case write && (id[traceDigit] == sampled || id[traceDigit] == forced || id[traceDigit] == byClient):
		reason = id[traceDigit]
	case h.Has("x-client-trace-id") && p.client.Of(rand.Uint64()):
		reason = byClient
	case h.Has("x-envoy-force-trace"):
		reason = forced
	case p.random.Of(number):
		reason = sampled
	}
	if reason != notTraced && !p.overall.Of(number) {
		reason = notTraced
	}
	if write && id[traceDigit] != reason {
		id = s.Copy(id)
		id[traceDigit] = reason
		h.Set("x-request-id", id)
	}
	return reason
}

// leading is the number that the first eight digits of an id make.
func leading(id []byte) (n uint64, ok bool) {
	for _, c := range id[:8] {
		v := unhex(c)
		if v > 15 {
			return 0, false
		}
		n = n<<4 | uint64(v)
	}
	return n, true
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
