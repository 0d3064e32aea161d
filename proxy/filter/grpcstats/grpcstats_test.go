package grpcstats_test

import (
	"encoding/json"
	"errors"
	"io"
	"strconv"
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
			b.Trailers() // as whoever writes the body does
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
	call := func() { answered(f, "/s/m") }
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

// TestMethods: the names of stats, as the configuration chooses them.
func TestMethods(t *testing.T) {
	const allow = `,"individualMethodStatsAllowlist":{"services":[{"name":"a.Svc","methodNames":["Get"]}]}`
	for _, c := range []struct{ name, config, path, want string }{
		{"of the cluster", "", "/a.Svc/Get", "cluster.c.grpc.0"},
		{"of every method", `,"statsForAllMethods":true`, "/a.Svc/Get", "cluster.c.grpc.a.Svc.Get.0"},
		{"of a service without dots", `,"statsForAllMethods":true,"replaceDotsInGrpcServiceName":true`, "/a.Svc/Get", "cluster.c.grpc.a_Svc.Get.0"},
		{"of a listed method", allow, "/a.Svc/Get", "cluster.c.grpc.a.Svc.Get.0"},
		{"of another method", allow, "/a.Svc/Put", "cluster.c.grpc.0"},
		{"of what is no method", `,"statsForAllMethods":true`, "/a.Svc", ""},
		{"of more than a method", `,"statsForAllMethods":true`, "/a.Svc/Get/x", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := stats.NewStore()
			f, err := grpcstats.Factory().New(config(t, c.config+`,"enableUpstreamStats":true`), http.Env{Stats: store.Scope("http.x.")})
			if err != nil {
				t.Fatal(err)
			}
			answered(f, c.path)
			if n := store.Scope("").Counter(c.want).Value(); c.want != "" && n != 1 {
				t.Errorf("%s is %d", c.want, n)
			}
			if n := store.Scope("cluster.c.grpc.").Counter("0").Value(); c.want != "cluster.c.grpc.0" && n != 0 {
				t.Error("counted for the cluster")
			}
		})
	}
}

// TestManyMethods: a client that makes up methods does not make up stats without end.
func TestManyMethods(t *testing.T) {
	store := stats.NewStore()
	f, err := grpcstats.Factory().New(config(t, `,"statsForAllMethods":true`), http.Env{Stats: store.Scope("http.x.")})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		answered(f, "/s/m"+strconv.Itoa(i))
	}
	if n := store.Scope("cluster.c.grpc.").Counter("total").Value(); n != 2000-1024 {
		t.Errorf("%d calls count for the cluster alone", n)
	}
}

// answered is a call that has succeeded.
func answered(f http.Filter, path string) {
	s := &http.Stream{}
	s.Begin(nil, 1, nil)
	s.Info.Cluster = "c"
	s.Request.Path = []byte(path)
	s.Request.Headers.Add([]byte("content-type"), []byte("application/grpc"))
	s.Request.Body = http.NoBody
	f.OnRequest(s, 0)
	s.Response.Headers.Add([]byte("grpc-status"), []byte("0"))
	s.Response.Body = http.NoBody
	f.OnResponse(s, 0)
	f.(http.Ender).OnEnd(s, 0)
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
