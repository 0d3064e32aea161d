package route

import (
	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
)

// A HeaderValue is the value of a header edit: a literal, or a text with command
// operators such as %DOWNSTREAM_REMOTE_ADDRESS%.
type HeaderValue struct {
	literal []byte
	format  *format.Format // nil: literal
}

// Append appends the value for stream s to dst. A literal costs one copy.
func (v HeaderValue) Append(dst []byte, s *http.Stream) []byte {
	if v.format == nil {
		return append(dst, v.literal...)
	}
	return v.format.Append(dst, format.Of(s))
}

// Literal returns the value and true when it holds no operators; the bytes are shared.
func (v HeaderValue) Literal() ([]byte, bool) { return v.literal, v.format == nil }

// ApplyRequest edits the request head of s. New values live in the arena of s.
func (e *Edits) ApplyRequest(s *http.Stream) {
	for _, name := range e.RequestRemove {
		s.Request.Headers.Remove(string(name))
	}
	for i := range e.RequestAdd {
		applyRequest(&e.RequestAdd[i], s)
	}
}

// ApplyResponse edits the response head of s.
func (e *Edits) ApplyResponse(s *http.Stream) {
	for _, name := range e.ResponseRemove {
		s.Response.Headers.Remove(string(name))
	}
	for i := range e.ResponseAdd {
		applyTo(&s.Response.Headers, &e.ResponseAdd[i], s)
	}
}

func applyRequest(e *HeaderEdit, s *http.Stream) {}

func applyTo(h *http.Headers, e *HeaderEdit, s *http.Stream) {}
