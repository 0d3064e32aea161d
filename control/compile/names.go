package compile

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
	"github.com/lateen-mesh/lateen/nametable"
)

// Where a name of the table comes from.
const (
	fromKubernetes = "Kubernetes"
	fromEntries    = "External"
)

// Names returns the names that the agent of a sidecar answers by itself: those of the
// services that the proxy sees and that have addresses. A headless Service has those of
// its ready Pods, and each Pod with a host name has a name of its own below it. Nil for a
// gateway, whose names are resolved by others.
//
// What has no address to give (an ExternalName, a ServiceEntry that is resolved by DNS)
// is not in the table: a question for it goes on to the pod's resolver.
//
// Kinds read: as Clusters.
func Names(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) nametable.Table {
	if p.Type != mesh.SidecarProxy {
		return nil
	}
	t := nametable.Table{}
	for _, service := range scope.Services() {
		name := nametable.Name{Addresses: ipAddresses(serviceAddresses(service, p)), Registry: fromEntries}
		if !service.FromEntry {
			name.Registry, name.ShortName, name.Namespace = fromKubernetes, service.Name, service.Namespace
		}
		if service.Headless {
			name.Addresses = headlessNames(t, s.Registry, service)
		}
		if len(name.Addresses) > 0 {
			t[service.Host] = name
		}
	}
	return t
}

// headlessNames returns the addresses of a headless Service's Pods that take traffic and
// adds the names of those that have one.
func headlessNames(t nametable.Table, r *registry.Registry, s *registry.Service) []string {
	if len(s.Ports) == 0 {
		return nil
	}
	_, parent, _ := strings.Cut(s.Host, ".")
	var all []string
	for _, e := range r.Endpoints(s, s.Ports[0]) {
		if e.Unhealthy || len(ipAddresses([]string{e.Address})) == 0 {
			continue
		}
		if !slices.Contains(all, e.Address) {
			all = append(all, e.Address)
		}
		if e.Hostname == "" {
			continue
		}
		short := e.Hostname + "." + s.Name
		own := t[short+"."+parent]
		own.Addresses = append(own.Addresses, e.Address)
		own.Registry, own.ShortName, own.Namespace = fromKubernetes, short, s.Namespace
		t[short+"."+parent] = own
	}
	return all
}

// ipAddresses are the single addresses of a list, without blocks of them.
func ipAddresses(addresses []string) []string {
	return slices.DeleteFunc(slices.Clone(addresses), func(a string) bool {
		_, err := netip.ParseAddr(a)
		return err != nil
	})
}
