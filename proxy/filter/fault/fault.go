// Package fault is the HTTP filter envoy.filters.http.fault: it delays or aborts a
// share of the requests, as its own configuration or that of the route asks.
//
// The route's configuration takes the place of the filter's as a whole. README.md
// has fields, behaviour and what differs from Envoy.
package fault

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	commonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's canonical name, also the namespace of its dynamic metadata.
const Name = "envoy.filters.http.fault"

const typeURL = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{Name: Name, TypeURLs: []string{typeURL}, New: newFilter, Override: newOverride}
}

func newFilter(cfg *anypb.Any, env http.Env) (http.Filter, error) {
	s, err := compile(cfg, env.Runtime)
	if err != nil {
		return nil, err
	}
	scope := env.Stats.Scope("fault")
	return &filter{
		settings: s, aborts: scope.Counter("aborts_injected"), delays: scope.Counter("delays_injected"),
		rates:    scope.Counter("response_rl_injected"),
		overflow: scope.Counter("faults_overflow"), gauge: scope.Gauge("active_faults"),
	}, nil
}

func newOverride(cfg *anypb.Any, env http.Env) (any, error) { return compile(cfg, env.Runtime) }

// settings are a compiled HTTPFault.
type settings struct {
	delay    *delay // nil: none
	abort    *abort // nil: none
	rate     *rate  // nil: none
	cluster  string // "": any
	headers  []route.HeaderMatcher
	nodes    map[string]bool // nil: any
	limit    int64           // of active faults, -1: none
	metadata map[string]any
	knobs    knobs
}

type delay struct {
	fixed    time.Duration // 0: by header
	fraction match.Fraction
}

type abort struct {
	status   int // HTTP; 200 with a gRPC status
	grpc     int // -1: none
	byHeader bool
	body     []byte
	fraction match.Fraction
}

func compile(cfg *anypb.Any, values *runtime.Values) (*settings, error) {
	var f faultv3.HTTPFault
	if err := cfg.UnmarshalTo(&f); err != nil {
		return nil, err
	}
	if err := f.Validate(); err != nil {
		return nil, err
	}
	// Stats by downstream cluster are never kept.
	err := xds.Only(&f, "delay", "abort", "upstream_cluster", "headers", "downstream_nodes", "max_active_faults", "response_rate_limit",
		"delay_percent_runtime", "abort_percent_runtime", "delay_duration_runtime", "abort_http_status_runtime", "max_active_faults_runtime",
		"response_rate_limit_percent_runtime", "abort_grpc_status_runtime", "disable_downstream_cluster_stats", "filter_metadata")
	if err != nil {
		return nil, err
	}
	s := &settings{cluster: f.GetUpstreamCluster(), limit: -1, knobs: newKnobs(&f, values)}
	if f.GetMaxActiveFaults() != nil {
		s.limit = int64(f.GetMaxActiveFaults().GetValue())
	}
	if f.GetFilterMetadata() != nil {
		s.metadata = f.GetFilterMetadata().AsMap()
	}
	for _, node := range f.GetDownstreamNodes() {
		if s.nodes == nil {
			s.nodes = map[string]bool{}
		}
		s.nodes[node] = true
	}
	if s.headers, err = route.NewHeaderMatchers("headers", f.GetHeaders()); err != nil {
		return nil, err
	}
	if s.delay, err = newDelay(f.GetDelay()); err != nil {
		return nil, fmt.Errorf("delay: %w", err)
	}
	if s.abort, err = newAbort(f.GetAbort()); err != nil {
		return nil, fmt.Errorf("abort: %w", err)
	}
	if s.rate, err = newRate(f.GetResponseRateLimit()); err != nil {
		return nil, fmt.Errorf("response_rate_limit: %w", err)
	}
	return s, nil
}

func newDelay(d *commonv3.FaultDelay) (*delay, error) {
	if d == nil {
		return nil, nil
	}
	out := &delay{fraction: match.NewFraction(d.GetPercentage())}
	switch s := d.GetFaultDelaySecifier().(type) {
	case *commonv3.FaultDelay_FixedDelay:
		out.fixed = s.FixedDelay.AsDuration()
	case *commonv3.FaultDelay_HeaderDelay_:
	default:
		return nil, errors.New("fault_delay_secifier: not set")
	}
	return out, nil
}

