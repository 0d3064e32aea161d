package mesh

import (
	"slices"
	"strings"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/registry"
)

// selectEgress works out the egress listeners and with them the services and
// VirtualServices of the scope.
func (sc *Scope) selectEgress() {
	exported, virtual := sc.exported(), sc.bound[MeshGateway]
	listeners := sc.Sidecar().GetEgress()
	if len(listeners) == 0 {
		sc.egress = []EgressListener{{Services: exported, VirtualServices: virtual}}
		sc.index(exported)
		sc.virtual = virtual
		return
	}
	chosen := map[*registry.Service]bool{}
	picked := map[*VirtualService]bool{}
	for _, spec := range listeners {
		e := sc.egressListener(spec)
		for _, s := range e.Services {
			chosen[s] = true
		}
		sc.reach(e, chosen)
		for _, v := range e.VirtualServices {
			picked[v] = true
		}
		sc.egress = append(sc.egress, e)
	}
	sc.index(sc.onePerHost(sc.sortServices(chosen)))
	for _, v := range virtual {
		if picked[v] {
			sc.virtual = append(sc.virtual, v)
		}
	}
}

// reach adds the services that the listener's VirtualServices send to. Its hosts need not name
// them: they can be sent to by these rules, not called.
func (sc *Scope) reach(e EgressListener, chosen map[*registry.Service]bool) {
	called := map[string]bool{}
	for _, s := range e.Services {
		called[s.Host] = true
	}
	for _, v := range e.VirtualServices {
		for _, d := range destinations(v.Spec) {
			if s := sc.preferred(sc.visibleHosts(d.Host)); s != nil && !called[s.Host] {
				chosen[s] = true
			}
		}
	}
}

// egressListener selects by the listener's hosts ("namespace/host").
func (sc *Scope) egressListener(spec *networking.IstioEgressListener) EgressListener {
	imports := parseImports(spec.Hosts, sc.namespace)
	e := EgressListener{Spec: spec}
	chosen := map[*registry.Service]bool{}
	for _, s := range sc.snapshot.Registry.Services() {
		if imports.hasService(s) && visible(s.ExportTo, nil, s.Namespace, sc.namespace) && servesPort(s, spec.Port) {
			chosen[s] = true
		}
	}
	for _, v := range sc.bound[MeshGateway] {
		if imports.hasVirtualService(v) {
			e.VirtualServices = append(e.VirtualServices, v)
		}
	}
	e.Services = sc.onePerHost(sc.sortServices(chosen))
	return e
}

func servesPort(s *registry.Service, port *networking.SidecarPort) bool {
	return port.GetNumber() == 0 || s.Port(port.Number) != nil
}

// onePerHost keeps the preferred service of each host.
func (sc *Scope) onePerHost(services []*registry.Service) []*registry.Service {
	byHost := map[string][]*registry.Service{}
	for _, s := range services {
		byHost[s.Host] = append(byHost[s.Host], s)
	}
	return slices.DeleteFunc(services, func(s *registry.Service) bool { return sc.preferred(byHost[s.Host]) != s })
}

// imports are the hosts of an egress listener by namespace; "*" is every
// namespace.
type imports map[string][]string

func parseImports(hosts []string, own string) imports {
	m := imports{}
	for _, h := range hosts {
		ns, host, found := strings.Cut(h, "/")
		if !found {
			ns, host = "*", h
		}
		switch ns {
		case ".":
			ns = own
		case "~":
			continue
		}
		m[ns] = append(m[ns], strings.ToLower(host))
	}
	return m
}

func (m imports) hasService(s *registry.Service) bool {
	return slices.ContainsFunc(m.of(s.Namespace), func(h string) bool { return config.HostWithin(s.Host, h) })
}

func (m imports) hasVirtualService(v *VirtualService) bool {
	for _, h := range m.of(v.Namespace) {
		if slices.ContainsFunc(v.Spec.Hosts, func(vh string) bool { return config.HostsOverlap(vh, h) }) {
			return true
		}
	}
	return false
}

func (m imports) of(namespace string) []string {
	return slices.Concat(m[namespace], m["*"])
}
