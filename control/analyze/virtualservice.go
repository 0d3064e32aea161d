package analyze

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"
	security "istio.io/api/security/v1beta1"
	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

type routes = item[*networking.VirtualService]

func (p *pass) routes() []routes { return of[*networking.VirtualService](p.Mesh, virtualService) }

// conflictingHosts finds VirtualServices that rule the same host for the same sidecars.
// Those for one namespace conflict with those for all, which serve the others well.
func conflictingHosts(p *pass) {
	claims := map[string]map[string][]routes{} // by namespace that sees it, "*" all, and host
	for _, o := range p.routes() {
		if len(o.spec.Gateways) > 0 && !slices.Contains(o.spec.Gateways, mesh.MeshGateway) {
			continue
		}
		for to := range exports(o.spec.ExportTo, p.meshConfig.GetDefaultVirtualServiceExportTo(), o.Namespace) {
			if claims[to] == nil {
				claims[to] = map[string][]routes{}
			}
			for _, h := range o.spec.Hosts {
				name := p.snapshot.FQDN(h, o.Namespace)
				claims[to][name] = append(claims[to][name], o)
			}
		}
	}
	for to, hosts := range claims {
		for host, own := range hosts {
			all := own
			if to != "*" {
				all = slices.Concat(own, claims["*"][host])
			}
			var names []string
			for _, o := range all {
				names = append(names, o.fullName())
			}
			if names = unique(names); len(names) < 2 {
				continue
			}
			for _, o := range own {
				p.report(o.object, "spec.hosts", ConflictingMeshGatewayVirtualServiceHosts, strings.Join(names, ","), host)
			}
		}
	}
}

// A destination is one with its place.
type destination struct {
	*networking.Destination
	at   string
	idle bool // its weight is 0, and others share the rule
}

// destinations are all of a VirtualService; one that is not written has no host.
func destinations(vs *networking.VirtualService) []destination {
	var all []destination
	for i, r := range vs.Http {
		at := indexed("spec.http", i)
		for j, w := range r.Route {
			all = append(all, destination{w.Destination, indexed(at+".route", j) + ".destination", w.Weight == 0 && len(r.Route) > 1})
		}
		if r.Mirror != nil {
			all = append(all, destination{Destination: r.Mirror, at: at + ".mirror"})
		}
		for j, m := range r.Mirrors {
			all = append(all, destination{Destination: m.Destination, at: indexed(at+".mirrors", j) + ".destination"})
		}
	}
	for i, r := range vs.Tcp {
		for j, w := range r.Route {
			all = append(all, destination{w.Destination, indexed(indexed("spec.tcp", i)+".route", j) + ".destination", w.Weight == 0 && len(r.Route) > 1})
		}
	}
	for i, r := range vs.Tls {
		for j, w := range r.Route {
			all = append(all, destination{w.Destination, indexed(indexed("spec.tls", i)+".route", j) + ".destination", w.Weight == 0 && len(r.Route) > 1})
		}
	}
	return all
}

// destinationHosts finds destinations that do not exist, or not with that port, and such
// of several ports that do not say which.
func destinationHosts(p *pass) {
	split := p.splitHosts()
	for _, o := range p.routes() {
		for _, d := range destinations(o.spec) {
			s := p.destinationOf(o, d.GetHost())
			port := d.GetPort().GetNumber()
			switch {
			case s == nil:
				p.report(o.object, d.at+".host", ReferencedResourceNotFound, "host", d.GetHost())
			case port == 0 && len(s.Ports) > 1:
				p.report(o.object, d.at, VirtualServiceDestinationPortSelectorRequired, d.GetHost(), numbers(s))
			case port != 0 && s.Port(port) == nil:
				p.report(o.object, d.at+".port.number", ReferencedResourceNotFound, "host:port", fmt.Sprintf("%s:%d", d.GetHost(), port))
			}
		}
		p.checkSubsetsBehind(o, split)
	}
}

// destinationOf is the service of a destination, as one of the namespaces sees it in which
// the VirtualService counts.
func (p *pass) destinationOf(o routes, host string) *registry.Service {
	to := o.spec.ExportTo
	if len(to) == 0 {
		to = []string{o.Namespace}
	}
	name := p.snapshot.FQDN(host, o.Namespace)
	for _, ns := range to {
		if ns == "." || ns == "*" {
			ns = o.Namespace
		}
		if s := p.reach(ns, name); s != nil {
			return s
		}
	}
	return nil
}

func numbers(s *registry.Service) []int {
	var all []int
	for _, port := range s.Ports {
		all = append(all, int(port.Number))
	}
	return all
}

// checkSubsetsBehind finds routes of gateways to a host that sidecars split into subsets: a
// gateway does not ask the VirtualService of the host that it sends to.
func (p *pass) checkSubsetsBehind(o routes, split map[string][]routes) {
	if len(o.spec.Gateways) == 0 {
		return
	}
	for i, r := range o.spec.Http {
		for j, w := range r.Route {
			if w.Destination == nil || w.Destination.Subset != "" {
				continue
			}
			for _, other := range split[p.snapshot.FQDN(w.Destination.Host, o.Namespace)] {
				if other.object != o.object {
					p.report(o.object, indexed(indexed("spec.http", i)+".route", j), IngressRouteRulesNotAffected, other.fullName(), o.fullName())
				}
			}
		}
	}
}

