package compile

import (
	"encoding/base64"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// Headers in which a proxy says to the next which workload it serves.
const (
	peerIDHeader = "x-envoy-peer-metadata-id"
	peerHeader   = "x-envoy-peer-metadata"
)

// maxPeerMetadata bounds the header's value; an Envoy refuses longer ones in routes.
const maxPeerMetadata = 16 << 10

// peerHeaders are what a proxy without the filter for them adds to requests: they are the
// same for all, so that routes can say them. A proxy that no agent has started serves no
// workload that one could name.
func peerHeaders(p *mesh.Proxy) []ir.HeaderValue {
	if p.Has(extPeerMetadata) || !p.HasAgent() {
		return nil
	}
	list := []ir.HeaderValue{{Name: peerIDHeader, Value: p.ID}}
	if text := peerMetadata(p); text != "" && len(text) <= maxPeerMetadata {
		list = append(list, ir.HeaderValue{Name: peerHeader, Value: text})
	}
	return list
}

// peerMetadata is what peers are told of the node, in the form of the header.
func peerMetadata(p *mesh.Proxy) string {
	told := map[string]any{}
	for _, key := range []string{
		"APP_CONTAINERS", "CLUSTER_ID", "INSTANCE_IPS", "ISTIO_VERSION", "LABELS", "MESH_ID", "NAME", "NAMESPACE", "OWNER",
		"PLATFORM_METADATA", "SERVICE_ACCOUNT", "WORKLOAD_NAME",
	} {
		if v, ok := p.Metadata[key]; ok {
			told[key] = v
		}
	}
	m, err := structpb.NewStruct(told)
	if err != nil {
		return ""
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(raw)
}
