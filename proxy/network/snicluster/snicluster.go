// Package snicluster is the network filter envoy.filters.network.sni_cluster: the server
// name that a TLS client asks for is the name of the cluster that a TCP proxy behind it
// connects to.
package snicluster

import (
	sniclusterpb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_cluster/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/network/tcpproxy"
)

// Factory makes the filter known to listeners.
func Factory() network.Factory {
	return network.Factory{
		Name:     "envoy.filters.network.sni_cluster",
		TypeURLs: []string{"envoy.extensions.filters.network.sni_cluster.v3.SniCluster"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			var c sniclusterpb.SniCluster
			if err := cfg.UnmarshalTo(&c); cfg != nil && err != nil {
				return network.Built{}, err
			}
			return network.Built{Filter: filter{}}, nil
		},
	}
}

type filter struct{}

// OnConnect names the cluster; a client without a server name changes nothing.
func (filter) OnConnect(c *network.Conn) bool {
	if c.Info.ServerName != "" {
		c.Info.SetState(tcpproxy.ClusterKey, c.Info.ServerName)
	}
	return true
}
