package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

// RouteConfiguration returns the route resource of c.
func RouteConfiguration(c ir.RouteConfiguration) *routev3.RouteConfiguration {
	out := &routev3.RouteConfiguration{
		Name: c.Name,
		// A route may name a cluster that the proxy does not have (yet): 503 at the
		// request, not a refused table.
		ValidateClusters:         wrapperspb.Bool(false),
		IgnorePortInHostMatching: c.IgnoreHostPort,
	}
	if c.MaxDirectResponseBody > 0 {
		out.MaxDirectResponseBodySizeBytes = wrapperspb.UInt32(c.MaxDirectResponseBody)
	}
	for _, v := range c.VirtualHosts {
		out.VirtualHosts = append(out.VirtualHosts, virtualHost(v, c.MaxDirectResponseBody))
	}
	return out
}

func virtualHost(v ir.VirtualHost, maxBody uint32) *routev3.VirtualHost {
	out := &routev3.VirtualHost{
		Name:                       v.Name,
		Domains:                    v.Domains,
		IncludeRequestAttemptCount: v.AttemptCount,
	}
	if v.RequireTLS {
		out.RequireTls = routev3.VirtualHost_ALL
	}
	for _, r := range v.Routes {
		out.Routes = append(out.Routes, route(r, maxBody))
	}
	return out
}

// route spells a rule, or what stands in for one that a proxy would refuse.
func route(r ir.Route, maxBody uint32) *routev3.Route {
	if out := spell(r); flaw(r, out, maxBody) == nil {
		return out
	}
	return broken(r)
}

func spell(r ir.Route) *routev3.Route {
	out := &routev3.Route{
		Name:                 r.Name,
		StatPrefix:           r.StatPrefix,
		Match:                routeMatch(r.Match),
		Metadata:             origin(r.Origin),
		TypedPerFilterConfig: perFilterConfig(r),
	}
	out.RequestHeadersToAdd, out.RequestHeadersToRemove = headerValues(r.Headers.RequestAdd), r.Headers.RequestRemove
	out.ResponseHeadersToAdd, out.ResponseHeadersToRemove = headerValues(r.Headers.ResponseAdd), r.Headers.ResponseRemove
	if r.Operation != "" {
		out.Decorator = &routev3.Decorator{Operation: r.Operation}
	}
	switch {
	case r.Redirect != nil:
		out.Action = &routev3.Route_Redirect{Redirect: redirect(*r.Redirect)}
	case r.Direct != nil:
		out.Action = &routev3.Route_DirectResponse{DirectResponse: directResponse(*r.Direct)}
	case r.Forward != nil:
		out.Action = &routev3.Route_Route{Route: routeAction(*r.Forward)}
	}
	return out
}

// origin names the object in the form of the original, and kind, name and field in
// our own. Where that stands in a file is not part of it: moving an object within its
// file must change no resource.
func origin(o *ir.Origin) *corev3.Metadata {
	if o == nil {
		return nil
	}
	own := map[string]*structpb.Value{
		"kind":      structpb.NewStringValue(o.Kind),
		"namespace": structpb.NewStringValue(o.Namespace),
		"name":      structpb.NewStringValue(o.Name),
	}
	if o.Field != "" {
		own["field"] = structpb.NewStringValue(o.Field)
	}
	out := &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"lateen": {Fields: own}}}
	if o.Path != "" {
		out.FilterMetadata["istio"] = &structpb.Struct{Fields: map[string]*structpb.Value{
			"config": structpb.NewStringValue(o.Path)}}
	}
	return out
}

func headerValues(values []ir.HeaderValue) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	for _, v := range values {
		o := &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: v.Name, Value: v.Value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}
		if v.Append {
			o.AppendAction = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		}
		out = append(out, o)
	}
	return out
}
