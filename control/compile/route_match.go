package compile

import (
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ingress"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// applies decides the conditions of a match block that are known beforehand: the
// port, the gateway and the workload that calls.
func (rc *ruleContext) applies(m *networking.HTTPMatchRequest) bool {
	if m == nil {
		return true
	}
	if m.GetPort() != 0 && m.GetPort() != rc.port || rc.neverClaims(m) {
		return false
	}
	return rc.from(m.GetGateways(), m.GetSourceLabels(), m.GetSourceNamespace())
}

// from reports whether this proxy is among the callers that a match names. A
// gateway is a caller with labels and a namespace of its own, so what is meant for
// certain workloads is not open to the world; a match that names the gateway is.
func (rc *ruleContext) from(gateways []string, labels map[string]string, namespace string) bool {
	if len(gateways) > 0 {
		if !slices.Contains(gateways, rc.gateway) {
			return false
		}
		if rc.gateway != mesh.MeshGateway {
			return true
		}
	}
	for k, v := range labels {
		if rc.proxy.Labels[k] != v {
			return false
		}
	}
	return namespace == "" || namespace == rc.proxy.Namespace
}

func routeMatch(m *networking.HTTPMatchRequest) ir.RouteMatch {
	if m == nil {
		return ir.RouteMatch{Path: ir.PathMatch{Value: "/"}}
	}
	out := ir.RouteMatch{Path: pathMatch(m.GetUri())}
	out.Path.IgnoreCase, out.Path.StateCase = m.GetIgnoreUriCase(), true
	out.Headers, out.Claims = headerMatches(m), claimMatches(m)
	for _, name := range slices.Sorted(maps.Keys(m.GetQueryParams())) {
		out.Query = append(out.Query, ir.QueryMatch{Name: name, StringMatch: stringMatch(m.GetQueryParams()[name])})
	}
	return out
}

// byParts has the prefix of a rule that was made of an Ingress compared by whole parts.
func byParts(v *mesh.VirtualService, m ir.RouteMatch) ir.RouteMatch {
	if m.Path.Kind != ir.PathPrefix || v.Annotations[ingress.SemanticsAnnotation] != ingress.Semantics {
		return m
	}
	if stem := strings.TrimSuffix(m.Path.Value, "/"); stem != "" {
		m.Path.Kind, m.Path.Value = ir.PathSeparated, stem
	}
	return m
}

func pathMatch(m *networking.StringMatch) ir.PathMatch {
	switch t := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return ir.PathMatch{Kind: ir.PathExact, Value: t.Exact}
	case *networking.StringMatch_Prefix:
		return ir.PathMatch{Kind: ir.PathPrefix, Value: t.Prefix}
	case *networking.StringMatch_Regex:
		return ir.PathMatch{Kind: ir.PathRegex, Value: t.Regex}
	}
	return ir.PathMatch{Kind: ir.PathPrefix, Value: "/"}
}

// headerMatches are the conditions on headers by name, then those on the parts of
// the request that Envoy shows as pseudo headers.
func headerMatches(m *networking.HTTPMatchRequest) []ir.HeaderMatch {
	var out []ir.HeaderMatch
	for name, value := range m.GetHeaders() {
		out = append(out, ir.HeaderMatch{Name: name, StringMatch: stringMatch(value)})
	}
	for name, value := range m.GetWithoutHeaders() {
		out = append(out, ir.HeaderMatch{Name: name, StringMatch: stringMatch(value), Invert: true})
	}
	// These keys are reserved for the fields of their name and have no effect here.
	out = slices.DeleteFunc(out, func(h ir.HeaderMatch) bool {
		return isClaim(h.Name) || slices.Contains([]string{"uri", "scheme", "method", "authority"}, h.Name)
	})
	slices.SortFunc(out, func(a, b ir.HeaderMatch) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		if a.Invert == b.Invert {
			return 0
		}
		if a.Invert {
			return 1
		}
		return -1
	})
	for _, pseudo := range []struct {
		name  string
		value *networking.StringMatch
	}{{":method", m.GetMethod()}, {":authority", m.GetAuthority()}, {":scheme", m.GetScheme()}} {
		if pseudo.value != nil {
			out = append(out, ir.HeaderMatch{Name: pseudo.name, StringMatch: stringMatch(pseudo.value)})
		}
	}
	return out
}

// stringMatch takes an empty match, and a regular expression that accepts
// everything, as "is present".
func stringMatch(m *networking.StringMatch) ir.StringMatch {
	switch t := m.GetMatchType().(type) {
	case *networking.StringMatch_Exact:
		return ir.StringMatch{Kind: ir.Exact, Value: t.Exact}
	case *networking.StringMatch_Prefix:
		return ir.StringMatch{Kind: ir.Prefix, Value: t.Prefix}
	case *networking.StringMatch_Regex:
		if t.Regex == "*" {
			return ir.StringMatch{Kind: ir.Present}
		}
		return ir.StringMatch{Kind: ir.Regex, Value: t.Regex}
	}
	return ir.StringMatch{Kind: ir.Present}
}
