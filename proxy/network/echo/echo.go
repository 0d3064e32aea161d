// Package echo is the terminal network filter envoy.filters.network.echo: it sends back
// what it receives.
package echo

import (
	"context"

	echopb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/echo/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
)

// Factory makes the filter known to listeners.
func Factory() network.Factory {
	return network.Factory{
		Name:     "envoy.filters.network.echo",
		TypeURLs: []string{"envoy.extensions.filters.network.echo.v3.Echo"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			var c echopb.Echo
			if err := cfg.UnmarshalTo(&c); cfg != nil && err != nil {
				return network.Built{}, err
			}
			return network.Built{Terminal: filter{}}, nil
		},
	}
}

type filter struct{}

// Serve sends bytes back until the client ends.
func (filter) Serve(_ context.Context, c *network.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := c.Read(buf)
		if n > 0 {
			c.Info.BytesReceived += uint64(n)
			if _, werr := c.Write(buf[:n]); werr != nil {
				return
			}
			c.Info.BytesSent += uint64(n)
		}
		if err != nil {
			_ = c.CloseWrite() // whoever ended may still read
			return
		}
	}
}
