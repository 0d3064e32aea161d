package envoy

import (
	"slices"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Clusters returns a proxy's clusters patched. The list and what is in it belong to the
// Patches from then on.
func (p *Patches) Clusters(list []*clusterv3.Cluster) []*clusterv3.Cluster {
	if !p.any(ir.PatchCluster) {
		return list
	}
	return patchedList(p, ir.PatchCluster, "cluster", list, p.cluster)
}

// cluster patches a cluster; nil if it is removed.
func (p *Patches) cluster(c *clusterv3.Cluster) *clusterv3.Cluster {
	name := clusterNameOf(c)
	in := p.context(name.inbound)
	for _, pt := range p.all[ir.PatchCluster] {
		switch {
		case !pt.in(in) || !pt.selectsCluster(c, name):
		case pt.Operation == ir.PatchRemove:
			return nil
		case pt.merges():
			c = p.mergedCluster(pt, c)
		}
	}
	return c
}

// mergedCluster is a cluster with a patch's value. Where a cluster chooses between
// sockets, a socket of the patch goes to those of its name: beside a choice there can be
// no single one.
func (p *Patches) mergedCluster(pt *patch, c *clusterv3.Cluster) *clusterv3.Cluster {
	socket := pt.value.(*clusterv3.Cluster).TransportSocket
	if socket == nil || len(c.TransportSocketMatches) == 0 {
		return merged(p, pt, c, c.Name)
	}
	rest := &patch{pt.Patch, proto.Clone(pt.value)}
	rest.value.(*clusterv3.Cluster).TransportSocket = nil
	out := proto.Clone(c).(*clusterv3.Cluster)
	for _, m := range out.TransportSocketMatches {
		if m.TransportSocket.GetName() == socket.Name {
			m.TransportSocket = merged(p, &patch{pt.Patch, socket}, m.TransportSocket, c.Name)
		}
	}
	return merged(p, rest, out, c.Name)
}

// clusterName is what a cluster's name says of it.
type clusterName struct {
	inbound bool
	port    string
	subset  string
	hosts   []string
}

// clusterNameOf reads "outbound|9080|v1|reviews.default.svc.cluster.local", the same with
// "_." between the parts, and "inbound|9080||", whose services are in its metadata.
func clusterNameOf(c *clusterv3.Cluster) clusterName {
	out := clusterName{inbound: strings.HasPrefix(c.Name, "inbound|") || strings.HasPrefix(c.Name, "InboundPassthrough")}
	parts := strings.Split(c.Name, "|")
	if strings.HasPrefix(c.Name, "outbound_.") {
		parts = strings.SplitN(c.Name, "_.", 4)
	}
	if len(parts) != 4 {
		return out
	}
	out.port, out.subset, out.hosts = parts[1], parts[2], []string{parts[3]}
	if out.inbound {
		services := c.GetMetadata().GetFilterMetadata()["istio"].GetFields()["services"].GetListValue().GetValues()
		for _, s := range services {
			out.hosts = append(out.hosts, s.GetStructValue().GetFields()["host"].GetStringValue())
		}
	}
	return out
}

func (pt *patch) selectsCluster(c *clusterv3.Cluster, name clusterName) bool {
	s := pt.Cluster
	if s == nil {
		return true
	}
	if s.Name != "" {
		return s.Name == c.Name
	}
	return (s.Subset == "" || s.Subset == name.subset) &&
		(s.Service == "" || slices.Contains(name.hosts, s.Service)) &&
		(s.Port == 0 || name.port == strconv.FormatUint(uint64(s.Port), 10))
}
