package bootstrap

import (
	"encoding/json"

	"github.com/lateen-mesh/lateen/wellknown"
)

// GRPC is the bootstrap of a gRPC program beside the agent that speaks xDS itself (gRFC A27).
// It knows no certificates: what is to be encrypted such a program does not call.
func (in Input) GRPC() ([]byte, error) {
	node, err := in.node()
	if err != nil {
		return nil, err
	}
	metadata, _ := node["metadata"].(object)
	metadata["GENERATOR"] = wellknown.GRPCGenerator
	return json.MarshalIndent(object{
		"xds_servers": []object{{
			"server_uri": "unix://" + in.XDSSocket, "channel_creds": []object{{"type": "insecure"}}, "server_features": []string{"xds_v3"},
		}},
		"node":                                   node,
		"server_listener_resource_name_template": wellknown.GRPCInboundListener + "%s",
	}, "", "  ")
}
