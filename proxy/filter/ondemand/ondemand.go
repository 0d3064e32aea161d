// Package ondemand is the HTTP filter envoy.filters.http.on_demand: a request to a host
// that has no routes waits while they are asked for, where the route configuration says
// that virtual hosts come by themselves (VHDS). It is then routed anew.
package ondemand

import (
	ondemandv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/on_demand/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{
		Name: "envoy.filters.http.on_demand", TypeURLs: []string{"type.googleapis.com/envoy.extensions.filters.http.on_demand.v3.OnDemand"},
		New: func(cfg *anypb.Any, _ http.Env) (http.Filter, error) {
			var c ondemandv3.OnDemand
			if err := cfg.UnmarshalTo(&c); err != nil {
				return nil, err
			}
			return filter{}, xds.Only(&c) // clusters on demand are not supported
		},
	}
}

type filter struct{}

// OnRequest waits for routes where there are none.
func (filter) OnRequest(s *http.Stream, _ http.Slot) http.Verdict {
	if s.Route == nil {
		s.Demand()
	}
	return http.Continue
}

// OnResponse does nothing.
func (filter) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }
