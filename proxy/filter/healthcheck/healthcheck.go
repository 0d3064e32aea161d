// Package healthcheck is the HTTP filter envoy.filters.http.health_check: it knows the health
// checks among requests by their headers, and answers them by itself: with 200, with 503 when
// the proxy is failing, or by how many endpoints of some clusters are healthy.
//
// With pass_through_mode health checks go to the upstream while the proxy is well. With
// cache_time the upstream is asked at most once in that time; what it said is said again.
//
// Health checks are not counted among requests, and access logs can leave them out. While the
// proxy is failing all answers carry x-envoy-immediate-health-check-fail, so that those
// who call it choose somebody else.
package healthcheck

import (
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	checkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/health_check/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// Name is the filter's canonical name.
const Name = "envoy.filters.http.health_check"

const typeURL = "type.googleapis.com/envoy.extensions.filters.http.health_check.v3.HealthCheck"

// Deps are what the filter asks the proxy around it.
type Deps struct {
	// Failing reports that the proxy is to fail health checks.
	Failing func() bool
	// Members tells how many endpoints a cluster has, and how many of them are healthy or
	// degraded; ok is false where there is no such cluster.
	Members func(cluster string) (all, able int, ok bool)
	// Service is the proxy's service cluster (--service-cluster), which answers name.
	Service string
}

// Factory builds the filter.
func Factory(d Deps) http.Factory {
	return http.Factory{Name: Name, TypeURLs: []string{typeURL},
		New: func(cfg *anypb.Any, _ http.Env) (http.Filter, error) { return newFilter(cfg, d) }}
}

type filter struct {
	deps    Deps
	headers []route.HeaderMatcher
	passes  bool // pass_through_mode
	least   []share
	service []byte

	every  time.Duration // cache_time, 0: nothing is kept
	began  time.Time
	cached atomic.Pointer[answer] // nil: none yet
}

// share is how many of a cluster's endpoints must be well.
type share struct {
	cluster string
	percent int
}

// answer is what was said last, and in which period.
type answer struct {
	period   int64
	status   int
	degraded bool
}

// mark says in a stream's slot that it is a health check.
type mark struct{}

func newFilter(cfg *anypb.Any, d Deps) (http.Filter, error) {
	var c checkv3.HealthCheck
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := c.ValidateAll(); err != nil {
		return nil, err
	}
	f := &filter{deps: d, passes: c.GetPassThroughMode().GetValue(), service: []byte(d.Service), every: c.GetCacheTime().AsDuration(), began: time.Now()}
	if f.every > 0 && !f.passes {
		return nil, errors.New("cache_time_ms must not be set when path_through_mode is disabled") // Envoy's words
	}
	var err error
	if f.headers, err = route.NewHeaderMatchers("headers", c.GetHeaders()); err != nil {
		return nil, err
	}
	for name, p := range c.GetClusterMinHealthyPercentages() {
		f.least = append(f.least, share{name, int(p.GetValue())})
	}
	slices.SortFunc(f.least, func(a, b share) int { return strings.Compare(a.cluster, b.cluster) })
	return f, nil
}

// OnRequest answers a health check that does not go to the upstream.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	if !route.MatchesAll(f.headers, &s.Request) {
		return http.Continue
	}
	s.SetState(slot, mark{})
	s.Info.HealthCheck = true
	failing, known := f.deps.Failing(), f.known()
	if f.passes && !failing && known == nil {
		return http.Continue
	}
	for body := s.Request.Body; !body.Done(); {
		if _, err := body.Next(); err != nil {
			return http.Replied // the connection manager knows why, or it was the end
		}
	}
	s.Reply(f.judge(failing, known))
	return http.Replied
}

// judge is the answer to a health check.
func (f *filter) judge(failing bool, known *answer) http.Reply {
	r := http.Reply{Status: 200, Details: "health_check_ok", GRPCStatus: -1}
	switch {
	case failing:
		r.Status, r.Details = 503, "health_check_failed"
	case known != nil:
		r.Status, r.Details = known.status, "health_check_cached"
		if known.degraded {
			r.Prepend = []http.Field{{Name: []byte("x-envoy-degraded")}}
		}
	default:
		f.count(&r)
	}
	if r.Status/100 != 2 {
		r.Flag = streaminfo.FailedLocalHealthCheck
	}
	return r
}

// count judges by the endpoints of clusters.
func (f *filter) count(r *http.Reply) {
	for _, want := range f.least {
		all, able, ok := f.deps.Members(want.cluster)
		switch {
		case !ok:
			r.Status, r.Details = 503, "health_check_failed_no_cluster_found"
			return
		case all == 0 && want.percent > 0:
			r.Status, r.Details = 503, "health_check_failed_cluster_empty"
			return
		case 100*able < all*want.percent:
			r.Status, r.Details = 503, "health_check_failed_cluster_unhealthy"
			return
		}
		r.Details = "health_check_ok_cluster_healthy"
	}
}

// known is what was said in this period, nil for nothing.
func (f *filter) known() *answer {
	if a := f.cached.Load(); a != nil && a.period == f.period() {
		return a
	}
	return nil
}

func (f *filter) period() int64 { return int64(time.Since(f.began) / max(f.every, 1)) }

// OnResponse keeps the answer to a health check, and tells everybody when the proxy is failing.
func (f *filter) OnResponse(s *http.Stream, slot http.Slot) http.Verdict {
	h := &s.Response.Headers
	if s.State(slot) != nil {
		if f.every > 0 {
			f.cached.Store(&answer{f.period(), s.Response.Status, h.Has("x-envoy-degraded")})
		}
		h.Set("x-envoy-upstream-healthchecked-cluster", f.service)
	}
	if f.deps.Failing() {
		h.Set("x-envoy-immediate-health-check-fail", []byte("true"))
	}
	return http.Continue
}
