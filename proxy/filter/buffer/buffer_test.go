package buffer_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/buffer"
	"github.com/lateen-mesh/lateen/proxy/http"
)

func read(t *testing.T, kind, fields string) *anypb.Any {
	t.Helper()
	var a anypb.Any
	if err := protojson.Unmarshal([]byte(`{"@type":"type.googleapis.com/envoy.extensions.filters.http.buffer.v3.`+kind+`",`+fields+`}`), &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

// pieces is a body that comes in parts and may break off.
type pieces struct {
	parts    []string
	broken   error
	trailers *http.Headers
}

func (p *pieces) Next() ([]byte, error) {
	if len(p.parts) == 0 {
		if p.broken != nil {
			return nil, p.broken
		}
		return nil, io.EOF
	}
	next := p.parts[0]
	p.parts = p.parts[1:]
	return []byte(next), nil
}
func (p *pieces) Ready() bool             { return true }
func (p *pieces) Done() bool              { return false }
func (p *pieces) Trailers() *http.Headers { return p.trailers }

func TestBuffer(t *testing.T) {
	trailers := &http.Headers{}
	trailers.Add([]byte("x"), []byte("1"))
	for _, c := range []struct {
		name     string
		override string
		body     *pieces
		status   int // of a reply, 0: none
		length   int64
	}{
		{"pieces become one", "", &pieces{parts: []string{"ab", "cd"}, trailers: trailers}, 0, 4},
		{"too large", "", &pieces{parts: []string{"ab", "cdefg"}}, 413, -1},
		{"off for the route", `"disabled":true`, &pieces{parts: []string{"ab", "cdefg"}}, 0, -1},
		{"more allowed by the route", `"buffer":{"maxRequestBytes":7}`, &pieces{parts: []string{"ab", "cdefg"}}, 0, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, err := buffer.Factory().New(read(t, "Buffer", `"maxRequestBytes":4`), http.Env{})
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Stream{}
			s.Begin(nil, 1, nil)
			if c.override != "" {
				o, err := buffer.Factory().Override(read(t, "BufferPerRoute", c.override), http.Env{})
				if err != nil {
					t.Fatal(err)
				}
				s.SetOverrides(1, func(http.Slot) any { return o })
			}
			s.Request = http.Request{Body: c.body, ContentLength: -1}
			s.Request.Headers.Add([]byte("transfer-encoding"), []byte("chunked"))
			f.OnRequest(s, 0)
			reply, _ := s.TakeReply()
			if reply.Status != c.status || s.Request.ContentLength != c.length {
				t.Fatalf("answer %d, length %d", reply.Status, s.Request.ContentLength)
			}
			if c.length < 0 {
				return
			}
			if b, err := s.Request.Body.Next(); err != nil || int64(len(b)) != c.length || s.Request.Headers.Has("transfer-encoding") {
				t.Errorf("%q, %v", b, err)
			}
			if s.Request.Body.Trailers() != c.body.trailers {
				t.Error("trailers are lost")
			}
		})
	}
	t.Run("a body that breaks off", func(t *testing.T) {
		f, _ := buffer.Factory().New(read(t, "Buffer", `"maxRequestBytes":4`), http.Env{})
		s := &http.Stream{}
		s.Begin(nil, 1, nil)
		s.Request = http.Request{Body: &pieces{parts: []string{"a"}, broken: errors.New("gone")}}
		if f.OnRequest(s, 0) != http.Replied {
			t.Error("it goes on")
		}
	})
}

func TestRefused(t *testing.T) {
	if _, err := buffer.Factory().New(read(t, "Buffer", `"maxRequestBytes":0`), http.Env{}); err == nil || !strings.Contains(err.Error(), "max_request_bytes") {
		t.Errorf("%v", err)
	}
	for want, fields := range map[string]string{"disabled: must be true": `"disabled":false`, "buffer: max_request_bytes": `"buffer":{"maxRequestBytes":0}`} {
		if _, err := buffer.Factory().Override(read(t, "BufferPerRoute", fields), http.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", fields, err, want)
		}
	}
}
