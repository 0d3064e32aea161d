package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Assignment spells the endpoints of a cluster.
func Assignment(a ir.Assignment) *endpointv3.ClusterLoadAssignment {
	out := &endpointv3.ClusterLoadAssignment{ClusterName: a.Cluster}
	for _, l := range a.Localities {
		out.Endpoints = append(out.Endpoints, localityEndpoints(l))
	}
	return out
}

func localityEndpoints(l ir.LocalityEndpoints) *endpointv3.LocalityLbEndpoints {
	out := &endpointv3.LocalityLbEndpoints{Priority: l.Priority}
	if l.Locality != nil {
		out.Locality = &corev3.Locality{Region: l.Locality.Region, Zone: l.Locality.Zone, SubZone: l.Locality.SubZone}
	}
	if l.Weight > 0 {
		out.LoadBalancingWeight = wrapperspb.UInt32(l.Weight)
	}
	for _, e := range l.Endpoints {
		out.LbEndpoints = append(out.LbEndpoints, lbEndpoint(e))
	}
	return out
}

func lbEndpoint(e ir.Endpoint) *endpointv3.LbEndpoint {
	out := &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(e.Address, e.Port)}},
		Metadata:       endpointMetadata(e),
	}
	if e.Weight > 0 {
		out.LoadBalancingWeight = wrapperspb.UInt32(e.Weight)
	}
	if e.Draining {
		out.HealthStatus = corev3.HealthStatus_DRAINING
	}
	return out
}

func endpointMetadata(e ir.Endpoint) *corev3.Metadata {
	m := map[string]*structpb.Struct{}
	if e.TLSMode != "" {
		m["envoy.transport_socket_match"] = textField("tlsMode", e.TLSMode)
	}
	if e.Workload != "" {
		m["istio"] = textField("workload", e.Workload)
	}
	if len(m) == 0 {
		return nil
	}
	return &corev3.Metadata{FilterMetadata: m}
}

func textField(key, text string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue(text)}}
}
