package mesh

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/config"
)

// A VirtualService is a VirtualService object whose names are absolute: hosts and
// destination hosts are fully qualified and in lower case, gateways are
// "namespace/name" or "mesh" (never empty), and delegates are merged into its
// HTTP routes. It shares nothing with the stored object that could be changed.
type VirtualService struct {
	*config.Config
	Spec *networking.VirtualService
	// Origins says for each rule of Spec.Http where it is written: in this object or
	// in a delegate.
	Origins []RuleOrigin
}

// A RuleOrigin is a rule's place: http[Index] of an object.
type RuleOrigin struct {
	*config.Config
	Index int
}

func (s *Snapshot) indexVirtualServices() {
	var old map[*config.Config]*VirtualService
	if s.index.old != nil {
		old = s.index.old.index.resolved
	}
	ix := &s.index
	ix.bound = map[string][]*VirtualService{}
	ix.delegates = map[string]*VirtualService{}
	ix.resolved = map[*config.Config]*VirtualService{}
	for _, c := range s.Config.List(config.VirtualService) {
		v := old[c]
		if v == nil || v.delegating() {
			v = &VirtualService{Config: c, Spec: s.resolveVirtualService(c)}
		}
		ix.resolved[c] = v
		if len(v.Spec.Hosts) == 0 {
			ix.delegates[c.Namespace+"/"+c.Name] = v
			continue
		}
		ix.virtual = append(ix.virtual, v)
		for _, g := range v.Spec.Gateways {
			ix.bound[g] = append(ix.bound[g], v)
		}
	}
	for _, v := range ix.virtual {
		if v.Origins == nil { // made above
			v.Spec.Http, v.Origins = s.mergeDelegates(v)
		}
	}
}

// delegating reports whether other objects have a part in it.
func (v *VirtualService) delegating() bool {
	return slices.ContainsFunc(v.Config.Spec.(*networking.VirtualService).Http, func(r *networking.HTTPRoute) bool { return r.Delegate != nil })
}

// VirtualServices returns those with hosts, with their delegates merged in, in
// conflict order. The caller must not change the slice.
func (s *Snapshot) VirtualServices() []*VirtualService { return s.index.virtual }

func (s *Snapshot) resolveVirtualService(c *config.Config) *networking.VirtualService {
	vs := proto.Clone(c.Spec.(*networking.VirtualService)).(*networking.VirtualService)
	for i, h := range vs.Hosts {
		vs.Hosts[i] = s.FQDN(h, c.Namespace)
	}
	if len(vs.Gateways) == 0 {
		vs.Gateways = []string{MeshGateway}
	}
	resolveGateways(vs.Gateways, c.Namespace)
	for _, d := range destinations(vs) {
		d.Host = s.FQDN(d.Host, c.Namespace)
	}
	for _, r := range vs.Http {
		for _, m := range r.Match {
			resolveGateways(m.Gateways, c.Namespace)
		}
		if r.Delegate != nil && r.Delegate.Namespace == "" {
			r.Delegate.Namespace = c.Namespace
		}
	}
	for _, r := range vs.Tls {
		for _, m := range r.Match {
			resolveGateways(m.Gateways, c.Namespace)
		}
	}
	for _, r := range vs.Tcp {
		for _, m := range r.Match {
			resolveGateways(m.Gateways, c.Namespace)
		}
	}
	return vs
}

// destinations are all destinations of a VirtualService that name a host.
func destinations(vs *networking.VirtualService) []*networking.Destination {
	var list []*networking.Destination
	add := func(d *networking.Destination) {
		if d != nil {
			list = append(list, d)
		}
	}
	for _, r := range vs.Http {
		for _, w := range r.Route {
			add(w.Destination)
		}
		for _, m := range r.Mirrors {
			add(m.Destination)
		}
		add(r.Mirror)
	}
	for _, r := range vs.Tls {
		for _, w := range r.Route {
			add(w.Destination)
		}
	}
	for _, r := range vs.Tcp {
		for _, w := range r.Route {
			add(w.Destination)
		}
	}
	return list
}

// resolveGateways makes gateway names absolute in place.
func resolveGateways(names []string, namespace string) {
	for i, n := range names {
		names[i] = GatewayName(n, namespace)
	}
}

// GatewayName is a gateway as a VirtualService of the namespace writes it, in full:
// "namespace/name", or MeshGateway. The old form "name.namespace.svc.cluster.local" still
// occurs.
func GatewayName(name, namespace string) string {
	switch {
	case name == MeshGateway, strings.Contains(name, "/") && !strings.HasPrefix(name, "./"):
		return name
	case strings.HasPrefix(name, "./"):
		return namespace + name[1:]
	case strings.Contains(name, "."):
		parts := strings.SplitN(name, ".", 3)
		return parts[1] + "/" + parts[0]
	}
	return namespace + "/" + name
}
