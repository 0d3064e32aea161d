package router

import (
	"bytes"
	"net/url"
	"slices"
	"strings"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
)

// What the passes of a stream whose redirects the proxy follows remember, in its filter state.
const (
	redirectsState = "num_internal_redirects"
	passedState    = "envoy.internal_redirect.previous_routes_predicate_state."
)

// A count is a number in filter state.
type count int

// follows judges an answer that sends the client elsewhere: true says that the request is now
// what the client would ask for next, and begins anew. Whatever forbids that leaves the answer
// to the client.
func (k *call) follows() bool {
	p := k.forward.Redirects
	if p == nil || !p.Codes[k.s.Response.Status] {
		return false
	}
	location := k.s.Response.Headers.Get("location")
	if len(location) == 0 || !k.s.Request.Body.Done() || !k.pump.settled() || !k.body.whole() || !k.redirect(p, string(location)) {
		k.stats.InternalRedirect(false)
		return false
	}
	k.stats.InternalRedirect(true)
	return true
}

// redirect changes the request as location says, unless the policy forbids it.
func (k *call) redirect(p *route.InternalRedirect, location string) bool {
	s, n := k.s, &k.r.stats
	to, err := url.Parse(location)
	if err != nil || to.Host == "" || to.Scheme != "http" && to.Scheme != "https" {
		n.badLocation.Inc()
		return false
	}
	from := "http"
	if v := s.Request.Headers.Get("x-forwarded-proto"); string(v) == "https" {
		from = "https"
	}
	if from != to.Scheme && !p.CrossScheme {
		n.unsafeScheme.Inc()
		return false
	}
	made, _ := s.Info.FilterState[redirectsState].(count)
	if int(made) >= p.Max {
		n.tooManyRedirects.Inc()
		return false
	}
	before := s.Request
	fields := slices.Clone(s.Request.Headers.Fields)
	k.copyHeaders(p.Copy)
	k.goTo(to, from)
	d := k.target.Table.Select(&route.Facts{Request: &s.Request, Info: &s.Info, TLS: from == "https", Metadata: s.Info.Metadata}, nil)
	ok := d.Route != nil
	if !ok {
		n.noRoute302.Inc()
	} else if ok = k.mayPass(p, d.Route, from, to.Scheme); !ok {
		n.predicate.Inc()
	}
	if !ok {
		s.Request = before
		s.Request.Headers.Fields = fields
		return false
	}
	k.prepareNext(d.Route, made)
	return true
}

// copyHeaders takes headers of the answer over into the request; one that it lacks is removed.
func (k *call) copyHeaders(names []string) {
	h := &k.s.Request.Headers
	for _, name := range names {
		name = strings.ToLower(name)
		h.Remove(name)
		if v := k.s.Response.Headers.Get(name); v != nil {
			h.Add([]byte(name), bytes.Clone(v))
		}
	}
}

// goTo changes the target of the request; what it was stands in a header.
func (k *call) goTo(to *url.URL, from string) {
	s := k.s
	r := &s.Request
	original := slices.Concat([]byte(from), []byte("://"), r.Authority, r.Path)
	path := to.EscapedPath()
	if path == "" {
		path = "/"
	}
	if to.RawQuery != "" {
		path += "?" + to.RawQuery
	}
	r.Authority, r.Path, r.Scheme = []byte(to.Host), []byte(path), []byte(to.Scheme)
	r.Headers.Set("x-envoy-original-url", original)
}

// mayPass asks the policy's predicates about the route that the redirect leads to.
func (k *call) mayPass(p *route.InternalRedirect, next *route.Route, from, to string) bool {
	if p.SafeScheme && from == "http" && to == "https" {
		return false
	}
	if p.Routes != nil && !slices.Contains(p.Routes, next.Name) {
		return false
	}
	passed, _ := k.s.Info.FilterState[k.passed()].([]string)
	return !p.NotBefore || !slices.Contains(passed, next.Name)
}

// passed is where it is remembered to which routes redirects of this one have led.
func (k *call) passed() string { return passedState + k.target.Route.Name }

// prepareNext makes the request ready for its next pass.
func (k *call) prepareNext(next *route.Route, made count) {
	s := k.s
	r := &s.Request
	passed, _ := s.Info.FilterState[k.passed()].([]string)
	s.Info.SetState(redirectsState, made+1)
	s.Info.SetState(k.passed(), append(passed, next.Name))
	body, trailers := bytes.Clone(k.body.bytes()), r.Body.Trailers()
	if m := string(r.Method); s.Response.Status == 303 && m != "GET" && m != "HEAD" {
		r.Method, r.ContentLength = []byte("GET"), 0
		r.Headers.Remove("content-length")
		body, trailers = nil, nil
	}
	r.Body = &repeated{Bytes: http.Bytes{B: body}, trailers: trailers}
}

// repeated is the body of a request that begins anew.
type repeated struct {
	http.Bytes
	trailers *http.Headers
}

// Trailers are those that came.
func (b *repeated) Trailers() *http.Headers { return b.trailers }
