package metadataexchange

import (
	"crypto/tls"
	"testing"

	udpapb "github.com/cncf/xds/go/udpa/type/v1"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/network"
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
	return Factory().New(a, network.Env{})
}

func TestConnections(t *testing.T) {
	b, err := build(t, map[string]any{"protocol": "istio-peer-exchange", "enable_discovery": true})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		state *tls.ConnectionState
		pass  bool
	}{
		"plain":                {nil, true},
		"TLS without protocol": {&tls.ConnectionState{}, true},
		"another protocol":     {&tls.ConnectionState{NegotiatedProtocol: "istio"}, true},
		"promised an exchange": {&tls.ConnectionState{NegotiatedProtocol: "istio-peer-exchange"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			if got := b.Filter.OnConnect(&network.Conn{Conn: conn{state: c.state}}); got != c.pass {
				t.Errorf("got %v", got)
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
