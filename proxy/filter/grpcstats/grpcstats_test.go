package grpcstats_test

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/grpcstats"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

func config(t *testing.T, text string) *anypb.Any {
	t.Helper()
	var a anypb.Any
	if err := protojson.Unmarshal([]byte(`{"@type":"type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"`+text+`}`), &a); err != nil {
		t.Fatal(err)
	}
	return &a
}

// body gives one piece at a time, then trailers.
type body struct {
	pieces   []string
	trailers *http.Headers
}

func (b *body) Next() ([]byte, error) {
	if len(b.pieces) == 0 {
		return nil, io.EOF
	}
	p := b.pieces[0]
	b.pieces = b.pieces[1:]
	return []byte(p), nil
}
func (b *body) Ready() bool             { return true }
func (b *body) Done() bool              { return len(b.pieces) == 0 }
func (b *body) Trailers() *http.Headers { return b.trailers }

func drain(t *testing.T, b http.Body) {
	t.Helper()
	for {
		if _, err := b.Next(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

const message = "\x00\x00\x00\x00\x03abc"

func TestCall(t *testing.T) {
	for _, c := range []struct {
		name, contentType        string
		request, response        []string
		head, trailer            string // grpc-status
		want                     map[string]uint64
		requestCount, answerSize uint64
	}{
		{
			"success in trailers", "application/grpc", []string{message, message[:2], message[2:6], message[6:] + message}, []string{message + message}, "", "0",
			map[string]uint64{"total": 1, "success": 1, "0": 1, "request_message_count": 3, "response_message_count": 2}, 3, 2,
		},
		{"failure in trailers", "application/grpc+proto", []string{message}, []string{message}, "", "14", map[string]uint64{"total": 1, "failure": 1, "14": 1, "request_message_count": 1, "response_message_count": 1}, 1, 1},
		{"failure in the head", "application/grpc", nil, nil, "5", "", map[string]uint64{"total": 1, "failure": 1, "5": 1}, 0, 0},
		{"unknown status", "application/grpc", nil, nil, "99", "", map[string]uint64{"total": 1, "failure": 1}, 0, 0},
		{"no status", "application/grpc", []string{message}, nil, "", "", map[string]uint64{"request_message_count": 1}, 1, 0},
		{"not gRPC", "application/grpc-web", []string{message}, nil, "0", "", map[string]uint64{}, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := stats.NewStore()
			f, err := grpcstats.Factory().New(config(t, `,"emitFilterState":true,"statsForAllMethods":false`), http.Env{Stats: store.Scope("http.x.")})
			if err != nil {
				t.Fatal(err)
			}
			s := &http.Stream{}
			s.Begin(nil, 1, nil)
			s.Info.Cluster = "c"
			s.Request.Headers.Add([]byte("content-type"), []byte(c.contentType))
			s.Request.Body = &body{pieces: c.request}
			f.OnRequest(s, 0)
			drain(t, s.Request.Body)
			answer := &body{pieces: c.response}
			if c.trailer != "" {
				answer.trailers = &http.Headers{}
				answer.trailers.Add([]byte("grpc-status"), []byte(c.trailer))
			}
			if c.head != "" {
				s.Response.Headers.Add([]byte("grpc-status"), []byte(c.head))
			}
			s.Response.Body = answer
			f.OnResponse(s, 0)
			drain(t, s.Response.Body)
			f.(http.Ender).OnEnd(s, 0)
			for _, name := range []string{"total", "success", "failure", "0", "5", "14", "request_message_count", "response_message_count"} {
				if got := store.Scope("cluster.c.grpc.").Counter(name).Value(); got != c.want[name] {
					t.Errorf("%s: %d, want %d", name, got, c.want[name])
				}
			}
			counts, emitted := s.Info.FilterState[grpcstats.Name].(*grpcstats.Messages)
			if !emitted {
				counts = &grpcstats.Messages{}
			}
			if emitted == (c.name == "not gRPC") || counts.Request != c.requestCount || counts.Response != c.answerSize {
				t.Errorf("filter state %v, %v", counts, emitted)
			}
		})
	}
}

// TestClusterComesBack: a cluster that was removed, with its stats, is counted when it is
// back.
func TestClusterComesBack(t *testing.T) {
	store := stats.NewStore()
	f, err := grpcstats.Factory().New(config(t, ""), http.Env{Stats: store.Scope("http.x.")})
	if err != nil {
		t.Fatal(err)
	}
	call := func() {
		s := &http.Stream{}
		s.Begin(nil, 1, nil)
		s.Info.Cluster = "c"
		s.Request.Headers.Add([]byte("content-type"), []byte("application/grpc"))
		s.Request.Body = http.NoBody
		f.OnRequest(s, 0)
		s.Response.Headers.Add([]byte("grpc-status"), []byte("0"))
		s.Response.Body = http.NoBody
		f.OnResponse(s, 0)
		f.(http.Ender).OnEnd(s, 0)
	}
	call()
	call()
	store.Forget("cluster.c.")
	call()
	if n := store.Scope("cluster.c.grpc.").Counter("success").Value(); n != 1 {
		t.Errorf("%d calls counted since the cluster is back", n)
	}
}

func TestFilterStateIsJSON(t *testing.T) {
	text, err := json.Marshal(grpcstats.Messages{Request: 1, Response: 2})
	if err != nil || string(text) != `{"request_message_count":1,"response_message_count":2}` {
		t.Errorf("%s, %v", text, err)
	}
}

func TestRefused(t *testing.T) {
	for want, text := range map[string]string{
		"stats_for_all_methods: true is not supported":     `,"statsForAllMethods":true`,
		"enable_upstream_stats: not supported":             `,"enableUpstreamStats":true`,
		"individual_method_stats_allowlist: not supported": `,"individualMethodStatsAllowlist":{}`,
	} {
		if _, err := grpcstats.Factory().New(config(t, text), http.Env{Stats: stats.NewStore().Scope("")}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte(message+message), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, cut uint8) {
		whole, pieces := count(t, string(text)), count(t, string(text[:min(int(cut), len(text))]), string(text[min(int(cut), len(text)):]))
		if whole != pieces {
			t.Errorf("%d messages at once, %d in two pieces", whole, pieces)
		}
	})
}

func count(t *testing.T, pieces ...string) uint64 {
	f, err := grpcstats.Factory().New(config(t, `,"emitFilterState":true`), http.Env{Stats: stats.NewStore().Scope("")})
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Stream{}
	s.Begin(nil, 1, nil)
	s.Request.Headers.Add([]byte("content-type"), []byte("application/grpc"))
	s.Request.Body = &body{pieces: pieces}
	f.OnRequest(s, 0)
	drain(t, s.Request.Body)
	f.(http.Ender).OnEnd(s, 0)
	return s.Info.FilterState[grpcstats.Name].(*grpcstats.Messages).Request
}
