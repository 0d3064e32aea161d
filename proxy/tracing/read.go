package tracing

import (
	"slices"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// A span is what headers say about the caller's.
type span struct {
	high, low  uint64
	id, parent uint64
	sampled    bool
	state      []byte
}

// A verdict is what reading headers came to.
type verdict uint8

const (
	absent    verdict = iota // there are no ids; sampled may be set all the same
	present                  // ids were read
	malformed                // there are some that are none
)

// readB3 reads the "b3" header, else the x-b3 ones. s.sampled stays as it is where they
// say nothing about it.
func readB3(h *http.Headers, s *span) verdict {
	if v, ok := h.First("b3"); ok {
		return readSingle(v, s)
	}
	if v, ok := h.First("x-b3-sampled"); ok {
		s.sampled = string(v) == "1" || string(v) == "true"
	}
	trace, ok := h.First("x-b3-traceid")
	id, both := h.First("x-b3-spanid")
	if !ok || !both {
		return absent
	}
	if len(trace) == 32 {
		if s.high, ok = number(trace[:16]); !ok {
			return malformed
		}
		trace = trace[16:]
	}
	if s.low, ok = number(trace); !ok {
		return malformed
	}
	if s.id, ok = number(id); !ok {
		return malformed
	}
	if parent := h.Get("x-b3-parentspanid"); len(parent) > 0 {
		if s.parent, ok = number(parent); !ok {
			return malformed
		}
	}
	return present
}

// readSingle reads TRACE-SPAN[-DECISION[-PARENT]], or a DECISION alone. A trace id has 16 or
// 32 digits, the others have 16.
func readSingle(v []byte, s *span) verdict {
	if len(v) == 1 {
		if yes, ok := decision(v[0]); ok {
			s.sampled = yes
			return absent
		}
		return malformed
	}
	ok := false
	if len(v) > 32 && v[32] == '-' {
		if s.high, ok = number(v[:16]); !ok {
			return malformed
		}
		v = v[16:]
	}
	if s.low, v, ok = part(v); !ok {
		return malformed
	}
	if len(v) == 0 || v[0] != '-' {
		return malformed
	}
	if s.id, v, ok = part(v[1:]); !ok {
		return malformed
	}
	if len(v) >= 2 && v[0] == '-' && (len(v) == 2 || v[2] == '-') {
		yes, known := decision(v[1])
		if !known {
			return malformed
		}
		s.sampled, v = yes, v[2:]
	}
	if len(v) == 0 {
		return present
	}
	if len(v) != 17 || v[0] != '-' {
		return malformed
	}
	if s.parent, _, ok = part(v[1:]); !ok {
		return malformed
	}
	return present
}

func decision(c byte) (yes, known bool) { return c != '0', c == '0' || c == '1' || c == 'd' }

// part takes 16 digits off the beginning.
func part(v []byte) (n uint64, rest []byte, ok bool) {
	if len(v) < 16 {
		return 0, nil, false
	}
	n, ok = number(v[:16])
	return n, v[16:], ok
}

// number reads up to 16 hexadecimal digits.
func number(v []byte) (n uint64, ok bool) {
	if len(v) == 0 || len(v) > 16 {
		return 0, false
	}
	for _, c := range v {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		n = n<<4 | uint64(c)
	}
	return n, true
}

// readW3C reads traceparent, VERSION-TRACE-SPAN-FLAGS, and tracestate.
func readW3C(h *http.Headers, s *span) verdict {
	v, there := h.First("traceparent")
	if !there {
		return absent
	}
	if len(v) != 55 || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return malformed
	}
	_, versioned := number(v[:2])
	flags, flagged := number(v[53:])
	var high, low, id bool
	s.high, high = number(v[3:19])
	s.low, low = number(v[19:35])
	s.id, id = number(v[36:52])
	if !versioned || !flagged || !high || !low || !id || s.high|s.low == 0 || s.id == 0 {
		return malformed
	}
	s.sampled = flags&1 == 1
	s.state = stateOf(h)
	return present
}

// stateOf is tracestate, which may stand on several lines.
func stateOf(h *http.Headers) []byte {
	var state []byte
	n := 0
	for _, f := range h.Fields {
		if !http.EqualFold(f.Name, "tracestate") {
			continue
		}
		if n++; n == 1 {
			state = f.Value
			continue
		}
		state = append(append(slices.Clip(state), ','), f.Value...)
	}
	return state
}