func newAbort(a *faultv3.FaultAbort) (*abort, error) {
	if a == nil {
		return nil, nil
	}
	out := &abort{grpc: -1, body: []byte("fault filter abort"), fraction: match.NewFraction(a.GetPercentage())}
	if a.GetResponseBody() != "" {
		out.body = []byte(a.GetResponseBody())
	}
	switch e := a.GetErrorType().(type) {
	case *faultv3.FaultAbort_HttpStatus:
		out.status = int(e.HttpStatus)
	case *faultv3.FaultAbort_GrpcStatus:
		out.status, out.grpc = 200, int(e.GrpcStatus)
	case *faultv3.FaultAbort_HeaderAbort_:
		out.byHeader = true
	default:
		return nil, errors.New("error_type: not set")
	}
	return out, nil
}

// filter is the filter of one chain.
type filter struct {
	settings                        *settings
	aborts, delays, rates, overflow *stats.Counter
	gauge                           *stats.Gauge
	active                          atomic.Int64 // streams with a fault; what max_active_faults bounds
}

// A fate is the state of a stream that counts as an active fault.
type fate struct{ rate int64 } // of its answer in bytes per second, 0: none

// OnRequest waits, then aborts, as the settings of filter or route ask.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	c := f.settings
	if override := s.Override(slot); override != nil {
		c, _ = override.(*settings) // nil: the route has disabled the filter
	}
	if c == nil || c.delay == nil && c.abort == nil && c.rate == nil || !c.applies(s) {
		return http.Continue
	}
	if s.Tell != nil {
		return c.foretell(s)
	}
	if d := c.delay.of(&s.Request, &c.knobs); d > 0 && f.begin(s, slot, c) {
		s.Info.Flags.Set(delayInjected)
		f.delays.Inc()
		if !wait(s, d) {
			return http.Replied // the client left
		}
	}
	if perSecond := c.rate.of(&s.Request, &c.knobs); perSecond > 0 && f.begin(s, slot, c) {
		f.rates.Inc()
		s.State(slot).(*fate).rate = perSecond
	}
	reply, ok := c.abort.of(&s.Request, &c.knobs)
	if !ok || !f.begin(s, slot, c) {
		return http.Continue
	}
	f.aborts.Inc()
	s.Reply(reply)
	return http.Replied
}

// OnResponse slows an answer down.
func (f *filter) OnResponse(s *http.Stream, slot http.Slot) http.Verdict {
	if x, ok := s.State(slot).(*fate); ok && x.rate > 0 && !s.Response.Body.Done() {
		s.Response.Body = newSlow(s, s.Response.Body, x.rate)
	}
	return http.Continue
}

// OnEnd gives back the stream's place among the active faults.
func (f *filter) OnEnd(s *http.Stream, slot http.Slot) {
	if s.State(slot) != nil {
		f.active.Add(-1)
		f.gauge.Dec()
	}
}

// begin counts the stream as an active fault, once; false when there are too many.
func (f *filter) begin(s *http.Stream, slot http.Slot, c *settings) bool {
	if s.State(slot) == nil {
		if !f.claim(c.knobs.most(c.limit)) {
			f.overflow.Inc()
			return false
		}
		f.gauge.Inc()
		s.SetState(slot, &fate{})
	}
	if c.metadata != nil {
		if s.Info.Metadata == nil {
			s.Info.Metadata = map[string]map[string]any{}
		}
		s.Info.Metadata[Name] = c.metadata
	}
	return true
}

// claim counts an active fault unless limit of them are; below 0 there is no limit.
func (f *filter) claim(limit int64) bool {
	for {
		n := f.active.Load()
		if limit >= 0 && n >= limit {
			return false
		}
		if f.active.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// applies reports whether the request is one that faults are meant for.
func (c *settings) applies(s *http.Stream) bool {
	if c.cluster != "" && s.Info.Cluster != c.cluster {
		return false
	}
	if c.nodes != nil {
		node, ok := s.Request.Headers.First("x-envoy-downstream-service-node")
		if !ok || !c.nodes[strings.TrimSpace(string(node))] {
			return false
		}
	}
	return route.MatchesAll(c.headers, &s.Request)
}