// splitHosts are the VirtualServices that send requests for a host to subsets of it.
func (p *pass) splitHosts() map[string][]routes {
	all := map[string][]routes{}
	for _, o := range p.routes() {
		full := func(h string) string { return p.snapshot.FQDN(h, o.Namespace) }
		for _, h := range o.spec.Hosts {
			host := full(h)
			if slices.ContainsFunc(o.spec.Http, func(r *networking.HTTPRoute) bool {
				return slices.ContainsFunc(r.Route, func(w *networking.HTTPRouteDestination) bool {
					return w.Destination.GetSubset() != "" && full(w.Destination.Host) == host
				})
			}) {
				all[host] = append(all[host], o)
			}
		}
	}
	return all
}

// destinationSubsets finds destinations in subsets that no DestinationRule has.
func destinationSubsets(p *pass) {
	known, wildcards := map[string][]string{}, []string{} // subsets by host, and hosts
	for _, o := range of[*networking.DestinationRule](p.Mesh, destinationRule) {
		host := p.snapshot.FQDN(o.spec.Host, o.Namespace)
		if strings.HasPrefix(host, "*") {
			wildcards = append(wildcards, host)
		}
		for _, s := range o.spec.Subsets {
			known[host] = append(known[host], s.Name)
		}
	}
	for _, o := range p.routes() {
		for _, d := range destinations(o.spec) {
			if d.GetSubset() == "" {
				continue
			}
			name := p.snapshot.FQDN(d.Host, o.Namespace)
			found := slices.Contains(known[name], d.Subset)
			for _, host := range wildcards {
				found = found || config.HostWithin(name, host) && slices.Contains(known[host], d.Subset)
			}
			if !found {
				p.report(o.object, d.at, ReferencedResourceNotFound, "host+subset in destinationrule", d.Host+"+"+d.Subset)
			}
		}
	}
}

// internalGateway is part of the names that the mesh gives to what it makes of Gateways of
// the Gateway API.
const internalGateway = "-istio-autogenerated-k8s-gateway"

// routeGateways finds gateways that do not exist, and such that have none of the hosts.
func routeGateways(p *pass) {
	for _, o := range p.routes() {
		for i, written := range o.spec.Gateways {
			at := indexed("spec.gateways", i)
			switch name := mesh.GatewayName(written, o.Namespace); {
			case name == mesh.MeshGateway:
			case strings.Contains(written, internalGateway):
				p.report(o.object, at, ReferencedInternalGateway, o.fullName(), written)
			default:
				hosts, exists := p.gatewayHosts(name, o.Namespace)
				if !exists {
					p.report(o.object, at, ReferencedResourceNotFound, "gateway", written)
				}
				if !slices.ContainsFunc(o.spec.Hosts, func(h string) bool {
					return slices.ContainsFunc(hosts, func(g string) bool { return config.HostsOverlap(g, h) })
				}) {
					p.report(o.object, at, VirtualServiceHostNotFoundInGateway, o.spec.Hosts, o.fullName(), written)
				}
			}
		}
	}
}

// gatewayHosts are the hosts that a gateway, of either API, has for VirtualServices of a
// namespace.
func (p *pass) gatewayHosts(name, from string) (hosts []string, exists bool) {
	in, name, _ := strings.Cut(name, "/")
	if o := p.get(gateway, in, name); o != nil {
		spec, _ := o.spec.(*networking.Gateway)
		for _, s := range spec.GetServers() {
			for _, h := range s.Hosts {
				ns, host, scoped := strings.Cut(h, "/")
				switch {
				case !scoped:
					hosts = append(hosts, h)
				case ns == "*" || ns == from || ns == "." && in == from:
					hosts = append(hosts, host)
				}
			}
		}
		return hosts, true
	}
	o := p.get(kubernetesGateway, in, name)
	if o == nil {
		return nil, false
	}
	if spec, ok := o.spec.(*listenerSet); ok {
		for _, l := range spec.Spec.Listeners {
			if l.Hostname == "" {
				l.Hostname = "*"
			}
			hosts = append(hosts, l.Hostname)
		}
	}
	return hosts, true
}

// claimPrefix begins the names of headers that stand for claims of a request's token.
const claimPrefix = "@request.auth.claims"

// claimRoutes finds routes by claims at gateways that read no tokens.
func claimRoutes(p *pass) {
	for _, o := range p.routes() {
		key, at := claimOf(o.spec)
		if key == "" {
			continue
		}
		for _, written := range o.spec.Gateways {
			in, name, _ := strings.Cut(mesh.GatewayName(written, o.Namespace), "/")
			g := p.get(gateway, in, name)
			if g == nil {
				continue
			}
			spec, _ := g.spec.(*networking.Gateway)
			for _, w := range p.pods() {
				if selects(spec.GetSelector(), w.labels) && !p.readsTokens(w) {
					p.report(o.object, at, JwtClaimBasedRoutingWithoutRequestAuthN, key, g.fullName(), w.Name)
				}
			}
		}
	}
}

// claimOf is the first header of a route that stands for a claim.
func claimOf(vs *networking.VirtualService) (key, at string) {
	for i, r := range vs.Http {
		for j, m := range r.Match {
			at := indexed(indexed("spec.http", i)+".match", j)
			for field, headers := range map[string]map[string]*networking.StringMatch{".headers": m.Headers, ".withoutHeaders": m.WithoutHeaders} {
				for _, name := range slices.Sorted(maps.Keys(headers)) {
					if strings.HasPrefix(name, claimPrefix) {
						return name, at + field
					}
				}
			}
		}
	}
	return "", ""
}

// readsTokens reports whether a RequestAuthentication is for the pod.
func (p *pass) readsTokens(w item[*corev1.Pod]) bool {
	return slices.ContainsFunc(of[*security.RequestAuthentication](p.Mesh, requestAuthentication), func(a item[*security.RequestAuthentication]) bool {
		return (a.Namespace == w.Namespace || a.Namespace == p.root()) && selects(a.spec.Selector.GetMatchLabels(), w.labels)
	})
}
