package envoy

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Routes returns a route table patched. The table belongs to the Patches from then on.
func (p *Patches) Routes(rc *routev3.RouteConfiguration) *routev3.RouteConfiguration {
	if !p.any(ir.PatchRoutes, ir.PatchVirtualHost, ir.PatchRoute) {
		return rc
	}
	return p.table(p.context(strings.HasPrefix(rc.Name, "inbound|")), rc, rc.Name)
}

// table patches a route table that is, or is in, a resource.
func (p *Patches) table(c ir.PatchContext, rc *routev3.RouteConfiguration, resource string) *routev3.RouteConfiguration {
	for _, pt := range p.all[ir.PatchRoutes] {
		if pt.in(c) && pt.selectsTable(c, rc) {
			rc = p.ifUnique(pt, rc, merged(p, pt, rc, resource), resource)
		}
	}
	for _, pt := range p.all[ir.PatchVirtualHost] {
		if pt.Operation != ir.PatchAdd && pt.in(c) && pt.selectsTable(c, rc) {
			rc = p.ifUnique(pt, rc, p.virtualHosts(pt, rc, resource), resource)
		}
	}
	for _, pt := range p.all[ir.PatchRoute] {
		if !pt.in(c) || !pt.selectsTable(c, rc) {
			continue
		}
		for _, vh := range rc.VirtualHosts {
			if pt.selectsVirtualHost(vh) {
				vh.Routes = edited(p, pt, vh.Routes, routes(pt, resource))
			}
		}
	}
	for _, pt := range p.all[ir.PatchVirtualHost] {
		if pt.Operation == ir.PatchAdd && pt.in(c) && pt.selectsTable(c, rc) {
			out := shallow(rc)
			out.VirtualHosts = append(out.VirtualHosts, clone[*routev3.VirtualHost](pt))
			p.touch(pt, resource)
			rc = p.ifUnique(pt, rc, out, resource)
		}
	}
	return rc
}

// shallow is a table with a list of virtual hosts of its own.
func shallow(rc *routev3.RouteConfiguration) *routev3.RouteConfiguration {
	hosts := rc.VirtualHosts
	rc.VirtualHosts = nil
	out := proto.Clone(rc).(*routev3.RouteConfiguration)
	rc.VirtualHosts, out.VirtualHosts = hosts, slices.Clone(hosts)
	return out
}

// virtualHosts changes the virtual hosts that a patch selects.
func (p *Patches) virtualHosts(pt *patch, rc *routev3.RouteConfiguration, resource string) *routev3.RouteConfiguration {
	out := shallow(rc)
	if pt.Operation == ir.PatchRemove {
		p.touch(pt, resource)
		out.VirtualHosts = slices.DeleteFunc(out.VirtualHosts, pt.selectsVirtualHost)
		return out
	}
	for i, vh := range out.VirtualHosts {
		switch {
		case !pt.selectsVirtualHost(vh):
		case pt.Operation == ir.PatchReplace:
			p.touch(pt, resource)
			out.VirtualHosts[i] = clone[*routev3.VirtualHost](pt)
		default:
			out.VirtualHosts[i] = merged(p, pt, vh, resource)
		}
	}
	return out
}

// ifUnique is the table after a patch, or that before it where a domain would be in two
// virtual hosts: proxies refuse the whole of such a table.
func (p *Patches) ifUnique(pt *patch, before, after *routev3.RouteConfiguration, resource string) *routev3.RouteConfiguration {
	of := map[string]string{}
	for _, vh := range after.VirtualHosts {
		for _, d := range vh.Domains {
			d = strings.ToLower(d)
			if other, taken := of[d]; taken {
				p.flaw(pt, resource, fmt.Errorf("domain %s would be in two virtual hosts, %s and %s", d, other, vh.Name))
				return before
			}
			of[d] = vh.Name
		}
	}
	return after
}

func routes(pt *patch, resource string) selection[*routev3.Route] {
	specific := pt.Routes != nil && pt.Routes.VirtualHost != nil && pt.Routes.VirtualHost.Route != nil
	return selection[*routev3.Route]{
		specific: specific || pt.Operation == ir.PatchRemove,
		present:  specific,
		selects:  func(r *routev3.Route) bool { return !specific || selectsRoute(pt.Routes.VirtualHost.Route, r) },
		resource: resource,
	}
}

func selectsRoute(s *ir.RouteSelector, r *routev3.Route) bool {
	if s.Name != "" && s.Name != r.Name {
		return false
	}
	switch s.Action {
	case "ROUTE":
		return r.GetRoute() != nil
	case "REDIRECT":
		return r.GetRedirect() != nil
	case "DIRECT_RESPONSE":
		return r.GetDirectResponse() != nil
	}
	return true
}

func (pt *patch) selectsVirtualHost(vh *routev3.VirtualHost) bool {
	if pt.Routes == nil || pt.Routes.VirtualHost == nil {
		return true
	}
	s := pt.Routes.VirtualHost
	return (s.Name == "" || s.Name == vh.Name) && (s.Domain == "" || slices.Contains(vh.Domains, s.Domain))
}

// selectsTable reads what a table is for from its name: "80", "example.com:80",
// "inbound|8080||", "http.80", "https.443.port-name.gateway.namespace".
func (pt *patch) selectsTable(c ir.PatchContext, rc *routev3.RouteConfiguration) bool {
	s := pt.Routes
	if s == nil {
		return true
	}
	if s.Name != "" && s.Name != rc.Name {
		return false
	}
	port, portName, gateway := "", "", ""
	switch c {
	case ir.PatchGateway:
		parts := strings.Split(rc.Name, ".")
		if len(parts) > 1 {
			port = parts[1]
		}
		if n := len(parts); n >= 5 { // a port's name has no dot, that of a gateway may have
			portName, gateway = parts[2], parts[n-1]+"/"+strings.Join(parts[3:n-1], ".")
		}
		if s.PortName != "" && s.PortName != portName || s.Gateway != "" && s.Gateway != gateway {
			return false
		}
	case ir.PatchInbound:
		port = strings.Split(rc.Name+"|", "|")[1]
	default:
		port = rc.Name[strings.LastIndexByte(rc.Name, ':')+1:]
	}
	return s.Port == 0 || port == strconv.FormatUint(uint64(s.Port), 10)
}
