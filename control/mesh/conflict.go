package mesh

import (
	"fmt"

	"github.com/lateen-mesh/lateen/control/registry"
)

// Conflicts counts what objects claim twice, of which the older ones have it.
type Conflicts struct {
	// Listeners are ports on which services of bytes without an address of their own hide
	// one another: all would take every connection to the port.
	Listeners int
	// Domains are hosts that several VirtualServices route in the mesh.
	Domains int
	// Subsets are subsets of a DestinationRule whose name another for the host has.
	Subsets int
}

// Conflicts returns what conflicts in the mesh, whether or not a proxy is there to meet it.
func (s *Snapshot) Conflicts() Conflicts {
	return Conflicts{Listeners: s.hiddenPorts(), Domains: s.duplicateDomains(), Subsets: s.index.duplicateSubsets}
}

// hiddenPorts counts ports by number: a listener on the wildcard address is one for all
// services of the port.
func (s *Snapshot) hiddenPorts() int {
	first, hidden := map[uint32]*registry.Service{}, map[uint32]bool{}
	for _, service := range s.Registry.Services() {
		if len(service.Addresses) > 0 || service.Headless {
			continue
		}
		for _, p := range service.Ports {
			switch older := first[p.Number]; {
			case p.Protocol != registry.TCP:
			case older == nil:
				first[p.Number] = service
			case older.Host != service.Host && meet(older, service):
				hidden[p.Number] = true
			}
		}
	}
	return len(hidden)
}

// meet reports whether the namespace of one of two services sees both.
func meet(a, b *registry.Service) bool {
	for _, from := range []string{a.Namespace, b.Namespace} {
		if visible(a.ExportTo, nil, a.Namespace, from) && visible(b.ExportTo, nil, b.Namespace, from) {
			return true
		}
	}
	return false
}

func (s *Snapshot) duplicateDomains() int {
	seen, twice := map[string]bool{}, map[string]bool{}
	for _, v := range s.index.bound[MeshGateway] {
		for _, host := range v.Spec.Hosts {
			scope := fmt.Sprint(v.Spec.ExportTo) // those for different namespaces do not meet
			key := host + " " + scope
			if seen[key] {
				twice[key] = true
			}
			seen[key] = true
		}
	}
	return len(twice)
}
