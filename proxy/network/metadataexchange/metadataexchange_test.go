package metadataexchange

import (
	"crypto/tls"
	"testing"

	udpapb "github.com/cncf/xds/go/udpa/type/v1"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// conn is a connection after a handshake with the given protocol.
type conn struct {
	transport.Conn
	state *tls.ConnectionState
}

func (c conn) TLS() *tls.ConnectionState { return c.state }

func build(t *testing.T, fields map[string]any) (network.Built, error) {
	t.Helper()
	v, err := structpb.NewStruct(fields)
	if err != nil {
		t.Fatal(err)
	}
	a, err := anypb.New(&udpapb.TypedStruct{TypeUrl: "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange", Value: v})
	if err != nil {
		t.Fatal(err)
	}
	return Factory(&corev3.Node{}).New(a, network.Env{})
}

// TestConnections: there is an exchange where the handshake has promised one.
func TestConnections(t *testing.T) {
	b, err := build(t, map[string]any{"protocol": "istio-peer-exchange", "enable_discovery": true})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		state    *tls.ConnectionState
		exchange bool
	}{
		"plain":                {nil, false},
		"TLS without protocol": {&tls.ConnectionState{}, false},
		"another protocol":     {&tls.ConnectionState{NegotiatedProtocol: "istio"}, false},
		"promised an exchange": {&tls.ConnectionState{NegotiatedProtocol: "istio-peer-exchange"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			nc := &network.Conn{Conn: conn{state: c.state}, Info: &streaminfo.Info{}}
			if !b.Filter.OnConnect(nc) {
				t.Fatal("the connection is closed")
			}
			if _, got := nc.Conn.(*exchange); got != c.exchange || got != (nc.Info.DownstreamPeer != nil) {
				t.Errorf("exchange: %v", got)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	for want, fields := range map[string]map[string]any{
		"protocol: not a string":       {"protocol": 1},
		"unknown_field: not supported": {"unknown_field": true},
	} {
		if _, err := build(t, fields); err == nil || err.Error() != want {
			t.Errorf("%v: %v", fields, err)
		}
	}
}
