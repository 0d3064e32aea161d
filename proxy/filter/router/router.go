// Package router is the terminal HTTP filter envoy.filters.http.router: it does what
// the matched route says. It answers redirects, direct responses and failures itself;
// else it sends the request to an endpoint of the chosen cluster, again if the retry
// policy orders so, and makes the answer the stream's response.
//
// The connection manager has chosen the route (a *route.Target) before. One call, kept
// in the filter's slot, is the router's memory of a stream. A request whose body is at
// hand is sent and its answer awaited in the stream's own goroutine; while a body is
// still coming, a second goroutine (the pump) moves it, so that an early answer gets
// through. Only requests that are wholly received are sent again, and only while their
// body fits the buffer limit.
package router

import (
	"fmt"
	"net/netip"
	"sync"

	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A Cluster is what the router needs of an upstream cluster.
type Cluster interface {
	Name() string
	// Pick chooses an endpoint, nil when none may take traffic.
	Pick(*lb.Context) *endpoint.Endpoint
	// HTTP is the pool of connections to an endpoint of the cluster for a priority.
	HTTP(ep *endpoint.Endpoint, priority int) *upstream.Pool
	// AutoSNI reports that the pool depends on the host of the request: HTTPFor.
	AutoSNI() bool
	HTTPFor(ep *endpoint.Endpoint, priority int, host string) *upstream.Pool
	// OriginalDstHeader names the header by which requests say where an ORIGINAL_DST cluster
	// connects to, "" for none.
	OriginalDstHeader() string
	Limits(priority int) *upstream.Limits
	Stats() *upstream.Stats
	// Report tells outlier detection how an endpoint answered: a status, 504 for a
	// timeout, 503 for a reset. Failures to connect it knows already.
	Report(ep *endpoint.Endpoint, status int)
}

// Deps are what the router uses of the proxy around it.
type Deps struct {
	// Cluster returns the live cluster of that name, nil when there is none. It may wait
	// for one that is about to be live.
	Cluster func(name string) Cluster
	// LocalAddress is the proxy's own address, appended to x-forwarded-for of mirrored requests.
	LocalAddress netip.Addr
}

// Factory compiles the router's configuration.
func Factory(d Deps) http.Factory {
	return http.Factory{
		Name:     "envoy.filters.http.router",
		TypeURLs: []string{"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
		Terminal: true,
		New:      func(cfg *anypb.Any, env http.Env) (http.Filter, error) { return newRouter(cfg, env, d) },
	}
}

// A router is shared by all streams of a connection manager.
type router struct {
	deps  Deps
	stats counters
	// quiet is suppress_envoy_headers.
	quiet bool
	// inbound: the router's upstream is the application that the proxy stands beside.
	inbound bool
	// respectExpected is respect_expected_rq_timeout.
	respectExpected bool
	calls           sync.Pool
	shadows         chan struct{} // bounds the mirrored requests in flight
}

const maxShadows = 1024

func newRouter(cfg *anypb.Any, env http.Env, d Deps) (*router, error) {
	var c routerv3.Router
	if cfg != nil {
		if err := cfg.UnmarshalTo(&c); err != nil {
			return nil, fmt.Errorf("router: %w", err)
		}
	}
	// Stats of routers are always kept, and there are no spans yet.
	if err := xds.Only(&c, "dynamic_stats", "start_child_span", "suppress_envoy_headers", "respect_expected_rq_timeout",
		"suppress_grpc_request_failure_code_stats"); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	r := &router{deps: d, stats: newCounters(env.Stats), quiet: c.GetSuppressEnvoyHeaders(), inbound: env.Direction == "INBOUND",
		respectExpected: c.GetRespectExpectedRqTimeout(), shadows: make(chan struct{}, maxShadows)}
	r.calls.New = func() any { return new(call) }
	return r, nil
}

// OnRequest does what the route says and leaves an answer.
func (r *router) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	t, _ := s.Route.(*route.Target)
	switch {
	case t == nil || t.Route == nil:
		r.stats.noRoute.Inc()
		s.Reply(http.Reply{Status: 404, Details: "route_not_found", Flag: streaminfo.NoRouteFound, GRPCStatus: -1})
	case t.Route.Redirect != nil:
		r.stats.redirect.Inc()
		s.Reply(redirect(s, t))
	case t.Route.Direct != nil:
		r.stats.direct.Inc()
		d := t.Route.Direct
		s.Reply(http.Reply{Status: d.Status, Body: d.Body, Details: "direct_response", GRPCStatus: -1, Prepend: prepend(s, t, nil)})
	default:
		r.forward(s, slot, t)
	}
	return http.Replied
}

// prepend gathers the headers that the route adds to an answer, after first.
func prepend(s *http.Stream, t *route.Target, first []http.Field) []http.Field {
	s.Response.Headers.Reset()
	s.Response.Headers.Fields = append(s.Response.Headers.Fields, first...)
	t.EditResponse(s, t.Weighted)
	if len(s.Response.Headers.Fields) == 0 {
		return nil
	}
	return append([]http.Field(nil), s.Response.Headers.Fields...)
}

func redirect(s *http.Stream, t *route.Target) http.Reply {
	scheme := "http"
	if p := s.Request.Headers.Get("x-forwarded-proto"); p != nil {
		scheme = string(p)
	}
	location := t.Route.AppendLocation(nil, &s.Request, scheme)
	first := []http.Field{{Name: []byte("location"), Value: location}}
	return http.Reply{Status: t.Route.Redirect.Status, Details: "direct_response", GRPCStatus: -1, Prepend: prepend(s, t, first)}
}

// forward sends the stream to its cluster.
func (r *router) forward(s *http.Stream, slot http.Slot, t *route.Target) {
	var c Cluster
	if t.Cluster != "" {
		c = r.deps.Cluster(t.Cluster)
	}
	if c == nil {
		r.stats.noCluster.Inc()
		s.Reply(http.Reply{Status: t.Route.Forward.ClusterNotFoundCode, Details: "cluster_not_found",
			Flag: streaminfo.NoClusterFound, GRPCStatus: -1, Prepend: prepend(s, t, nil)})
		return
	}
	r.stats.total.Inc()
	k := r.calls.Get().(*call)
	k.begin(r, s, t, c)
	s.SetState(slot, k)
	k.run()
}

// OnResponse does nothing: the answer is the router's own.
func (r *router) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }

// OnEnd gives the upstream connection back.
func (r *router) OnEnd(s *http.Stream, slot http.Slot) {
	k, _ := s.State(slot).(*call)
	if k == nil {
		return
	}
	s.SetState(slot, nil)
	k.end()
	r.calls.Put(k)
}
