// Package alpn is the HTTP filter istio.alpn, by which a control plane tells Envoy
// which ALPN protocols to offer upstream for the protocol of the request. This proxy
// checks its configuration and does nothing with it: README.md says why.
package alpn

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/anypb"
	alpnpb "istio.io/api/envoy/config/filter/http/alpn/v2alpha1"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's name.
const Name = "istio.alpn"

// Factory builds the filter.
func Factory() http.Factory {
	return http.Factory{
		Name: Name, TypeURLs: []string{"type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"}, New: newFilter,
	}
}

func newFilter(cfg *anypb.Any, _ http.Env) (http.Filter, error) {
	var c alpnpb.FilterConfig
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := xds.Only(&c, "alpn_override"); err != nil {
		return nil, err
	}
	for i, o := range c.GetAlpnOverride() {
		if err := check(o); err != nil {
			return nil, fmt.Errorf("alpn_override[%d]: %w", i, err)
		}
	}
	return filter{}, nil
}

func check(o *alpnpb.FilterConfig_AlpnOverride) error {
	if err := xds.Only(o, "upstream_protocol", "alpn_override"); err != nil {
		return err
	}
	if _, known := alpnpb.FilterConfig_Protocol_name[int32(o.GetUpstreamProtocol())]; !known {
		return fmt.Errorf("upstream_protocol: %d is not known", o.GetUpstreamProtocol())
	}
	for _, name := range o.GetAlpnOverride() {
		if name == "" || len(name) > 255 {
			return errors.New("alpn_override: a protocol's name has 1–255 bytes")
		}
	}
	return nil
}

type filter struct{}

// OnRequest does nothing.
func (filter) OnRequest(*http.Stream, http.Slot) http.Verdict { return http.Continue }

// OnResponse does nothing.
func (filter) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }
