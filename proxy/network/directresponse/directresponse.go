// Package directresponse is the terminal network filter
// envoy.filters.network.direct_response: it sends every client the same bytes and closes.
package directresponse

import (
	"context"
	"fmt"

	directresponsepb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/transport"
)

// Factory makes the filter known to listeners.
func Factory() network.Factory {
	return network.Factory{
		Name:     "envoy.filters.network.direct_response",
		TypeURLs: []string{"envoy.extensions.filters.network.direct_response.v3.Config"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			var c directresponsepb.Config
			if err := cfg.UnmarshalTo(&c); err != nil {
				return network.Built{}, err
			}
			text, err := transport.ReadSource(c.GetResponse())
			if err != nil {
				return network.Built{}, fmt.Errorf("response: %w", err)
			}
			return network.Built{Terminal: filter(text)}, nil
		},
	}
}

// filter is the answer.
type filter []byte

// Serve sends the answer.
func (f filter) Serve(_ context.Context, c *network.Conn) {
	n, err := c.Write(f)
	c.Info.BytesSent += uint64(n)
	c.Info.CodeDetails = "direct_response"
	if err == nil {
		_ = c.CloseWrite() // so that a reset for what nobody reads comes after the bytes
	}
}
