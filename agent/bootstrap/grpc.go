package bootstrap

import (
	"encoding/json"
	"path/filepath"

	"github.com/lateen-mesh/lateen/wellknown"
)

// GRPC is the bootstrap of a gRPC program beside the agent that speaks xDS itself (gRFC A27).
// Certificates of the mesh it reads from in.Certificates (certificate_providers, gRFC A29); without
// that directory it knows none, and what is to be encrypted it neither calls nor serves.
func (in Input) GRPC() ([]byte, error) {
	node, err := in.node()
	if err != nil {
		return nil, err
	}
	metadata, _ := node["metadata"].(object)
	metadata["GENERATOR"] = wellknown.GRPCGenerator
	config := object{
		"xds_servers": []object{{
			"server_uri": "unix://" + in.XDSSocket, "channel_creds": []object{{"type": "insecure"}}, "server_features": []string{"xds_v3"},
		}},
		"node":                                   node,
		"server_listener_resource_name_template": wellknown.GRPCInboundListener + "%s",
	}
	if dir := in.Certificates; dir != "" {
		config["certificate_providers"] = object{"default": object{"plugin_name": "file_watcher", "config": object{
			"certificate_file": filepath.Join(dir, "cert-chain.pem"), "private_key_file": filepath.Join(dir, "key.pem"),
			"ca_certificate_file": filepath.Join(dir, "root-cert.pem"), "refresh_interval": "60s",
		}}}
	}
	return json.MarshalIndent(config, "", "  ")
}
