package snicluster

import (
	"testing"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/network/tcpproxy"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

func TestServerNameIsTheCluster(t *testing.T) {
	b, err := Factory().New(nil, network.Env{})
	if err != nil {
		t.Fatal(err)
	}
	for sni, want := range map[string]any{"a.test": "a.test", "": nil} {
		c := &network.Conn{Info: &streaminfo.Info{ServerName: sni}}
		if !b.Filter.OnConnect(c) || c.Info.FilterState[tcpproxy.ClusterKey] != want {
			t.Errorf("%q: %v", sni, c.Info.FilterState)
		}
	}
}
