package compile

import (
	"cmp"
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

// maxPeerMetadata bounds the header's value; an Envoy refuses longer ones.
const maxPeerMetadata = 16 << 10

// peerHeaders are what a proxy without the filter for them does with headers: it tells
// whom it calls which workload it serves, and takes off what others have told it.
func peerHeaders(p *mesh.Proxy, outbound bool) ir.HeaderEdits {
	both := []string{peerIDHeader, peerHeader}
	if !outbound {
		return ir.HeaderEdits{RequestRemove: both}
	}
	edits := ir.HeaderEdits{RequestAdd: []ir.HeaderValue{{Name: peerIDHeader, Value: p.ID}}, ResponseRemove: both}
	if text := peerMetadata(p); text != "" && len(text) <= maxPeerMetadata {
		edits.RequestAdd = append(edits.RequestAdd, ir.HeaderValue{Name: peerHeader, Value: text})
	}
	return edits
}

// peerMetadata is what peers are told of the node, in the form of the header. Our own
// proxy's filter tells the same.
func peerMetadata(p *mesh.Proxy) string {
	told := map[string]any{}
	for _, key := range []string{
		"NAME", "NAMESPACE", "OWNER", "WORKLOAD_NAME", "CLUSTER_ID", "MESH_ID", "SERVICE_ACCOUNT", "INSTANCE_IPS", "APP_CONTAINERS", "ISTIO_VERSION",
	} {
		if v, ok := p.Metadata[key].(string); ok && v != "" {
			told[key] = v
		}
	}
	labels := map[string]any{}
	for k, v := range p.Labels {
		labels[k] = v
	}
	for label, value := range map[string]string{
		canonicalNameLabel:     cmp.Or(p.Labels[canonicalNameLabel], p.Labels["app"], p.WorkloadName),
		canonicalRevisionLabel: cmp.Or(p.Labels[canonicalRevisionLabel], p.Labels["version"], "latest"),
	} {
		if value != "" {
			labels[label] = value
		}
	}
	told["LABELS"] = labels
	m, err := structpb.NewStruct(told)
	if err != nil { // text that is no UTF-8, which no node can have
		return ""
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return ""
	}
	return base64.StdEncoding.EncodeToString(raw)
}
