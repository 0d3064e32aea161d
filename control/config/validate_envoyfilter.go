package config

import (
	"regexp"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/wellknown"
)

// The filter within which HTTP filters stand, in both of its names.
const (
	connectionManager    = "envoy.filters.network.http_connection_manager"
	connectionManagerOld = "envoy.http_connection_manager"
)

func validateEnvoyFilter(p place, o *Config) {
	f := o.Spec.(*networking.EnvoyFilter)
	if f.WorkloadSelector != nil {
		p.field("workloadSelector").selector(f.WorkloadSelector.Labels, "labels")
		if len(f.TargetRefs) > 0 {
			p.field("targetRefs").errorf("only one of workloadSelector and targetRefs can be set")
		}
	}
	p.targets(f.TargetRefs)
	for i, c := range f.ConfigPatches {
		validatePatch(p.at("configPatches", i), c)
	}
}

func validatePatch(p place, c *networking.EnvoyFilter_EnvoyConfigObjectPatch) {
	if c.ApplyTo == networking.EnvoyFilter_INVALID {
		p.field("applyTo").errorf("required")
	}
	switch {
	case c.Patch == nil:
		p.field("patch").errorf("required")
	case c.Patch.Operation == networking.EnvoyFilter_Patch_INVALID:
		p.field("patch.operation").errorf("required")
	case c.Patch.Operation != networking.EnvoyFilter_Patch_REMOVE && c.Patch.Value == nil:
		p.field("patch.value").errorf("required for operation %s", c.Patch.Operation)
	}
	if c.Match != nil {
		validatePatchMatch(p.field("match"), c)
	}
}

func validatePatchMatch(p place, c *networking.EnvoyFilter_EnvoyConfigObjectPatch) {
	m := c.Match
	if _, err := regexp.Compile(m.GetProxy().GetProxyVersion()); err != nil {
		p.field("proxy.proxyVersion").errorf("is not an RE2 expression: %v", err)
	}
	waypoint := m.GetWaypoint()
	if waypoint != nil {
		if n := waypoint.PortNumber; n != 0 {
			p.field("waypoint.portNumber").wrong(port(int64(n)))
		}
	}
	if isFor := m.Context == networking.EnvoyFilter_WAYPOINT; isFor != (waypoint != nil) {
		p.field("waypoint").errorf("has to be set for context WAYPOINT and for no other")
		return
	}
	if waypoint != nil || m.ObjectTypes == nil {
		return
	}
	switch c.ApplyTo {
	case networking.EnvoyFilter_LISTENER, networking.EnvoyFilter_FILTER_CHAIN, networking.EnvoyFilter_NETWORK_FILTER, networking.EnvoyFilter_HTTP_FILTER:
		if m.GetListener() == nil {
			p.errorf("applyTo %s needs a match of a listener", c.ApplyTo)
		} else if filter := m.GetListener().GetFilterChain().GetFilter(); filter != nil {
			validateFilterMatch(p.field("listener.filterChain.filter"), filter, c.ApplyTo)
		}
	case networking.EnvoyFilter_ROUTE_CONFIGURATION, networking.EnvoyFilter_VIRTUAL_HOST, networking.EnvoyFilter_HTTP_ROUTE:
		if m.GetRouteConfiguration() == nil {
			p.errorf("applyTo %s needs a match of a routeConfiguration", c.ApplyTo)
		}
	case networking.EnvoyFilter_CLUSTER:
		if m.GetCluster() == nil {
			p.errorf("applyTo CLUSTER needs a match of a cluster")
		}
	}
}

func validateFilterMatch(p place, f *networking.EnvoyFilter_ListenerMatch_FilterMatch, to networking.EnvoyFilter_ApplyTo) {
	if to == networking.EnvoyFilter_LISTENER || to == networking.EnvoyFilter_FILTER_CHAIN {
		p.warnf("has no effect with applyTo %s", to)
	}
	p.field("name").required(f.Name)
	p.oldFilterName(f.Name)
	if f.SubFilter == nil {
		return
	}
	at := p.field("subFilter")
	switch {
	case to != networking.EnvoyFilter_HTTP_FILTER:
		at.errorf("has a meaning with applyTo HTTP_FILTER only, not %s", to)
	case f.Name != "" && f.Name != connectionManager && f.Name != connectionManagerOld:
		at.errorf("is within the filter %s, not %q", connectionManager, shorten(f.Name))
	}
	at.field("name").required(f.SubFilter.Name)
	at.oldFilterName(f.SubFilter.Name)
}

// oldFilterName warns of the names that filters had before Envoy 1.14.
func (p place) oldFilterName(name string) {
	for _, family := range []string{wellknown.HTTPFilters, wellknown.NetworkFilters} {
		if now, ok := wellknown.CurrentFilterName(family, name); ok {
			p.field("name").warnf("%q is deprecated: the filter is called %q", name, now)
			return
		}
	}
}
