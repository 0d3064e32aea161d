package control

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// references are what objects say of others that are not there, or that others have
// already. They are found anew only where something has changed that they are made from.
type references struct {
	mu    sync.Mutex
	lists [][]*config.Config
	found []Problem
}

// referring are the kinds that references are found from.
func referring() []config.Kind {
	return []config.Kind{config.VirtualService, config.DestinationRule, config.Gateway, config.Service, config.ServiceEntry, config.Namespace}
}

func (r *references) of(snap *mesh.Snapshot) []Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lists [][]*config.Config
	for _, k := range referring() {
		lists = append(lists, snap.Config.List(k))
	}
	if r.found == nil || !slices.EqualFunc(r.lists, lists, slices.Equal) {
		s := &search{snap: snap, subsets: map[string][]string{}, found: []Problem{}}
		s.run()
		r.lists, r.found = lists, s.found
	}
	return r.found
}

// A search looks for references of a snapshot that lead nowhere.
type search struct {
	snap      *mesh.Snapshot
	wildcards []*registry.Service // whose host is "*.suffix"
	subsets   map[string][]string // by the host of DestinationRules
	found     []Problem
}

func (s *search) run() {
	for _, svc := range s.snap.Registry.Services() {
		if strings.HasPrefix(svc.Host, "*") {
			s.wildcards = append(s.wildcards, svc)
		}
	}
	for _, o := range s.snap.Config.List(config.DestinationRule) {
		rule, ok := o.Spec.(*networking.DestinationRule)
		if !ok {
			continue
		}
		host := s.snap.FQDN(rule.Host, o.Namespace)
		for _, sub := range rule.Subsets {
			s.subsets[host] = append(s.subsets[host], sub.Name)
		}
		if !strings.HasPrefix(host, "*") && s.service(host) == nil {
			s.warn(o, "host", "no service of the mesh has the host %s: the rule is for nobody", host)
		}
	}
	claims := map[string]*config.Config{}
	for _, o := range s.snap.Config.List(config.VirtualService) {
		if vs, ok := o.Spec.(*networking.VirtualService); ok {
			s.gateways(o, vs)
			s.destinations(o, vs)
			s.claimed(o, vs, claims)
		}
	}
	s.addresses()
	s.weights()
	s.versions()
}

func (s *search) warn(o *config.Config, field, format string, args ...any) {
	s.found = append(s.found, Problem{Place: o.Source.String(), Object: o.Key.String(), Field: field,
		Message: fmt.Sprintf(format, args...), Severity: config.Warning.String()})
}

// service is one that has a host, nil if none has.
func (s *search) service(host string) *registry.Service {
	if all := s.snap.Registry.Hosts(host); len(all) > 0 {
		return all[0]
	}
	for _, svc := range s.wildcards {
		if config.HostWithin(host, svc.Host) {
			return svc
		}
	}
	return nil
}

func (s *search) gateways(o *config.Config, vs *networking.VirtualService) {
	for i, written := range vs.Gateways {
		name := mesh.GatewayName(written, o.Namespace)
		ns, short, _ := strings.Cut(name, "/")
		if name != mesh.MeshGateway && s.snap.Config.Get(config.Gateway, ns, short) == nil {
			s.warn(o, fmt.Sprintf("gateways[%d]", i), "there is no Gateway %s", name)
		}
	}
}

func (s *search) destinations(o *config.Config, vs *networking.VirtualService) {
	for i, r := range vs.Http {
		at := fmt.Sprintf("http[%d]", i)
		for j, d := range r.Route {
			s.destination(o, fmt.Sprintf("%s.route[%d].destination", at, j), d.GetDestination())
		}
		s.destination(o, at+".mirror", r.Mirror)
		for j, m := range r.Mirrors {
			s.destination(o, fmt.Sprintf("%s.mirrors[%d].destination", at, j), m.GetDestination())
		}
		s.delegate(o, at+".delegate", r.Delegate)
	}
	for i, r := range vs.Tls {
		for j, d := range r.Route {
			s.destination(o, fmt.Sprintf("tls[%d].route[%d].destination", i, j), d.GetDestination())
		}
	}
	for i, r := range vs.Tcp {
		for j, d := range r.Route {
			s.destination(o, fmt.Sprintf("tcp[%d].route[%d].destination", i, j), d.GetDestination())
		}
	}
}

