package compile

import (
	"fmt"

	networking "istio.io/api/networking/v1alpha3"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// ruleContext is the context of rules for connections to a port.
func (b *listenerBuilder) ruleContext(port uint32, gateway string) *ruleContext {
	return &ruleContext{snapshot: b.snapshot, scope: b.scope, proxy: b.proxy, port: port, gateway: gateway}
}

// matchesTCP reports whether a TCP route takes connections to this port from this
// workload; address conditions are left to the proxy.
func (rc *ruleContext) matchesTCP(r *networking.TCPRoute) bool {
	if len(r.GetMatch()) == 0 {
		return true
	}
	for _, m := range r.GetMatch() {
		if (m.GetPort() == 0 || m.GetPort() == rc.port) &&
			rc.from(m.GetGateways(), m.GetSourceLabels(), m.GetSourceNamespace()) {
			return true
		}
	}
	return false
}

// tcpProxy sends connections to the destinations of a TCP or TLS route. Statistics
// go by the one cluster, or by the VirtualService where there are several.
func (rc *ruleContext) tcpProxy(v *mesh.VirtualService, targets []*networking.RouteDestination, logs []ir.AccessLog) *ir.TCPProxy {
	out := &ir.TCPProxy{AccessLogs: logs}
	for _, t := range targets {
		if len(targets) > 1 && t.GetWeight() == 0 {
			continue
		}
		out.Clusters = append(out.Clusters, ir.WeightedCluster{
			Name: rc.destination(t.GetDestination()), Weight: uint32(t.GetWeight())})
	}
	if len(out.Clusters) == 1 {
		out.StatPrefix = rc.statPrefix(targets, out.Clusters[0].Name)
		return out
	}
	out.StatPrefix = fmt.Sprintf("%s.%s", v.Name, v.Namespace)
	return out
}

// statPrefix is the mesh's pattern for outbound statistics filled in for the one
// destination with a cluster, else the cluster's name.
func (rc *ruleContext) statPrefix(targets []*networking.RouteDestination, cluster string) string {
	pattern := rc.snapshot.MeshConfig.GetOutboundClusterStatName()
	for _, t := range targets {
		d := t.GetDestination()
		if s := rc.scope.Service(d.GetHost()); s != nil && pattern != "" && rc.destination(d) == cluster {
			if port := s.Port(rc.destinationPort(d)); port != nil {
				return statName(pattern, s, *port, d.GetSubset())
			}
		}
	}
	return cluster
}

// tcpTo sends connections to one cluster.
func tcpTo(cluster string, logs []ir.AccessLog) *ir.TCPProxy {
	return &ir.TCPProxy{StatPrefix: cluster, Clusters: []ir.WeightedCluster{{Name: cluster}}, AccessLogs: logs}
}
