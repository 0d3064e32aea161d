package config

import (
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
)

// meshGateway is the reserved gateway name that stands for all sidecars.
const meshGateway = "mesh"

func validateVirtualService(p place, o *Config) {
	vs := o.Spec.(*networking.VirtualService)
	delegate := len(vs.Hosts) == 0
	if delegate {
		p.excluded("a VirtualService without hosts is a delegate and has http routes only", map[string]bool{
			"gateways": len(vs.Gateways) > 0, "tls": len(vs.Tls) > 0, "tcp": len(vs.Tcp) > 0})
	}
	gatewayNames(p.field("gateways"), vs.Gateways)
	validateVirtualHosts(p.field("hosts"), vs)
	if len(vs.Http) == 0 && len(vs.Tcp) == 0 && len(vs.Tls) == 0 {
		p.errorf("one of http, tls and tcp is required")
	}
	for i, r := range vs.Http {
		validateHTTPRoute(p.at("http", i), r, delegate)
		if !gatewaysOnly(vs) {
			refuseClaims(p.at("http", i), r)
		}
	}
	for i, r := range vs.Tls {
		validateTLSRoute(p.at("tls", i), r, vs)
	}
	for i, r := range vs.Tcp {
		validateTCPRoute(p.at("tcp", i), r)
	}
	p.exportTo(o.Namespace, vs.ExportTo, false)
	warnUnreachable(p, vs)
}

// gatewaysOnly reports whether the routes are for gateways and not for sidecars.
func gatewaysOnly(vs *networking.VirtualService) bool {
	return len(vs.Gateways) > 0 && !slices.Contains(vs.Gateways, meshGateway)
}

func gatewayNames(p place, names []string) {
	for i, g := range names {
		at := p.index(i)
		ns, name, split := strings.Cut(g, "/")
		switch {
		case !split:
			at.wrong(fqdn(g))
			if parts := strings.SplitN(g, ".", 3); len(parts) > 1 {
				at.add(Warning, "write "+quoted(parts[1]+"/"+parts[0]), "%q is the old form of a gateway name", shorten(g))
			}
		case ns == "" || name == "":
			at.errorf("must be namespace/name, got %q", shorten(g))
		case ns != "." && !isDNSLabel(ns):
			at.errorf("%q is not a namespace", shorten(ns))
		case !isDNSLabel(name):
			at.errorf("%q is not a gateway name", shorten(name))
		}
	}
}

func validateVirtualHosts(p place, vs *networking.VirtualService) {
	valid := true
	for i, h := range vs.Hosts {
		err := wildcardDomain(h)
		switch {
		case err != nil && generatedSNI(h) && gatewaysOnly(vs) && hasSNI(vs):
		case err != nil && !isIP(h):
			p.index(i).wrong(err)
			valid = false
		case h == "*" && !gatewaysOnly(vs):
			p.index(i).errorf(`"*" is not allowed for routes of sidecars (gateway %q)`, meshGateway)
			valid = false
		}
	}
	if !valid {
		return
	}
	for i, h := range vs.Hosts {
		for j := range i {
			if HostsOverlap(vs.Hosts[j], h) {
				p.index(i).errorf("%q and %q claim the same hosts", shorten(vs.Hosts[j]), shorten(h))
			}
		}
	}
}

// generatedSNI reports whether a host is an SNI that sidecars make of a cluster
// name, outbound_.80_._.reviews.default.svc.cluster.local.
func generatedSNI(h string) bool {
	rest, ok := strings.CutPrefix(h, "outbound_.")
	return ok && rest != "" && rest[0] >= '0' && rest[0] <= '9'
}

func hasSNI(vs *networking.VirtualService) bool {
	for _, r := range vs.Tls {
		for _, m := range r.Match {
			if len(m.SniHosts) > 0 {
				return true
			}
		}
	}
	return false
}

func validateTLSRoute(p place, r *networking.TLSRoute, vs *networking.VirtualService) {
	if len(r.Match) == 0 {
		p.field("match").errorf("at least one match is required")
	}
	for i, m := range r.Match {
		at := p.at("match", i)
		if len(m.SniHosts) == 0 {
			at.field("sniHosts").errorf("at least one SNI host is required")
		}
		for j, h := range m.SniHosts {
			validateSNIHost(at.at("sniHosts", j), h, vs)
		}
		validateL4Match(at, m.DestinationSubnets, m.Port, m.SourceLabels, m.Gateways)
	}
	validateRouteDestinations(p.field("route"), r.Route)
}

func validateSNIHost(p place, h string, vs *networking.VirtualService) {
	if err := wildcardDomain(h); err != nil && !(gatewaysOnly(vs) && generatedSNI(h)) {
		if isIP(h) {
			p.warnf("clients do not send an IP address (%s) as SNI", h)
			return
		}
		p.wrong(err)
		return
	}
	for _, of := range vs.Hosts {
		if HostWithin(h, of) {
			return
		}
	}
	p.errorf("%q is not within the hosts of the VirtualService (%s)", shorten(h), shorten(strings.Join(vs.Hosts, ", ")))
}

func validateTCPRoute(p place, r *networking.TCPRoute) {
	for i, m := range r.Match {
		validateL4Match(p.at("match", i), m.DestinationSubnets, m.Port, m.SourceLabels, m.Gateways)
		if m.SourceSubnet != "" {
			p.at("match", i).field("sourceSubnet").warnf("has no effect, as in Istio: clients of all addresses match")
		}
	}
	validateRouteDestinations(p.field("route"), r.Route)
}

func validateL4Match(p place, subnets []string, number uint32, labels map[string]string, gateways []string) {
	for i, s := range subnets {
		p.at("destinationSubnets", i).wrong(ipOrSubnet(s))
	}
	if number != 0 {
		p.field("port").wrong(port(int64(number)))
	}
	p.field("sourceLabels").labels(labels)
	gatewayNames(p.field("gateways"), gateways)
}

func validateRouteDestinations(p place, routes []*networking.RouteDestination) {
	if len(routes) == 0 {
		p.errorf("at least one destination is required")
	}
	weights := make([]int32, len(routes))
	for i, d := range routes {
		if d.Destination == nil {
			p.index(i).field("destination").errorf("required")
		}
		validateDestination(p.index(i).field("destination"), d.Destination)
		weights[i] = d.Weight
	}
	p.weights(weights)
}

// weights checks the weights of the destinations of one route. They need not
// add up to 100.
func (p place) weights(weights []int32) {
	total := int64(0)
	for i, w := range weights {
		if w < 0 {
			p.index(i).field("weight").errorf("must not be negative, got %d", w)
		}
		total += int64(w)
	}
	if len(weights) > 1 && total == 0 {
		p.errorf("the weights of all destinations are 0")
	}
}

func validateDestination(p place, d *networking.Destination) {
	if d == nil {
		return
	}
	if d.Host == "*" {
		p.field("host").errorf("must name one service, got %q", d.Host)
	} else {
		p.field("host").wrong(wildcardDomain(d.Host))
	}
	if d.Subset != "" && !isDNSLabel(d.Subset) {
		p.field("subset").errorf("%q is not a subset name", shorten(d.Subset))
	}
	if d.Port != nil {
		p.field("port.number").wrong(port(int64(d.Port.Number)))
	}
}
