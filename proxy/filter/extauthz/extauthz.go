// Package extauthz asks a service outside whether a request may pass. It is the HTTP filter
// envoy.filters.http.ext_authz and the network filter envoy.filters.network.ext_authz.
//
// A filter makes a question of what it sees (check.go) and puts it to its service, which is
// one of gRPC (grpc.go) or of HTTP (httpservice.go). Either gives a decision, a plain value,
// and the filter carries it out (apply.go). The call is made in the stream's own goroutine
// over a cluster of the proxy, package callout; it ends with its time or with its client.
package extauthz

import (
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/types/known/anypb"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// Name is the HTTP filter's canonical name, and the namespace of its dynamic metadata.
const Name = "envoy.filters.http.ext_authz"

const (
	typeURL  = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
	routeURL = "type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute"
)

// Deps are what the filters use of the proxy around them.
type Deps struct {
	Calls *callout.Client
	// NodeMetadata is the metadata of the bootstrap's node, of which labels may be told.
	NodeMetadata map[string]any
	// Tell, if set, is told what the network filter would ask; it asks nobody then, and lets pass.
	Tell func(what string)
}

// Factory builds the HTTP filter.
func Factory(d Deps) http.Factory {
	return http.Factory{Name: Name, TypeURLs: []string{typeURL, routeURL},
		New:      func(cfg *anypb.Any, env http.Env) (http.Filter, error) { return newFilter(cfg, env, d) },
		Override: newOverride,
	}
}

// filter is the HTTP filter of one chain.
type filter struct {
	settings
	name  string // in its chain, by which routes name it
	deps  Deps
	stats counters
}

// kept is what the filter remembers of a stream that may pass.
type kept struct{ response []edit }

// OnRequest asks, and does what it is told.
func (f *filter) OnRequest(s *http.Stream, slot http.Slot) http.Verdict {
	t, _ := s.Route.(*route.Target)
	if t == nil || t.Route == nil {
		return http.Continue // nowhere to go
	}
	o, _ := s.Override(slot).(*override)
	if o != nil && o.disabled {
		return http.Continue
	}
	if s.Tell != nil {
		return f.foretell(s, o)
	}
	if !f.isOn(s) {
		f.stats.disabled.Inc()
		if !f.denyAtDisable.On() {
			return http.Continue
		}
		return f.refuse(s, reply{status: f.statusOnError, details: detailsError})
	}
	var asked question
	if b := f.bodyOf(o); b != nil && !s.Request.Body.Done() && !tunnels(&s.Request) && !f.hold(s, b, &asked) {
		return http.Replied
	}
	f.describe(s, t, &asked)
	began := time.Now()
	d, ok := f.serviceOf(o).decide(s, f.deps.Calls, &asked)
	if !ok {
		return http.Replied // the client has left
	}
	f.keepMetadata(s, d, time.Since(began))
	return f.carryOut(s, slot, d)
}

// tunnels reports that what follows a request's head is no body, and may never end.
func tunnels(r *http.Request) bool { return r.Upgrade != nil || string(r.Method) == "CONNECT" }

// isOn reports that the filter runs for a stream.
func (f *filter) isOn(s *http.Stream) bool {
	if f.enabled != nil && !f.enabled.Of(rand.Uint64()) {
		return false
	}
	return f.enabledBy == nil || f.enabledBy.Match(s.Info.Metadata)
}

// foretell says what the filter would do, without doing it.
func (f *filter) foretell(s *http.Stream, o *override) http.Verdict {
	if f.enabledBy == nil || f.enabledBy.Match(s.Info.Metadata) {
		s.Tell("ext_authz: " + f.serviceOf(o).String() + " is asked")
	}
	return http.Continue
}

// OnResponse adds what the service wants the client to be told.
func (f *filter) OnResponse(s *http.Stream, slot http.Slot) http.Verdict {
	k, _ := s.State(slot).(*kept)
	if k == nil {
		return http.Continue
	}
	for i := range k.response {
		k.response[i].apply(&s.Response.Headers)
	}
	return http.Continue
}

// question is what is asked about one request.
type question struct {
	check    authv3.CheckRequest
	body     []byte // that of the request, or its first part; nil where it is not told
	received int    // bytes of the body that have been read
}

// A service is who decides.
type service interface {
	// decide asks; false: nobody waits for the answer any more.
	decide(s *http.Stream, c *callout.Client, q *question) (*decision, bool)
	String() string // "cluster NAME by gRPC"
}

// Response code details.
const (
	detailsDenied  = "ext_authz_denied"
	detailsError   = "ext_authz_error"
	detailsInvalid = "ext_authz_invalid"
)

// reply is an answer in place of the request's.
type reply struct {
	status  int
	body    []byte
	headers []edit
	details string
}

// refuse answers a stream.
func (f *filter) refuse(s *http.Stream, r reply) http.Verdict {
	var h http.Headers
	for _, e := range r.headers {
		if e.name != "content-length" || len(r.body) > 0 { // the codec's, for what has no body
			h.Add([]byte(e.name), []byte(e.value))
		}
	}
	s.Reply(http.Reply{Status: r.status, Body: r.body, Details: r.details, Flag: streaminfo.UnauthorizedExternalService, Prepend: h.Fields, GRPCStatus: -1})
	return http.Replied
}

// counters are the filter's stats, "http.<prefix>.ext_authz.[<stat_prefix>.]".
type counters struct {
	ok, denied, failed, allowed, disabled, invalid, ignoredMetadata *stats.Counter

	prefix string // of the names below a cluster
}

func newCounters(s *stats.Scope, prefix string) counters {
	n := "ext_authz"
	if prefix != "" {
		n += "." + prefix
	}
	s = s.Scope(n)
	for _, name := range []string{"filter_state_name_collision", "omitted_response_headers", "request_header_limits_reached",
		"response_header_limits_reached", "shadow_denied", "shadow_error"} {
		s.Counter(name) // for what this filter does not do
	}
	return counters{ok: s.Counter("ok"), denied: s.Counter("denied"), failed: s.Counter("error"), allowed: s.Counter("failure_mode_allowed"),
		disabled: s.Counter("disabled"), invalid: s.Counter("invalid"), ignoredMetadata: s.Counter("ignored_dynamic_metadata"), prefix: n + "."}
}

// count counts an outcome for the filter, and for the cluster that the request is for.
func (f *filter) count(s *http.Stream, c *stats.Counter, name string) {
	c.Inc()
	if to := f.target(s); to != nil {
		to.Stats().Counter(f.stats.prefix + name).Inc()
	}
}

// target is the cluster that the request is for, nil for none.
func (f *filter) target(s *http.Stream) callout.Cluster {
	if s.Info.Cluster == "" {
		return nil
	}
	return f.deps.Calls.Cluster(s.Info.Cluster)
}
