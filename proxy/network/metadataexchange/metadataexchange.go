// Package metadataexchange is the network filter istio.metadata_exchange: proxies that have
// agreed on its ALPN protocol tell each other at the start of a TCP connection which
// workloads they serve. Other connections pass as they are.
//
// Each side sends one frame before its first byte: a magic number, the length, and an Any
// with a Struct that holds the node's id and metadata. What begins otherwise is no frame but
// the application's own bytes.
package metadataexchange

import (
	"errors"
	"fmt"

	udpapb "github.com/cncf/xds/go/udpa/type/v1"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// Factory builds the filter for the proxy's node.
func Factory(node *corev3.Node) network.Factory {
	own := frame(node)
	return network.Factory{
		Name:     "envoy.filters.network.metadata_exchange",
		TypeURLs: []string{"envoy.tcp.metadataexchange.config.MetadataExchange"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			f, err := compile(cfg)
			if err != nil {
				return network.Built{}, err
			}
			f.own = own
			return network.Built{Filter: f}, nil
		},
	}
}

// Exchange is the upstream side: it makes a new connection tell of the node before all else.
// What it returns is a peer.Known.
func Exchange(node *corev3.Node) func(transport.Conn) transport.Conn {
	own := frame(node)
	return func(c transport.Conn) transport.Conn { return newExchange(c, own) }
}

type filter struct {
	protocol string
	own      []byte
}

func compile(cfg *anypb.Any) (*filter, error) {
	fields, err := fieldsOf(cfg)
	if err != nil {
		return nil, err
	}
	f := &filter{}
	for name, v := range fields.GetFields() {
		switch name {
		case "protocol":
			text, ok := v.GetKind().(*structpb.Value_StringValue)
			if !ok {
				return nil, errors.New("protocol: not a string")
			}
			f.protocol = text.StringValue
		case "enable_discovery", "additional_labels": // by resources that no control plane of ours sends
		default:
			return nil, fmt.Errorf("%s: not supported", name)
		}
	}
	return f, nil
}

// fieldsOf are the fields of the configuration: of a TypedStruct, or of the message itself in
// a program that knows its type.
func fieldsOf(cfg *anypb.Any) (*structpb.Struct, error) {
	var s udpapb.TypedStruct
	if cfg.MessageIs(&s) {
		err := cfg.UnmarshalTo(&s)
		return s.GetValue(), err
	}
	m, err := cfg.UnmarshalNew()
	if err != nil {
		return nil, err
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	fields := &structpb.Struct{}
	return fields, protojson.Unmarshal(text, fields)
}

// OnConnect begins the exchange where the handshake has promised one.
func (f *filter) OnConnect(c *network.Conn) bool {
	if st := c.TLS(); st != nil && f.protocol != "" && st.NegotiatedProtocol == f.protocol {
		x := newExchange(c.Conn, f.own)
		c.Conn, c.Info.DownstreamPeer = x, x
	}
	return true
}
