package mesh

import (
	"maps"
	"slices"

	meshconfig "istio.io/api/mesh/v1alpha1"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/registry"
)

// A Scope is what one proxy sees of a snapshot: the services exported to its
// namespace and imported by its Sidecar object, and what governs traffic to
// them. It is immutable; proxies of one namespace, role and label set have equal
// scopes.
type Scope struct {
	snapshot  *Snapshot
	namespace string
	labels    map[string]string
	router    bool
	instances []registry.Instance

	sidecar  *config.Config
	egress   []EgressListener
	services []*registry.Service
	byHost   map[string]*registry.Service
	virtual  []*VirtualService
	bound    map[string][]*VirtualService
}

// An EgressListener is one entry of Sidecar.egress, or the only one of a proxy
// without Sidecar: what may be called through it.
type EgressListener struct {
	// Spec is nil for a proxy without Sidecar. Spec.Port is nil for the listener
	// that takes everything that the others do not.
	Spec            *networking.IstioEgressListener
	Services        []*registry.Service
	VirtualServices []*VirtualService
}

// Scope returns what the proxy sees.
func (s *Snapshot) Scope(p *Proxy) *Scope {
	sc := &Scope{
		snapshot:  s,
		namespace: p.Namespace,
		labels:    p.Labels,
		router:    p.Type == Router,
		instances: s.Instances(p),
		bound:     map[string][]*VirtualService{},
	}
	if !sc.router {
		sc.sidecar = s.sidecarFor(p)
	}
	for gateway, list := range s.index.bound {
		for _, v := range list {
			if visible(v.Spec.ExportTo, s.MeshConfig.DefaultVirtualServiceExportTo, v.Namespace, sc.namespace) {
				sc.bound[gateway] = append(sc.bound[gateway], v)
			}
		}
	}
	sc.selectEgress()
	return sc
}

// Services returns the services that the proxy may call, one a host name, in
// conflict order. The caller must not change the slice.
func (sc *Scope) Services() []*registry.Service { return sc.services }

// Service returns the visible service with the host name, nil if there is none.
func (sc *Scope) Service(host string) *registry.Service { return sc.byHost[host] }

// VirtualServices returns the VirtualServices that bind to sidecars, in conflict
// order.
func (sc *Scope) VirtualServices() []*VirtualService { return sc.virtual }

// VirtualServicesFor returns the VirtualServices visible here that bind to the
// gateway "namespace/name", in conflict order. Whether their hosts fit a server
// is not looked at.
func (sc *Scope) VirtualServicesFor(gateway string) []*VirtualService { return sc.bound[gateway] }

// Gateways returns the Gateways whose selector matches the proxy's labels, in
// conflict order; none for a sidecar. Gateways select across namespaces, unless Options say
// otherwise.
func (sc *Scope) Gateways() []*Gateway {
	if !sc.router {
		return nil
	}
	return sc.snapshot.GatewaysFor(sc.namespace, sc.labels)
}

// Gateways returns the Gateways of a proxy, as its Scope does, without making the
// Scope.
func (s *Snapshot) Gateways(p *Proxy) []*Gateway {
	if p.Type != Router {
		return nil
	}
	return s.GatewaysFor(p.Namespace, p.Labels)
}

// GatewaysFor returns the Gateways that select a proxy by where it is and what it is labelled.
func (s *Snapshot) GatewaysFor(namespace string, labels map[string]string) []*Gateway {
	var list []*Gateway
	for _, g := range s.index.gateways {
		if Selects(g.Spec.Selector, labels) && (!s.index.scoped || g.Namespace == namespace) {
			list = append(list, g)
		}
	}
	return list
}

// Sidecar returns the Sidecar object in force: the oldest of the proxy's namespace
// that selects it, else the namespace's without selector, else the root
// namespace's. It is nil for routers and where there is none.
func (sc *Scope) Sidecar() *networking.Sidecar {
	if sc.sidecar == nil {
		return nil
	}
	return sc.sidecar.Spec.(*networking.Sidecar)
}

// Sidecar returns the Sidecar object in force for a proxy, as its Scope does.
func (s *Snapshot) Sidecar(p *Proxy) *networking.Sidecar {
	if p.Type == Router {
		return nil
	}
	if c := s.sidecarFor(p); c != nil {
		return c.Spec.(*networking.Sidecar)
	}
	return nil
}

