package compile

import (
	"fmt"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// maxDirectResponseBody is the largest body of a direct response in bytes.
const maxDirectResponseBody = 1 << 20

// Routes returns the route tables that the proxy asks for by their RDS names, in that
// order. Names that its listeners have no table for are left out.
func Routes(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy, names ...string) []*ir.RouteConfiguration {
	table := newSidecarTables(s, scope, p).table
	if p.Type == mesh.Router {
		table = newGatewayTables(s, scope, p).table
	}
	headers := proxyConfig(s, p).GetProxyHeaders()
	var out []*ir.RouteConfiguration
	for _, name := range names {
		if t := table(name); t != nil {
			routeHeaders(t, headers)
			out = append(out, t)
		}
	}
	return out
}

// Rules returns every HTTP rule of the mesh, one virtual host for each
// VirtualService, whether or not a proxy uses it: for finding rules that no proxy
// would take. Ports of destinations and what DestinationRules add are left out.
func Rules(s *mesh.Snapshot) ir.RouteConfiguration {
	rc := &ruleContext{snapshot: s, scope: &mesh.Scope{}}
	out := ir.RouteConfiguration{MaxDirectResponseBody: maxDirectResponseBody}
	for _, v := range s.VirtualServices() {
		vh := ir.VirtualHost{Name: v.Namespace + "/" + v.Name}
		for i, rule := range v.Spec.GetHttp() {
			for _, block := range matchBlocks(rule) {
				r := rc.httpRoute(v, rule, block)
				r.Origin = ruleOrigin(v, i)
				vh.Routes = append(vh.Routes, r)
			}
		}
		out.VirtualHosts = append(out.VirtualHosts, vh)
	}
	return out
}

// matchBlocks are the alternatives of a rule; nil stands for every request.
func matchBlocks(rule *networking.HTTPRoute) []*networking.HTTPMatchRequest {
	if len(rule.GetMatch()) == 0 {
		return []*networking.HTTPMatchRequest{nil}
	}
	return rule.GetMatch()
}

// ruleContext is where the HTTP rules of a VirtualService are put to use.
type ruleContext struct {
	snapshot *mesh.Snapshot
	scope    *mesh.Scope
	proxy    *mesh.Proxy
	port     uint32 // the port that clients call
	gateway  string // "namespace/name", or mesh
	tls      bool   // clients speak TLS to this table
}

// httpRoutes turns the HTTP rules of a VirtualService into routes, one for each
// match block that can apply here. Nothing after a rule that takes every request
// can be reached, so the list ends with the first one.
func (rc *ruleContext) httpRoutes(v *mesh.VirtualService) []ir.Route {
	var out []ir.Route
	for i, rule := range v.Spec.GetHttp() {
		for _, block := range matchBlocks(rule) {
			if !rc.applies(block) {
				continue
			}
			r := rc.httpRoute(v, rule, block)
			r.Origin = ruleOrigin(v, i)
			out = append(out, r)
			if catchesAll(r) {
				return out
			}
		}
	}
	return out
}

// ruleOrigin names the VirtualService as the original does, and in our own key the
// rule itself, which a delegate may hold.
func ruleOrigin(v *mesh.VirtualService, index int) *ir.Origin {
	o := originOf(v.Config, "")
	at := v.Origins[index]
	o.Namespace, o.Name, o.Field = at.Namespace, at.Name, fmt.Sprintf("http[%d]", at.Index)
	return o
}

// originOf is the origin of a field of an object.
func originOf(c *config.Config, field string) *ir.Origin {
	path := fmt.Sprintf("/apis/networking.istio.io/v1/namespaces/%s/%s/%s", c.Namespace, kebab(string(c.Kind)), c.Name)
	return &ir.Origin{Path: path, Kind: string(c.Kind), Namespace: c.Namespace, Name: c.Name, Field: field}
}

// kebab turns VirtualService into virtual-service.
func kebab(kind string) string {
	var b strings.Builder
	for i, r := range kind {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// httpRoute is one rule under one match block (nil: every request).
func (rc *ruleContext) httpRoute(v *mesh.VirtualService, rule *networking.HTTPRoute, block *networking.HTTPMatchRequest) ir.Route {
	r := ir.Route{
		Name:       rule.GetName(),
		StatPrefix: block.GetStatPrefix(),
		Match:      byParts(v, routeMatch(block)),
		Fault:      faultInjection(rule.GetFault()),
		CORS:       corsPolicy(rule.GetCorsPolicy()),
	}
	if n := block.GetName(); n != "" {
		r.Name += "." + n
	}
	var authority string
	r.Headers, authority = headerEdits(rule.GetHeaders())
	service := ""
	switch {
	case rule.GetRedirect() != nil:
		r.Redirect = rc.redirect(rule.GetRedirect())
	case rule.GetDirectResponse() != nil:
		r.Direct = directResponse(rule.GetDirectResponse())
	default:
		service = rc.forward(&r, rule, authority)
	}
	if service == "" { // no single destination that could name the operation
		service = fmt.Sprintf("%s:%d", v.Name, rc.port)
	}
	r.Operation = service + pathPattern(r.Match.Path)
	return r
}

// pathPattern is the path of a match as operations are named in spans.
func pathPattern(p ir.PathMatch) string {
	if p.Kind == ir.PathPrefix || p.Kind == ir.PathSeparated {
		return p.Value + "*"
	}
	return p.Value
}

// catchesAll reports whether a route takes every request.
func catchesAll(r ir.Route) bool {
	if len(r.Match.Headers)+len(r.Match.Query)+len(r.Match.Claims) > 0 {
		return false
	}
	switch r.Match.Path.Kind {
	case ir.PathPrefix:
		return r.Match.Path.Value == "/"
	case ir.PathRegex:
		return r.Match.Path.Value == ".*" || r.Match.Path.Value == "*"
	}
	return false
}

// clusterName is the name of the cluster for a port of a service, on the wire and in logs.
func clusterName(host, subset string, port uint32) string {
	return fmt.Sprintf("outbound|%d|%s|%s", port, subset, host)
}
