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
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"

	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/format"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/runtime"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A Cluster is what the router needs of an upstream cluster.
type Cluster interface {
	Name() string
	// Pick chooses an endpoint, nil when none may take traffic.
	Pick(*lb.Context) *endpoint.Endpoint
	// HTTP is the pool of connections to an endpoint of the cluster for such a request.
	HTTP(ep *endpoint.Endpoint, w upstream.Wish) *upstream.Pool
	// Dial connects to an endpoint for what is not HTTP. The error is a *transport.Error, or
	// another one when there are too many connections.
	Dial(ctx context.Context, ep *endpoint.Endpoint, t transport.Target) (transport.Conn, error)
	// OriginalDstHeader names the header by which requests say where an ORIGINAL_DST cluster
	// connects to, "" for none.
	OriginalDstHeader() string
	Limits(priority int) *upstream.Limits
	Stats() *upstream.Stats
	// Answered tells outlier detection what an endpoint has answered, ReportFailure
	// that it did not: its time was over, or it broke off. Failures to connect it knows
	// already.
	Answered(ep *endpoint.Endpoint, r *http.Response)
	ReportFailure(ep *endpoint.Endpoint, timeout bool)
	// Drops reports that this request is one that the control plane wants dropped, and
	// whether it wants all dropped.
	Drops() (drop, all bool)
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
	// runtime may have values of another retry, or put a cluster in maintenance.
	runtime *runtime.Values
	// quiet is suppress_envoy_headers.
	quiet bool
	// inbound: the router's upstream is the application that the proxy stands beside.
	inbound bool
	// respectExpected is respect_expected_rq_timeout.
	respectExpected bool
	strict          []string // names of headers that must be as they should
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
		"suppress_grpc_request_failure_code_stats", "strict_check_headers", "reject_connect_request_early_data"); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	r := &router{deps: d, stats: newCounters(env.Stats), runtime: env.Runtime, quiet: c.GetSuppressEnvoyHeaders(), inbound: env.Direction == "INBOUND",
		respectExpected: c.GetRespectExpectedRqTimeout(), shadows: make(chan struct{}, maxShadows)}
	for i, name := range c.GetStrictCheckHeaders() {
		name = strings.ToLower(name)
		if checks[name] == nil {
			return nil, fmt.Errorf("router: strict_check_headers[%d] %q: not supported", i, name)
		}
		r.strict = append(r.strict, name)
	}
	r.calls.New = func() any { return new(call) }
	return r, nil
}

// OnRequest does what the route says and leaves an answer.
func (r *router) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	if len(r.strict) > 0 {
		if reply, ok := r.check(&s.Request.Headers); !ok {
			s.Reply(reply)
			return http.Replied
		}
	}
	r.stats.total.Inc()
	return r.follow(s, slot)
}

// follow does what the route says.
func (r *router) follow(s *http.Stream, slot http.Slot) http.Verdict {
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
		s.Reply(direct(s, t))
	default:
		return r.forward(s, slot, t)
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

// direct is the answer of the route itself.
func direct(s *http.Stream, t *route.Target) http.Reply {
	d := t.Route.Direct
	var first []http.Field
	if d.Status == 201 || d.Status/100 == 3 { // these name a place, that of the request itself
		location := slices.Concat(scheme(s), []byte("://"), s.Request.Authority, s.Request.Path)
		first = append(first, http.Field{Name: []byte("location"), Value: location})
	}
	r := http.Reply{Status: d.Status, Body: d.Body, Details: "direct_response", GRPCStatus: -1, Prepend: prepend(s, t, first)}
	if d.Format == nil {
		return r
	}
	rec := format.Of(s)
	rec.LocalReplyBody = d.Body
	r.Body = d.Format.Append(nil, rec)
	if d.Type != "" {
		r.Prepend = append(r.Prepend, http.Field{Name: []byte("content-type"), Value: []byte(d.Type)})
	}
	return r
}

// scheme is what the client used.
func scheme(s *http.Stream) []byte {
	if p := s.Request.Headers.Get("x-forwarded-proto"); p != nil {
		return p
	}
	return []byte("http")
}

func redirect(s *http.Stream, t *route.Target) http.Reply {
	location := t.Route.AppendLocation(nil, s, string(scheme(s)))
	first := []http.Field{{Name: []byte("location"), Value: location}}
	return http.Reply{Status: t.Route.Redirect.Status, Details: "direct_response", GRPCStatus: -1, Prepend: prepend(s, t, first)}
}

// forward sends the stream to its cluster.
func (r *router) forward(s *http.Stream, slot http.Slot, t *route.Target) http.Verdict {
	var c Cluster
	if t.Cluster != "" {
		c = r.deps.Cluster(t.Cluster)
	}
	if c == nil && s.Reroute() { // it has gone since, and the route with it
		return r.follow(s, slot)
	}
	if c == nil {
		r.stats.noCluster.Inc()
		s.Reply(http.Reply{Status: t.Route.Forward.ClusterNotFoundCode, Details: "cluster_not_found",
			Flag: streaminfo.NoClusterFound, GRPCStatus: -1})
		return http.Replied
	}
	k := r.calls.Get().(*call)
	k.begin(r, s, t, c)
	s.SetState(slot, k)
	if r.maintained(c) {
		k.maintenance()
		return http.Replied
	}
	if drop, all := c.Drops(); drop {
		k.overload(all)
		return http.Replied
	}
	if k.run(); k.anew {
		return http.Again
	}
	return http.Replied
}

// maintained reports that the runtime puts a cluster in maintenance, for this request.
func (r *router) maintained(c Cluster) bool {
	share := r.runtime.Below("upstream.maintenance_mode.", c.Name(), match.Fraction{Denominator: 100})
	return share.Numerator > 0 && share.Of(rand.Uint64())
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
