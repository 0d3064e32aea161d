package compile

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// Patches returns what EnvoyFilters change in what the proxy gets, in the order in which
// it is done.
func Patches(s *mesh.Snapshot, p *mesh.Proxy) []ir.Patch {
	var list []ir.Patch
	for _, f := range s.EnvoyFilters(p) {
		for i, c := range f.Spec.ConfigPatches {
			if matchesProxy(c.GetMatch().GetProxy(), p) {
				list = append(list, patch(f, i, c))
			}
		}
	}
	return list
}

// AllPatches returns the patches of every EnvoyFilter, whether or not a proxy gets them:
// for finding those that no proxy could get.
func AllPatches(s *mesh.Snapshot) []ir.Patch {
	var list []ir.Patch
	for _, f := range s.AllEnvoyFilters() {
		for i, c := range f.Spec.ConfigPatches {
			list = append(list, patch(f, i, c))
		}
	}
	return list
}

// matchesProxy looks at the version and the metadata that a proxy gives. A pattern that
// is none matches nothing: it is refused when the object is read.
func matchesProxy(m *networking.EnvoyFilter_ProxyMatch, p *mesh.Proxy) bool {
	if m == nil {
		return true
	}
	if m.ProxyVersion != "" {
		re, err := regexp.Compile(m.ProxyVersion)
		if err != nil || p.IstioVersion == "" || !re.MatchString(p.IstioVersion) {
			return false
		}
	}
	for k, want := range m.Metadata {
		if have, ok := p.Text(k); !ok || have != want {
			return false
		}
	}
	return true
}

func patch(f *mesh.EnvoyFilter, index int, c *networking.EnvoyFilter_EnvoyConfigObjectPatch) ir.Patch {
	out := ir.Patch{
		Target:    ir.PatchTarget(c.ApplyTo.String()),
		Context:   ir.PatchContext(c.GetMatch().GetContext().String()),
		Listener:  listenerSelector(c.GetMatch().GetListener()),
		Routes:    routesSelector(c.GetMatch().GetRouteConfiguration()),
		Waypoint:  c.GetMatch().GetWaypoint() != nil,
		Operation: ir.PatchOperation(c.GetPatch().GetOperation().String()),
		Class:     ir.PatchClass(c.GetPatch().GetFilterClass().String()),
		Origin:    *originOf(f.Config, fmt.Sprintf("configPatches[%d]", index)),
	}
	if m := c.GetMatch().GetCluster(); m != nil {
		out.Cluster = &ir.ClusterSelector{Name: m.Name, Service: m.Service, Subset: m.Subset, Port: m.PortNumber}
	}
	if v := c.GetPatch().GetValue(); v != nil {
		// Keys are sorted, unlike those of protojson. What a Struct holds can be encoded
		// but for NaN and infinity, which neither YAML's decoder nor JSON lets through.
		text, _ := json.Marshal(v.AsMap())
		out.Value = string(text)
	}
	return out
}

func listenerSelector(m *networking.EnvoyFilter_ListenerMatch) *ir.ListenerSelector {
	if m == nil {
		return nil
	}
	out := &ir.ListenerSelector{Port: m.PortNumber, Name: m.Name, Filter: m.ListenerFilter}
	c := m.FilterChain
	if c == nil {
		return out
	}
	out.Chain = &ir.ChainSelector{Name: c.Name, ServerName: c.Sni, TransportProtocol: c.TransportProtocol, DestinationPort: c.DestinationPort}
	if c.ApplicationProtocols != "" {
		out.Chain.ApplicationProtocols = strings.Split(c.ApplicationProtocols, ",")
	}
	if c.Filter != nil {
		out.Chain.Filter = &ir.FilterSelector{Name: c.Filter.Name, HTTP: c.Filter.SubFilter != nil, HTTPFilter: c.Filter.SubFilter.GetName()}
	}
	return out
}

func routesSelector(m *networking.EnvoyFilter_RouteConfigurationMatch) *ir.RoutesSelector {
	if m == nil {
		return nil
	}
	out := &ir.RoutesSelector{Port: m.PortNumber, PortName: m.PortName, Gateway: m.Gateway, Name: m.Name}
	if v := m.Vhost; v != nil {
		out.VirtualHost = &ir.VirtualHostSelector{Name: v.Name, Domain: v.DomainName}
		if v.Route != nil {
			out.VirtualHost.Route = &ir.RouteSelector{Name: v.Route.Name, Action: v.Route.Action.String()}
		}
	}
	return out
}
