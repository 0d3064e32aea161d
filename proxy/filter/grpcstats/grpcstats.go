// Package grpcstats is the HTTP filter envoy.filters.http.grpc_stats: it counts gRPC
// requests of each cluster by their status, and their messages. Requests of another
// content type pass untouched.
package grpcstats

import (
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's canonical name, also the key of its filter state.
const Name = "envoy.filters.http.grpc_stats"

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{
		Name: Name, TypeURLs: []string{"type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"}, New: newFilter,
	}
}

func newFilter(cfg *anypb.Any, env http.Env) (http.Filter, error) {
	var c grpcstatsv3.FilterConfig
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	err := xds.Only(&c, "emit_filter_state", "stats_for_all_methods", "individual_method_stats_allowlist", "enable_upstream_stats",
		"replace_dots_in_grpc_service_name")
	if err != nil {
		return nil, err
	}
	f := &filter{emit: c.GetEmitFilterState(), timed: c.GetEnableUpstreamStats(), all: c.GetStatsForAllMethods().GetValue()}
	allowed := map[string]bool{}
	for _, service := range c.GetIndividualMethodStatsAllowlist().GetServices() {
		for _, method := range service.GetMethodNames() {
			allowed["/"+service.GetName()+"/"+method] = true
		}
	}
	f.table = NewTable(env.Stats, "grpc", func(path []byte) bool { return f.all || allowed[string(path)] })
	f.table.undot = f.all && c.GetReplaceDotsInGrpcServiceName()
	return f, nil
}

type filter struct {
	table *Table
	emit  bool
	timed bool // enable_upstream_stats
	all   bool // stats_for_all_methods
}

// OnRequest begins to count the messages of a gRPC request.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	if !s.Request.IsGRPC() {
		return http.Continue
	}
	c := &call{path: s.Request.Path}
	if f.all && !IsMethod(c.path) {
		return http.Continue
	}
	c.request = counted{Body: s.Request.Body, messages: &c.messages.Request}
	s.Request.Body = &c.request
	if f.emit {
		s.Info.SetState(Name, &c.messages)
	}
	s.SetState(slot, c)
	return http.Continue
}

// OnResponse begins to count the messages of its response.
func (f *filter) OnResponse(s *http.Stream, slot http.Slot) http.Verdict {
	if c, ok := s.State(slot).(*call); ok && s.Response.Body != nil {
		c.note(&s.Response.Headers)
		c.response = counted{Body: s.Response.Body, messages: &c.messages.Response, trailers: c.note}
		s.Response.Body = &c.response
	}
	return http.Continue
}

// OnEnd counts the call. One whose response never told a status is not counted.
func (f *filter) OnEnd(s *http.Stream, slot http.Slot) {
	c, ok := s.State(slot).(*call)
	if !ok {
		return
	}
	name := s.Info.ObservedCluster()
	if name == "" {
		return
	}
	n := f.table.Of(name, c.path)
	n.Add("request_message_count", c.messages.Request)
	n.Add("response_message_count", c.messages.Response)
	if !c.told {
		return
	}
	n.Count(c.code)
	if i := &s.Info; f.timed && i.UpstreamRequestEnd > 0 {
		end := i.UpstreamResponse // of an answer without a body
		if !c.response.last.IsZero() {
			end = c.response.last.Sub(i.Start)
		}
		n.scope.Histogram("upstream_rq_time").Record(uint64(max(0, end-i.UpstreamRequestEnd).Milliseconds()))
	}
}

// Messages counts the messages of one call. Filter state holds a pointer to it, so
// that whoever logs the stream sees the numbers of that moment.
type Messages struct {
	Request  uint64 `json:"request_message_count"`
	Response uint64 `json:"response_message_count"`
}

// A call is what the filter remembers of a gRPC request.
type call struct {
	path              []byte // valid until the stream is over
	code              int    // grpc-status of the response
	told              bool   // it was there
	messages          Messages
	request, response counted
}

// note remembers the status that head or trailers tell.
func (c *call) note(h *http.Headers) {
	if code, ok := http.ParseGRPCStatus(h.Get("grpc-status")); ok {
		c.code, c.told = code, true
	}
}
