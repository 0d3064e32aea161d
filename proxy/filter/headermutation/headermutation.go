// Package headermutation is the HTTP filter envoy.filters.http.header_mutation: it changes
// headers and trailers of requests and responses, and the parameters of queries, by lists
// of mutations that are applied one after the other.
//
// The filter's own lists come first. Those of the matched route, its virtual host and its
// route table follow, all of them: from the most specific to the least, or the other way
// round with most_specific_header_mutations_wins. Trailers are changed where there are some.
package headermutation

import (
	"fmt"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's canonical name.
const Name = "envoy.filters.http.header_mutation"

const (
	typeURL  = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
	routeURL = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"
)

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{Name: Name, TypeURLs: []string{typeURL, routeURL}, New: newFilter, Override: newOverride}
}

// mutations are those of one level.
type mutations struct {
	request, requestTrailers   route.Mutations
	response, responseTrailers route.Mutations
	query                      []parameter
}

type filter struct {
	name     string
	own      *mutations
	specific bool // most_specific_header_mutations_wins
}

func newFilter(cfg *anypb.Any, env http.Env) (http.Filter, error) {
	var c mutationv3.HeaderMutation
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	own, err := compile(c.GetMutations())
	if err != nil {
		return nil, err
	}
	f := &filter{env.Name, own, c.GetMostSpecificHeaderMutationsWins()}
	if f.name == "" {
		f.name = Name
	}
	return f, nil
}

func newOverride(cfg *anypb.Any, _ http.Env) (any, error) {
	var c mutationv3.HeaderMutationPerRoute
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	return compile(c.GetMutations())
}

func compile(c *mutationv3.Mutations) (m *mutations, err error) {
	err = xds.Only(c, "request_mutations", "query_parameter_mutations", "response_mutations", "response_trailers_mutations",
		"request_trailers_mutations")
	if err != nil {
		return nil, fmt.Errorf("mutations: %w", err)
	}
	if err := c.ValidateAll(); err != nil {
		return nil, err
	}
	m = &mutations{}
	if m.request, err = route.NewMutations("request_mutations", c.GetRequestMutations()); err != nil {
		return nil, err
	}
	if m.requestTrailers, err = route.NewMutations("request_trailers_mutations", c.GetRequestTrailersMutations()); err != nil {
		return nil, err
	}
	if m.response, err = route.NewMutations("response_mutations", c.GetResponseMutations()); err != nil {
		return nil, err
	}
	if m.responseTrailers, err = route.NewMutations("response_trailers_mutations", c.GetResponseTrailersMutations()); err != nil {
		return nil, err
	}
	m.query, err = newParameters(c.GetQueryParameterMutations())
	return m, err
}

// levels are the lists that hold for a stream, in order; few is where they may lie.
func (f *filter) levels(s *http.Stream, few []*mutations) []*mutations {
	all := append(few, f.own)
	t, ok := s.Route.(*route.Target)
	if !ok {
		return all
	}
	for _, o := range t.Overrides(f.name, f.specific) {
		if m, ok := o.(*mutations); ok {
			all = append(all, m)
		}
	}
	return all
}

// OnRequest changes the request's head, and its trailers when they come.
func (f *filter) OnRequest(s *http.Stream, _ http.Slot) http.Verdict {
	var few [5]*mutations
	levels, trailers := f.levels(s, few[:0]), false
	for _, m := range levels {
		m.request.Apply(&s.Request.Headers, s)
		m.applyQuery(s)
		trailers = trailers || len(m.requestTrailers) > 0
	}
	if trailers && !s.Request.Body.Done() {
		s.Request.Body = &trailing{Body: s.Request.Body, apply: func(h *http.Headers) {
			for _, m := range f.levels(s, nil) {
				m.requestTrailers.Detached(h, s)
			}
		}}
	}
	return http.Continue
}

// OnResponse changes the response's head, and its trailers when they come.
func (f *filter) OnResponse(s *http.Stream, _ http.Slot) http.Verdict {
	var few [5]*mutations
	levels, trailers := f.levels(s, few[:0]), false
	for _, m := range levels {
		m.response.Apply(&s.Response.Headers, s)
		trailers = trailers || len(m.responseTrailers) > 0
	}
	if trailers && !s.Response.Body.Done() {
		s.Response.Body = &trailing{Body: s.Response.Body, apply: func(h *http.Headers) {
			for _, m := range f.levels(s, nil) {
				m.responseTrailers.Detached(h, s)
			}
		}}
	}
	return http.Continue
}

// trailing is a body whose trailers are changed.
type trailing struct {
	http.Body
	apply func(*http.Headers)
	done  bool
}

// Trailers are those of the body, changed the first time that somebody asks for them.
func (b *trailing) Trailers() *http.Headers {
	h := b.Body.Trailers()
	if h != nil && !b.done {
		b.done = true
		b.apply(h)
	}
	return h
}
