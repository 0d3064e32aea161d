package mesh

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strconv"

	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/registry"
)

const (
	networkLabel     = "topology.istio.io/network"
	gatewayPortLabel = "networking.istio.io/gatewayPort"
	// crossNetworkPort is where a gateway takes what comes from other networks.
	crossNetworkPort = 15443
)

// A NetworkGateway is where a network is entered from others: connections of the mesh's
// TLS, which name their service by SNI.
type NetworkGateway struct {
	Address string // IP
	Port    uint32
}

// NetworkGateways are those of a network, in a stable order: what MeshNetworks names, and the
// Services that say by label which network they lead into, at the addresses under which
// others reach them. None where the network is entered directly.
func (s *Snapshot) NetworkGateways(network string) []NetworkGateway { return s.index.networks[network] }

// InNetwork reports whether a proxy reaches a network directly: its own, and those of whom
// it is not known.
func (p *Proxy) InNetwork(network string) bool {
	return network == "" || p.Network == "" || p.Network == network
}

func (s *Snapshot) indexNetworks() {
	all := map[string][]NetworkGateway{}
	for name, n := range s.MeshNetworks.GetNetworks() {
		for _, g := range n.GetGateways() {
			if g.GetAddress() != "" {
				all[name] = append(all[name], NetworkGateway{g.GetAddress(), g.GetPort()})
			}
			for _, service := range s.Registry.Hosts(g.GetRegistryServiceName()) {
				for _, a := range service.ExternalAddresses {
					all[name] = append(all[name], NetworkGateway{a, g.GetPort()})
				}
			}
		}
	}
	for _, service := range s.Registry.Services() {
		name := service.Labels[networkLabel]
		if name == "" {
			continue
		}
		port := uint32(crossNetworkPort)
		if n, err := strconv.ParseUint(service.Labels[gatewayPortLabel], 10, 16); err == nil && n > 0 {
			port = uint32(n)
		}
		for _, a := range service.ExternalAddresses {
			all[name] = append(all[name], NetworkGateway{a, port})
		}
	}
	for name, list := range all {
		list = slices.DeleteFunc(list, func(g NetworkGateway) bool { _, err := netip.ParseAddr(g.Address); return err != nil })
		slices.SortFunc(list, func(a, b NetworkGateway) int {
			return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port))
		})
		all[name] = slices.Compact(list)
	}
	s.index.networks = all
}

// networksOf say the network of workloads that do not name it: that of the root namespace's
// label, which is for the whole cluster, else that of MeshNetworks for the cluster or for
// their addresses.
func networksOf(set *config.Set, root, cluster string, networks *meshconfig.MeshNetworks) (all string, blocks []registry.Block) {
	if o := set.Get(config.Namespace, "", root); o != nil && o.Labels[networkLabel] != "" {
		return o.Labels[networkLabel], nil
	}
	for _, name := range slices.Sorted(maps.Keys(networks.GetNetworks())) {
		for _, e := range networks.Networks[name].GetEndpoints() {
			if e.GetFromRegistry() == cluster {
				return name, nil
			}
			if p, err := netip.ParsePrefix(e.GetFromCidr()); err == nil {
				blocks = append(blocks, registry.Block{Prefix: p.Masked(), Network: name})
			}
		}
	}
	slices.SortStableFunc(blocks, func(a, b registry.Block) int { return cmp.Compare(b.Prefix.Bits(), a.Prefix.Bits()) })
	return "", blocks
}