func (s *search) destination(o *config.Config, at string, d *networking.Destination) {
	if d == nil || d.Host == "" {
		return
	}
	host := s.snap.FQDN(d.Host, o.Namespace)
	svc, port := s.service(host), d.GetPort().GetNumber()
	switch {
	case svc == nil:
		s.warn(o, at+".host", "no service of the mesh has the host %s: requests are answered 503", host)
	case port != 0 && !slices.ContainsFunc(s.snap.Registry.Hosts(svc.Host), func(other *registry.Service) bool { return other.Port(port) != nil }):
		s.warn(o, at+".port.number", "%s has no port %d: requests are answered 503", svc.Host, port)
	case d.Subset != "" && !s.hasSubset(host, d.Subset):
		s.warn(o, at+".subset", "no DestinationRule of %s has the subset %s: requests are answered 503", host, d.Subset)
	}
}

func (s *search) hasSubset(host, subset string) bool {
	for of, names := range s.subsets {
		if (of == host || strings.HasPrefix(of, "*") && config.HostWithin(host, of)) && slices.Contains(names, subset) {
			return true
		}
	}
	return false
}

func (s *search) delegate(o *config.Config, at string, d *networking.Delegate) {
	if d == nil {
		return
	}
	ns := cmp.Or(d.Namespace, o.Namespace)
	to := s.snap.Config.Get(config.VirtualService, ns, d.Name)
	if to == nil {
		s.warn(o, at, "there is no VirtualService %s/%s: the rule matches nothing", ns, d.Name)
	} else if spec, ok := to.Spec.(*networking.VirtualService); ok && len(spec.Hosts) > 0 {
		s.warn(o, at, "VirtualService %s/%s has hosts of its own: it cannot be a delegate, and the rule matches nothing", ns, d.Name)
	}
}

// claimed finds hosts that an earlier VirtualService rules for the same sidecars.
func (s *search) claimed(o *config.Config, vs *networking.VirtualService, claims map[string]*config.Config) {
	if len(vs.Gateways) > 0 && !slices.Contains(vs.Gateways, mesh.MeshGateway) {
		return
	}
	for i, h := range vs.Hosts {
		key := s.snap.FQDN(h, o.Namespace) + " " + strings.Join(vs.ExportTo, ",")
		if slices.Contains(vs.ExportTo, ".") {
			key += " " + o.Namespace
		}
		if first := claims[key]; first == nil {
			claims[key] = o
		} else if first != o {
			s.warn(o, fmt.Sprintf("hosts[%d]", i), "%s rules %s for sidecars already: no request of theirs comes here", first.Key, h)
		}
	}
}

// addresses finds services whose address and port another has that is not told apart by the
// host of a request.
func (s *search) addresses() {
	type socket struct {
		address string
		port    uint32
	}
	first := map[socket]*registry.Service{}
	all := slices.Clone(s.snap.Registry.Services())
	slices.SortStableFunc(all, func(a, b *registry.Service) int { return a.CreationTime.Compare(b.CreationTime) })
	for _, svc := range all {
		for _, p := range svc.Ports {
			for _, address := range svc.Addresses {
				at := socket{address, p.Number}
				other := first[at]
				switch {
				case other == nil:
					first[at] = svc
				case other.Host == svc.Host || other.Origin == svc.Origin:
				case other.Port(p.Number).Protocol.IsHTTP() && p.Protocol.IsHTTP():
				default:
					s.warn(svc.Origin, "ports", "%s:%d is the address of %s already, which is served there", address, p.Number, other.Origin.Key)
				}
			}
		}
	}
}

// weights finds endpoints of which no proxy could add up the weights.
func (s *search) weights() {
	for _, o := range s.snap.Config.List(config.ServiceEntry) {
		spec, ok := o.Spec.(*networking.ServiceEntry)
		if !ok {
			continue
		}
		var sum uint64
		for _, e := range spec.Endpoints {
			sum += uint64(e.GetWeight())
		}
		if sum > math.MaxUint32 {
			s.warn(o, "endpoints", "the weights add up to %d, proxies take at most %d", sum, uint32(math.MaxUint32))
		}
	}
}

// versions finds servers of Gateways that speak no version of TLS.
func (s *search) versions() {
	for _, o := range s.snap.Config.List(config.Gateway) {
		spec, ok := o.Spec.(*networking.Gateway)
		if !ok {
			continue
		}
		for i, server := range spec.Servers {
			t := server.GetTls()
			if t.GetMaxProtocolVersion() != networking.ServerTLSSettings_TLS_AUTO && t.GetMinProtocolVersion() > t.GetMaxProtocolVersion() {
				s.warn(o, fmt.Sprintf("servers[%d].tls", i), "minProtocolVersion %s is above maxProtocolVersion %s: no client can connect",
					t.GetMinProtocolVersion(), t.GetMaxProtocolVersion())
			}
		}
	}
}
