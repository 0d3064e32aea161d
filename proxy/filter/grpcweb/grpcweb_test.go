package grpcweb_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/grpcweb"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

// pieces is a body that comes in pieces, then trailers.
type pieces struct {
	left     []string
	trailers *http.Headers
}

func (b *pieces) Next() ([]byte, error) {
	if len(b.left) == 0 {
		return nil, io.EOF
	}
	p := b.left[0]
	b.left = b.left[1:]
	return []byte(p), nil
}
func (b *pieces) Ready() bool             { return true }
func (b *pieces) Done() bool              { return len(b.left) == 0 }
func (b *pieces) Trailers() *http.Headers { return b.trailers }

func all(t testing.TB, b http.Body) string {
	t.Helper()
	var out []byte
	for !b.Done() {
		p, err := b.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, p...)
	}
	return string(out)
}

func newFilter(t testing.TB, store *stats.Store) http.Filter {
	t.Helper()
	f, err := grpcweb.Factory().New(&anypb.Any{TypeUrl: grpcweb.Factory().TypeURLs[0]}, http.Env{Stats: store.Scope("http.x.")})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func request(contentType, accept string, body ...string) *http.Stream {
	s := &http.Stream{}
	s.Begin(nil, 1, nil)
	s.Info.Cluster = "c"
	s.Request.Path = []byte("/svc/Get")
	s.Request.Headers.Add([]byte("content-type"), []byte(contentType))
	s.Request.Headers.Add([]byte("content-length"), []byte("12"))
	if accept != "" {
		s.Request.Headers.Add([]byte("accept"), []byte(accept))
	}
	s.Request.Body = &pieces{left: body}
	s.Response.Body = http.NoBody
	return s
}

func fields(pairs ...string) (h http.Headers) {
	for i := 0; i < len(pairs); i += 2 {
		h.Add([]byte(pairs[i]), []byte(pairs[i+1]))
	}
	return h
}

const message = "\x00\x00\x00\x00\x02hi"

// TestRequest: what the server gets of a browser's request.
func TestRequest(t *testing.T) {
	for _, c := range []struct {
		name, contentType string
		body              []string
		want, details     string
	}{
		{"bytes", "application/grpc-web", []string{message}, message, ""},
		{"text", "application/grpc-web-text", []string{"AAAAAAJoaQ=="}, message, ""},
		{"text in pieces", "application/grpc-web-text+proto", []string{"A", "AAAA", "", "AJoaQ=", "="}, message, ""},
		{"no text", "application/grpc-web-text", nil, "", ""},
		{"not base64", "application/grpc-web-text", []string{"AAAA!AJoaQ=="}, "", "grpc_base_64_decode_failed"},
		{"line ends", "application/grpc-web-text", []string{"AAAA\r\nAAAAAAA"}, "", "grpc_base_64_decode_failed"},
		{"cut off", "application/grpc-web-text", []string{"AAAAAAJoaQ="}, "", "grpc_base_64_decode_failed_bad_size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := request(c.contentType, "", c.body...)
			if newFilter(t, stats.NewStore()).OnRequest(s, 0) == http.Replied {
				if r, _ := s.TakeReply(); r.Status != 400 || r.Details != c.details {
					t.Errorf("answered %d, %s", r.Status, r.Details)
				}
				return
			}
			if got := all(t, s.Request.Body); got != c.want || c.details != "" {
				t.Errorf("body %q, want %q", got, c.want)
			}
			h := &s.Request.Headers
			if string(h.Get("content-type")) != "application/grpc" || string(h.Get("te")) != "trailers" || h.Has("content-length") {
				t.Errorf("head %s", h.Fields)
			}
		})
	}
}

// TestResponse: what the browser gets of an answer.
func TestResponse(t *testing.T) {
	trailers := fields("grpc-status", "0")
	const frame = "\x80\x00\x00\x00\x0fgrpc-status:0\r\n"
	for _, c := range []struct {
		name, accept, contentType string
		status                    int
		body                      []string
		trailers                  *http.Headers
		want, wantType            string
		message                   string
	}{
		{"bytes", "", "application/grpc", 200, []string{message, message}, &trailers, message + message + frame, "application/grpc-web+proto", ""},
		{"text", "application/grpc-web-text", "application/grpc+proto", 200, []string{message}, &trailers,
			base64.StdEncoding.EncodeToString([]byte(message)) + base64.StdEncoding.EncodeToString([]byte(frame)), "application/grpc-web-text+proto", ""},
		{"only a head", "", "application/grpc", 200, nil, nil, "", "application/grpc-web+proto", ""},
		{"a page", "", "text/html", 404, []string{"<p>", "100%"}, nil, "", "application/grpc-web+proto", "<p>100%25"},
		{"a failure of HTTP", "", "application/grpc", 503, []string{"no"}, nil, "", "application/grpc-web+proto", "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := stats.NewStore()
			f := newFilter(t, store)
			s := request("application/grpc-web", c.accept)
			f.OnRequest(s, 0)
			s.Response.Status = c.status
			s.Response.Headers = fields("content-type", c.contentType)
			s.Response.Body = &pieces{left: c.body, trailers: c.trailers}
			if c.trailers == nil && c.body == nil {
				s.Response.Headers.Add([]byte("grpc-status"), []byte("0"))
			}
			f.OnResponse(s, 0)
			h := &s.Response.Headers
			if got := all(t, s.Response.Body); got != c.want {
				t.Errorf("body %q, want %q", got, c.want)
			}
			if string(h.Get("content-type")) != c.wantType || string(h.Get("grpc-message")) != c.message {
				t.Errorf("head %s", h.Fields)
			}
			f.(http.Ender).OnEnd(s, 0)
			want := uint64(1)
			if c.message != "" {
				want = 0 // of what the server said there is no status
			}
			if n := store.Scope("cluster.c.grpc-web.svc.Get.").Counter("success").Value(); n != want && c.message == "" {
				t.Errorf("%d calls succeeded", n)
			}
		})
	}
}

// TestOthers: what is no gRPC-Web passes.
func TestOthers(t *testing.T) {
	for _, contentType := range []string{"application/grpc", "text/plain", "application/grpc-web-json"} {
		f, s := newFilter(t, stats.NewStore()), request(contentType, "", "body")
		f.OnRequest(s, 0)
		s.Response.Headers = fields("content-type", "text/plain")
		f.OnResponse(s, 0)
		f.(http.Ender).OnEnd(s, 0)
		if got := all(t, s.Request.Body); got != "body" || s.Request.Headers.Has("te") || string(s.Response.Headers.Get("content-type")) != "text/plain" {
			t.Errorf("%s: %q, %s", contentType, got, s.Response.Headers.Fields)
		}
	}
}

// FuzzText: how text is cut does not matter, and what it means is what it was made of.
func FuzzText(f *testing.F) {
	f.Add([]byte(message), uint8(3), uint8(7))
	f.Fuzz(func(t *testing.T, body []byte, one, two uint8) {
		text := base64.StdEncoding.EncodeToString(body)
		i := min(int(one), len(text))
		j := min(i+int(two), len(text))
		s := request("application/grpc-web-text", "", text[:i], text[i:j], text[j:])
		if newFilter(t, stats.NewStore()).OnRequest(s, 0) == http.Replied {
			t.Fatal("refused")
		}
		if got := all(t, s.Request.Body); !bytes.Equal([]byte(got), body) {
			t.Errorf("%q became %q", body, got)
		}
	})
}
