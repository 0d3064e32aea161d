// Package grpcstats is the HTTP filter envoy.filters.http.grpc_stats: it counts gRPC
// requests of each cluster by their status, and their messages. Requests of another
// content type pass untouched.
package grpcstats

import (
	"fmt"
	"strconv"
	"sync"

	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
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
	// Dots matter only in stats by service, which are refused.
	if err := xds.Only(&c, "emit_filter_state", "stats_for_all_methods", "replace_dots_in_grpc_service_name"); err != nil {
		return nil, err
	}
	if c.GetStatsForAllMethods().GetValue() {
		return nil, fmt.Errorf("stats_for_all_methods: true is not supported")
	}
	return &filter{clusters: env.Stats.Root().Scope("cluster"), emit: c.GetEmitFilterState()}, nil
}

type filter struct {
	clusters *stats.Scope
	emit     bool
	byName   sync.Map // cluster name → *counters; as many as there are clusters in routes
}

// counters are the stats of one cluster.
type counters struct {
	forgotten                               uint64 // of the scope when they were found
	total, success, failure, sent, received *stats.Counter
	codes                                   [17]*stats.Counter
}

// counters are those of a cluster. One that went has taken its stats along, and has new
// ones when it is back.
func (f *filter) counters(cluster string) *counters {
	forgotten := f.clusters.Forgotten()
	if c, ok := f.byName.Load(cluster); ok && c.(*counters).forgotten == forgotten {
		return c.(*counters)
	}
	s := f.clusters.Scope(cluster).Scope("grpc")
	c := &counters{
		forgotten: forgotten, total: s.Counter("total"), success: s.Counter("success"), failure: s.Counter("failure"),
		sent: s.Counter("request_message_count"), received: s.Counter("response_message_count"),
	}
	for i := range c.codes {
		c.codes[i] = s.Counter(strconv.Itoa(i))
	}
	f.byName.Store(cluster, c) // another one made at once has the same counters
	return c
}

// Messages counts the messages of one call. Filter state holds a pointer to it, so
// that whoever logs the stream sees the numbers of that moment.
type Messages struct {
	Request  uint64 `json:"request_message_count"`
	Response uint64 `json:"response_message_count"`
}

// A call is what the filter remembers of a gRPC request.
type call struct {
	messages          Messages
	request, response counted
}

// OnRequest begins to count the messages of a gRPC request.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	if !s.Request.IsGRPC() {
		return http.Continue
	}
	c := &call{}
	c.request = counted{Body: s.Request.Body, messages: &c.messages.Request}
	s.Request.Body = &c.request
	if f.emit {
		if s.Info.FilterState == nil {
			s.Info.FilterState = map[string]any{}
		}
		s.Info.FilterState[Name] = &c.messages
	}
	s.SetState(slot, c)
	return http.Continue
}

// OnResponse begins to count the messages of its response.
func (f *filter) OnResponse(s *http.Stream, slot http.Slot) http.Verdict {
	if c, ok := s.State(slot).(*call); ok && s.Response.Body != nil {
		c.response = counted{Body: s.Response.Body, messages: &c.messages.Response}
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
	cluster := s.Info.ObservedCluster()
	if cluster == "" {
		return
	}
	n := f.counters(cluster)
	n.sent.Add(c.messages.Request)
	n.received.Add(c.messages.Response)
	code, ok := status(s)
	if !ok {
		return
	}
	n.total.Inc()
	if code == 0 {
		n.success.Inc()
	} else {
		n.failure.Inc()
	}
	if code < len(n.codes) {
		n.codes[code].Inc()
	}
}

// status is the gRPC status that the response told in trailers or head.
func status(s *http.Stream) (int, bool) {
	rec := format.Of(s)
	told := s.Response.Headers.Has("grpc-status") || rec.ResponseTrailers != nil && rec.ResponseTrailers.Has("grpc-status")
	if !told {
		return 0, false
	}
	return format.GRPCStatus(rec)
}
