// Package buffer is the HTTP filter envoy.filters.http.buffer: it holds a request back until
// all of it has come, so that what stands behind it never waits for a slow client, and
// refuses with 413 what is larger than it may be. A request that came in pieces goes on
// with its length.
package buffer

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// Name is the filter's canonical name.
const Name = "envoy.filters.http.buffer"

const (
	typeURL  = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer"
	routeURL = "type.googleapis.com/envoy.extensions.filters.http.buffer.v3.BufferPerRoute"
)

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{Name: Name, TypeURLs: []string{typeURL, routeURL}, New: newFilter, Override: newOverride}
}

// limit is the most that a request's body may have; 0 says that the filter is off.
type limit int

type filter struct{ most limit }

func newFilter(cfg *anypb.Any, _ http.Env) (http.Filter, error) {
	var c bufferv3.Buffer
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	most, err := newLimit(&c)
	return &filter{most}, err
}

func newLimit(c *bufferv3.Buffer) (limit, error) {
	if c.GetMaxRequestBytes().GetValue() == 0 {
		return 0, errors.New("max_request_bytes: must be greater than 0")
	}
	return limit(c.GetMaxRequestBytes().GetValue()), nil
}

func newOverride(cfg *anypb.Any, _ http.Env) (any, error) {
	var c bufferv3.BufferPerRoute
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	switch o := c.GetOverride().(type) {
	case *bufferv3.BufferPerRoute_Disabled:
		if !o.Disabled {
			return nil, errors.New("disabled: must be true")
		}
		return limit(0), nil
	case *bufferv3.BufferPerRoute_Buffer:
		most, err := newLimit(o.Buffer)
		if err != nil {
			return nil, fmt.Errorf("buffer: %w", err)
		}
		return most, nil
	}
	return nil, errors.New("override: not set")
}

// OnRequest waits for the end of the request.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	most := f.most
	if o, ok := s.Override(slot).(limit); ok {
		most = o
	}
	body := s.Request.Body
	if most == 0 || body.Done() || s.Request.Upgrade != nil {
		return http.Continue
	}
	var all []byte
	for !body.Done() {
		p, err := body.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return http.Replied // the connection manager knows why
		}
		if len(all)+len(p) > int(most) {
			s.Reply(http.Reply{Status: 413, Body: []byte("Payload Too Large"), Details: "request_payload_too_large", GRPCStatus: -1, Close: true})
			return http.Replied
		}
		all = append(all, p...)
	}
	f.measure(s, len(all))
	s.Request.Body = &held{Bytes: http.Bytes{B: all}, trailers: body.Trailers()}
	return http.Continue
}

// measure gives the request its length, where it had none.
func (f *filter) measure(s *http.Stream, n int) {
	r := &s.Request
	if r.ContentLength >= 0 {
		return
	}
	r.Headers.Remove("transfer-encoding")
	r.ContentLength = int64(n)
	r.Headers.Set("content-length", s.Keep(strconv.AppendInt(s.Scratch(), int64(n), 10)))
}

// OnResponse does nothing.
func (f *filter) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }

// held is a body in memory that may have trailers.
type held struct {
	http.Bytes
	trailers *http.Headers
}

// Trailers are those of the request.
func (h *held) Trailers() *http.Headers { return h.trailers }
