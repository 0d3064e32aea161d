package control

import (
	"fmt"
	"strings"

	"github.com/lateen-mesh/lateen/control/ads"
	"github.com/lateen-mesh/lateen/control/compile"
	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/envoy"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/wellknown"
)

// grpcResources makes the resources of a type for a gRPC program that speaks xDS itself: only
// those that it names, there is no such thing as everything.
func grpcResources(v *view, typeURL string, names []string) ([]ads.Resource, error) {
	var list []ads.Resource
	switch typeURL {
	case wellknown.ListenerType:
		for _, l := range compile.GRPCListeners(v.snapshot, v.scope(), v.proxy, names) {
			if err := add(&list, l.Name, envoy.GRPCListener(l)); err != nil {
				return nil, err
			}
		}
	case wellknown.RouteType:
		for _, r := range compile.GRPCRoutes(v.snapshot, v.scope(), v.proxy, names) {
			if err := add(&list, r.Name, envoy.GRPCRoutes(r)); err != nil {
				return nil, err
			}
		}
	case wellknown.ClusterType:
		for _, c := range compile.GRPCClusters(v.snapshot, v.scope(), v.proxy, names) {
			if err := add(&list, c.Name, envoy.GRPCCluster(c)); err != nil {
				return nil, err
			}
		}
	case wellknown.EndpointType:
		for _, n := range names {
			if a := compile.GRPCEndpoints(v.snapshot, v.scope(), v.proxy, n); a != nil {
				if err := add(&list, n, envoy.Assignment(*a)); err != nil {
					return nil, err
				}
			}
		}
	}
	return list, nil
}

// grpcProblems are the rules of VirtualServices that a connected gRPC program cannot carry
// out as they are.
func grpcProblems(snap *mesh.Snapshot, p *mesh.Proxy, tables []string) []Problem {
	var list []Problem
	for _, u := range compile.GRPCUnfits(snap, snap.Scope(p), p, tables) {
		found := problemOf(snap, *u.Origin, config.Warning)
		if u.Fails != "" {
			found.Message = "calls of gRPC programs without a proxy that come here fail: " + u.Fails
			found.Hint = "give these programs a proxy, or the rule a match that leaves them out, such as sourceLabels"
			list = append(list, found)
		}
		if len(u.Lost) > 0 {
			found.Message = fmt.Sprintf("gRPC programs without a proxy do not carry out %s", strings.Join(u.Lost, ", "))
			found.Hint = "a proxy beside these programs does"
			list = append(list, found)
		}
	}
	return list
}