// SidecarConfig is the object that Sidecar comes from, nil if there is none.
func (sc *Scope) SidecarConfig() *config.Config { return sc.sidecar }

// Egress returns the egress listeners, at least one.
func (sc *Scope) Egress() []EgressListener { return sc.egress }

// Instances returns what the proxy's own workload serves, in conflict order of
// the services.
func (sc *Scope) Instances() []registry.Instance { return sc.instances }

// Instances returns what a proxy's own workload serves, as its Scope does. What
// stands outside of the mesh is nobody's workload, also where it has the proxy's
// address (a gateway and a server on one machine).
func (s *Snapshot) Instances(p *Proxy) []registry.Instance {
	all := s.Registry.Instances(p.Addresses)
	return slices.DeleteFunc(all, func(i registry.Instance) bool { return i.Service.MeshExternal })
}

// AllowAny reports whether traffic to unknown destinations is let through: the
// Sidecar's outboundTrafficPolicy (an empty block means REGISTRY_ONLY), else the
// mesh's.
func (sc *Scope) AllowAny() bool {
	if p := sc.Sidecar().GetOutboundTrafficPolicy(); p != nil {
		return p.Mode == networking.OutboundTrafficPolicy_ALLOW_ANY
	}
	p := sc.snapshot.MeshConfig.GetOutboundTrafficPolicy()
	return p == nil || p.Mode == meshconfig.MeshConfig_OutboundTrafficPolicy_ALLOW_ANY
}

func (s *Snapshot) sidecarFor(p *Proxy) *config.Config {
	for _, ns := range []string{p.Namespace, s.RootNamespace()} {
		var general *config.Config
		for _, c := range s.index.sidecars[ns] {
			selector := c.Spec.(*networking.Sidecar).GetWorkloadSelector().GetLabels()
			switch {
			case len(selector) == 0 && general == nil:
				general = c
			case len(selector) > 0 && ns == p.Namespace && Selects(selector, p.Labels):
				return c
			}
		}
		if general != nil {
			return general
		}
	}
	return nil
}

// preferred orders the services that define one host: the proxy's own namespace,
// then Kubernetes Services, then as the registry has them.
func (sc *Scope) preferred(services []*registry.Service) *registry.Service {
	var best *registry.Service
	for _, s := range services {
		if best == nil || sc.rank(s) < sc.rank(best) {
			best = s
		}
	}
	return best
}

func (sc *Scope) rank(s *registry.Service) int {
	switch {
	case s.Namespace == sc.namespace:
		return 0
	case !s.FromEntry:
		return 1
	}
	return 2
}

// exported are the services that the proxy's namespace may see, one a host.
func (sc *Scope) exported() []*registry.Service {
	byHost := map[string][]*registry.Service{}
	for _, s := range sc.snapshot.Registry.Services() {
		if _, done := byHost[s.Host]; done {
			continue
		}
		byHost[s.Host] = sc.visibleHosts(s.Host)
	}
	var list []*registry.Service
	for _, s := range sc.snapshot.Registry.Services() {
		if sc.preferred(byHost[s.Host]) == s {
			list = append(list, s)
		}
	}
	return list
}

func (sc *Scope) visibleHosts(host string) []*registry.Service {
	var list []*registry.Service
	for _, s := range sc.snapshot.Registry.Hosts(host) {
		if visible(s.ExportTo, nil, s.Namespace, sc.namespace) {
			list = append(list, s)
		}
	}
	return list
}

func (sc *Scope) index(services []*registry.Service) {
	sc.services = services
	sc.byHost = make(map[string]*registry.Service, len(services))
	for _, s := range services {
		sc.byHost[s.Host] = s
	}
}

// sortServices puts services back into the registry's order.
func (sc *Scope) sortServices(set map[*registry.Service]bool) []*registry.Service {
	all := sc.snapshot.Registry.Services()
	place := make(map[*registry.Service]int, len(all))
	for i, s := range all {
		place[s] = i
	}
	return slices.SortedFunc(maps.Keys(set), func(a, b *registry.Service) int { return place[a] - place[b] })
}
