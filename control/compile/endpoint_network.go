package compile

import (
	"math"
	"slices"
	"strings"

	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// networkView is the networks whose endpoints the proxy asks for, by node metadata; without
// any it sees all.
const networkView = "REQUESTED_NETWORK_VIEW"

// maxParts bounds in how many parts a weight is counted; beyond, shares are rounded.
const maxParts = 1000

// acrossNetworks puts in place of endpoints in other networks the gateways of these, which
// share their weight. A gateway passes TLS of the mesh on by SNI, so endpoints without it
// cannot be reached there.
func (b *clusterBuilder) acrossNetworks(endpoints []*registry.Endpoint) []*registry.Endpoint {
	var near, far []*registry.Endpoint
	parts := uint32(1) // in which a weight is counted, so that gateways can share it
	for _, e := range endpoints {
		gateways := b.mesh.NetworkGateways(e.Network)
		switch {
		case !b.sees(e.Network):
		case b.proxy.InNetwork(e.Network) || len(gateways) == 0:
			near = append(near, e)
		case e.TLSMode == "istio":
			far = append(far, e)
			if n := uint32(len(gateways)); parts%n != 0 && parts*n <= maxParts {
				parts *= n
			}
		}
	}
	if len(far) == 0 {
		return near
	}
	return append(counted(near, parts), b.entries(far, parts)...)
}

// sees reports whether the proxy asks for endpoints of a network.
func (b *clusterBuilder) sees(network string) bool {
	view, _ := b.proxy.Text(networkView)
	return view == "" || network == "" || slices.Contains(strings.Split(view, ","), network)
}

// counted has the weights of endpoints in parts.
func counted(endpoints []*registry.Endpoint, parts uint32) []*registry.Endpoint {
	if parts == 1 {
		return endpoints
	}
	out := make([]*registry.Endpoint, len(endpoints))
	for i, e := range endpoints {
		in := *e
		in.Weight = saturated(uint64(max(e.Weight, 1)) * uint64(parts))
		out[i] = &in
	}
	return out
}

// entries are the gateways that stand for endpoints, one for each locality of these.
func (b *clusterBuilder) entries(far []*registry.Endpoint, parts uint32) []*registry.Endpoint {
	type entry struct {
		mesh.NetworkGateway
		registry.Locality
	}
	at := map[entry]*registry.Endpoint{}
	var out []*registry.Endpoint
	for _, e := range far {
		gateways := b.mesh.NetworkGateways(e.Network)
		share := uint64(max(e.Weight, 1)) * uint64(parts) / uint64(len(gateways))
		for _, g := range gateways {
			in := at[entry{g, e.Locality}]
			if in == nil {
				in = &registry.Endpoint{Address: g.Address, Port: g.Port, Locality: e.Locality, Network: e.Network,
					Cluster: e.Cluster, TLSMode: e.TLSMode}
				at[entry{g, e.Locality}] = in
				out = append(out, in)
			}
			in.Weight = saturated(uint64(in.Weight) + max(share, 1))
		}
	}
	return out
}

func saturated(weight uint64) uint32 { return uint32(min(weight, math.MaxUint32)) }
