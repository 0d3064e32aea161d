// Package metadataexchange is the network filter istio.metadata_exchange, by which
// mesh proxies tell each other who they are ahead of a TCP stream.
//
// Peers exchange metadata only on connections whose TLS handshake agreed on the
// filter's own ALPN protocol ("istio-peer-exchange"); every other connection passes
// untouched. This proxy does not offer that protocol in handshakes, so here all
// connections pass. The filter's configuration is checked all the same.
package metadataexchange

import (
	"errors"
	"fmt"

	udpapb "github.com/cncf/xds/go/udpa/type/v1"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/lateen-mesh/lateen/proxy/network"
)

// Factory makes the filter known to listeners. Its configuration arrives as a
// TypedStruct.
func Factory() network.Factory {
	return network.Factory{
		Name:     "istio.metadata_exchange",
		TypeURLs: []string{"envoy.tcp.metadataexchange.config.MetadataExchange"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			f, err := compile(cfg)
			return network.Built{Filter: f}, err
		},
	}
}

// filter ends connections that agreed on a protocol that the filter cannot speak.
type filter struct{ protocol string }

func compile(cfg *anypb.Any) (*filter, error) {
	var s udpapb.TypedStruct
	if err := cfg.UnmarshalTo(&s); err != nil {
		return nil, err
	}
	f := &filter{}
	for name, v := range s.GetValue().GetFields() {
		switch name {
		case "protocol":
			text, ok := v.GetKind().(*structpb.Value_StringValue)
			if !ok {
				return nil, errors.New("protocol: not a string")
			}
			f.protocol = text.StringValue
		case "enable_discovery", "additional_labels": // about peers that exchange
		default:
			return nil, fmt.Errorf("%s: not supported", name)
		}
	}
	return f, nil
}

// OnConnect lets a connection pass unless its handshake promised an exchange.
func (f *filter) OnConnect(c *network.Conn) bool {
	st := c.TLS()
	return st == nil || f.protocol == "" || st.NegotiatedProtocol != f.protocol
}
