package cluster

import (
	"errors"
	"fmt"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// errorMatcher tells which answers are errors to outlier detection; nil: those of 5xx.
type errorMatcher func(*http.Response) bool

// maxRules bounds the conditions of an error_matcher.
const maxRules = 1000

func decodeErrors(o *httpv3.HttpProtocolOptions_OutlierDetection) (errorMatcher, error) {
	if o == nil {
		return nil, nil
	}
	left := maxRules
	m, err := newErrorMatcher(o.GetErrorMatcher(), &left)
	return m, at("outlier_detection.error_matcher", err)
}

// newErrorMatcher compiles one predicate; left are the rules that may still come.
func newErrorMatcher(p *matcherv3.MatchPredicate, left *int) (errorMatcher, error) {
	if *left--; *left < 0 {
		return nil, fmt.Errorf("more than %d rules", maxRules)
	}
	switch r := p.GetRule().(type) {
	case *matcherv3.MatchPredicate_AnyMatch:
		return func(*http.Response) bool { return true }, nil
	case *matcherv3.MatchPredicate_NotMatch:
		inner, err := newErrorMatcher(r.NotMatch, left)
		return func(x *http.Response) bool { return !inner(x) }, at("not_match", err)
	case *matcherv3.MatchPredicate_OrMatch:
		return newErrorMatchers(r.OrMatch.GetRules(), left, true)
	case *matcherv3.MatchPredicate_AndMatch:
		return newErrorMatchers(r.AndMatch.GetRules(), left, false)
	case *matcherv3.MatchPredicate_HttpResponseHeadersMatch:
		return newHeadersMatcher(r.HttpResponseHeadersMatch)
	case nil:
		return nil, errors.New("value is required")
	}
	return nil, xds.Only(p, "any_match", "not_match", "or_match", "and_match", "http_response_headers_match")
}

// newErrorMatchers combines several; the first that yields enough decides.
func newErrorMatchers(rules []*matcherv3.MatchPredicate, left *int, enough bool) (errorMatcher, error) {
	if len(rules) < 2 {
		return nil, errors.New("rules: value must contain at least 2 item(s)")
	}
	var list []errorMatcher
	for i, p := range rules {
		m, err := newErrorMatcher(p, left)
		if err != nil {
			return nil, at(fmt.Sprintf("rules[%d]", i), err)
		}
		list = append(list, m)
	}
	return func(x *http.Response) bool {
		for _, m := range list {
			if m(x) == enough {
				return enough
			}
		}
		return !enough
	}, nil
}

// newHeadersMatcher wants all of the headers, ":status" among them.
func newHeadersMatcher(h *matcherv3.HttpHeadersMatch) (errorMatcher, error) {
	var list []match.Header
	for i, pb := range h.GetHeaders() {
		m, err := match.NewHeader(pb)
		if err != nil {
			return nil, at(fmt.Sprintf("http_response_headers_match.headers[%d]", i), err)
		}
		list = append(list, m)
	}
	return func(x *http.Response) bool {
		for i := range list {
			if !list[i].Match(x) {
				return false
			}
		}
		return true
	}, nil
}

// Answered tells outlier detection what ep has answered. Where the cluster says which
// answers are errors (error_matcher), any other is a success, and one below 500 that is an
// error counts as a status of 500.
func (c *Cluster) Answered(ep *endpoint.Endpoint, r *http.Response) {
	status := r.Status
	if m := ep.Owner.(*host).cluster.config.http.errors; m != nil {
		if !m(r) {
			status = 200
		} else if status < 500 {
			status = 500
		}
	}
	c.Report(ep, status)
}
