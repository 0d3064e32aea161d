// Package grpcweb is the HTTP filter envoy.filters.http.grpc_web: it lets browsers, which
// see no trailers and may send no HTTP/2 of their own, call gRPC servers. What the
// browser sends becomes gRPC; of the answer the trailers become the last part of the
// body, and either body is base64 where the browser wants text.
package grpcweb

import (
	"errors"
	"strconv"
	"strings"

	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/grpcstats"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's canonical name.
const Name = "envoy.filters.http.grpc_web"

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{Name: Name, TypeURLs: []string{"type.googleapis.com/envoy.extensions.filters.http.grpc_web.v3.GrpcWeb"}, New: newFilter}
}

func newFilter(cfg *anypb.Any, env http.Env) (http.Filter, error) {
	var c grpcwebv3.GrpcWeb
	if cfg != nil {
		if err := cfg.UnmarshalTo(&c); err != nil {
			return nil, err
		}
	}
	if err := xds.Only(&c); err != nil {
		return nil, err
	}
	return &filter{table: grpcstats.NewTable(env.Stats, "grpc-web", grpcstats.IsMethod)}, nil
}

type filter struct{ table *grpcstats.Table }

// The content types.
const (
	typeGRPC      = "application/grpc"
	typeWeb       = "application/grpc-web"
	typeWebProto  = "application/grpc-web+proto"
	typeText      = "application/grpc-web-text"
	typeTextProto = "application/grpc-web-text+proto"
)

// A call is what the filter remembers of a stream.
type call struct {
	text     bool // the answer is to be text
	path     []byte
	request  decoder
	response encoder
}

// OnRequest makes a gRPC-Web request one of gRPC.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	h := &s.Request.Headers
	asked := string(h.Get("content-type"))
	text := asked == typeText || asked == typeTextProto
	if !text && asked != typeWeb && asked != typeWebProto {
		return http.Continue
	}
	accept := string(h.Get("accept"))
	c := &call{text: accept == typeText || accept == typeTextProto, path: s.Request.Path}
	s.SetState(slot, c)
	h.Remove("content-length")
	if s.Request.ContentLength > 0 {
		s.Request.ContentLength = -1
	}
	h.Set("content-type", []byte(typeGRPC))
	h.Set("te", []byte("trailers"))
	h.Set("grpc-accept-encoding", []byte("identity"))
	if !text || s.Request.Body.Done() {
		return http.Continue
	}
	c.request = decoder{Body: s.Request.Body}
	s.Request.Body = &c.request
	if err := c.request.ahead(); err != nil {
		details := "grpc_base_64_decode_failed"
		if errors.Is(err, errSize) {
			details = "grpc_base_64_decode_failed_bad_size"
		}
		s.Reply(http.Reply{Status: 400, Body: []byte("Bad gRPC-web request, invalid base64 data."), Details: details, GRPCStatus: -1,
			Close: s.Request.Protocol < http.HTTP2})
		return http.Replied
	}
	return http.Continue
}

// OnResponse makes a gRPC answer one of gRPC-Web, and any other one a failed call.
func (f *filter) OnResponse(s *http.Stream, slot http.Slot) http.Verdict {
	c, ok := s.State(slot).(*call)
	if !ok {
		return http.Continue
	}
	r := &s.Response
	foreign := !r.Body.Done() && !isGRPC(r)
	media := typeWebProto
	if c.text {
		media = typeTextProto
	}
	r.Headers.Set("content-type", []byte(media))
	if foreign {
		c.path = nil // no status was told
		transform(s)
		return http.Continue
	}
	if r.Body.Done() {
		return http.Continue
	}
	r.Headers.Remove("content-length")
	r.ContentLength = -1
	c.response = encoder{Body: r.Body, text: c.text, ended: func(t *http.Headers) { f.count(s, c, t) }}
	r.Body = &c.response
	return http.Continue
}

// isGRPC reports an answer whose body is for a gRPC client.
func isGRPC(r *http.Response) bool {
	media, _, _ := strings.Cut(string(r.Headers.Get("content-type")), ";")
	switch media = strings.TrimSpace(media); {
	case media == typeWebProto || media == typeTextProto:
		return true
	case r.Status != 200:
		return false
	}
	return media == typeGRPC || strings.HasPrefix(media, typeGRPC+"+")
}

// maxMessage bounds how much of a body that is no gRPC becomes a grpc-message.
const maxMessage = 16384

// transform tells in gRPC's terms what an answer says that is none of gRPC.
func transform(s *http.Stream) {
	r := &s.Response
	var text []byte
	for len(text) < maxMessage {
		p, err := r.Body.Next()
		if err != nil { // one that breaks off has said what it has said
			break
		}
		text = append(text, p[:min(len(p), maxMessage-len(text))]...)
	}
	h := &r.Headers
	h.Remove("content-length")
	h.Remove("transfer-encoding")
	h.Set("grpc-message", http.AppendGRPCMessage(nil, text))
	h.Set("grpc-status", strconv.AppendInt(nil, int64(http.GRPCStatus(r.Status)), 10))
	h.Set("content-length", []byte("0"))
	r.ContentLength, r.Body = 0, http.NoBody
}

// OnEnd counts a call whose status was in the head; others count when their trailers come.
func (f *filter) OnEnd(s *http.Stream, slot http.Slot) {
	if c, ok := s.State(slot).(*call); ok && c.response.Body == nil && c.path != nil {
		f.count(s, c, &s.Response.Headers)
	}
}

// count counts the status that h tells.
func (f *filter) count(s *http.Stream, c *call, h *http.Headers) {
	name := s.Info.ObservedCluster()
	code, ok := http.ParseGRPCStatus(h.Get("grpc-status"))
	if name == "" || !ok || !grpcstats.IsMethod(c.path) {
		return
	}
	f.table.Of(name, c.path).Count(code)
}

var _ http.Ender = (*filter)(nil)
