// Package alpn is the HTTP filter istio.alpn, by which a control plane says which ALPN
// protocols to offer upstream for the protocol that is spoken there: so proxies know the
// mesh's own traffic, and of which version it is, before its first byte. README.md has the
// fields.
package alpn

import (
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/types/known/anypb"
	alpnpb "istio.io/api/envoy/config/filter/http/alpn/v2alpha1"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Name is the filter's name.
const Name = "istio.alpn"

// Speaks is the version that a cluster speaks with its endpoints for a client of another
// one; false when there is no such cluster.
type Speaks func(cluster string, client http.Protocol) (http.Protocol, bool)

// Factory builds the filter.
func Factory(speaks Speaks) http.Factory {
	return http.Factory{
		Name: Name, TypeURLs: []string{"type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"},
		New: func(cfg *anypb.Any, _ http.Env) (http.Filter, error) { return newFilter(cfg, speaks) },
	}
}

func newFilter(cfg *anypb.Any, speaks Speaks) (http.Filter, error) {
	var c alpnpb.FilterConfig
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := xds.Only(&c, "alpn_override"); err != nil {
		return nil, err
	}
	f := &filter{speaks: speaks}
	for i, o := range c.GetAlpnOverride() {
		if err := check(o); err != nil {
			return nil, fmt.Errorf("alpn_override[%d]: %w", i, err)
		}
		f.offers[versions[o.GetUpstreamProtocol()]] = strings.Join(o.GetAlpnOverride(), ",")
	}
	return f, nil
}

func check(o *alpnpb.FilterConfig_AlpnOverride) error {
	if err := xds.Only(o, "upstream_protocol", "alpn_override"); err != nil {
		return err
	}
	if _, known := alpnpb.FilterConfig_Protocol_name[int32(o.GetUpstreamProtocol())]; !known {
		return fmt.Errorf("upstream_protocol: %d is not known", o.GetUpstreamProtocol())
	}
	for _, name := range o.GetAlpnOverride() {
		if name == "" || len(name) > 255 || strings.Contains(name, ",") {
			return errors.New("alpn_override: a protocol's name has 1–255 bytes, none of them a comma")
		}
	}
	return nil
}

// versions are the protocols by their names in the configuration.
var versions = map[alpnpb.FilterConfig_Protocol]http.Protocol{
	alpnpb.FilterConfig_HTTP10: http.HTTP10, alpnpb.FilterConfig_HTTP11: http.HTTP11, alpnpb.FilterConfig_HTTP2: http.HTTP2,
}

type filter struct {
	speaks Speaks
	offers [http.HTTP3 + 1]string // by version, "" for what the cluster offers by itself
}

// OnRequest says what the connection that carries the request offers.
func (f *filter) OnRequest(s *http.Stream, _ http.Slot) http.Verdict {
	if v, ok := f.speaks(s.Info.Cluster, s.Request.Protocol); ok {
		s.Info.UpstreamALPN = f.offers[v]
	}
	return http.Continue
}

// OnResponse does nothing.
func (*filter) OnResponse(*http.Stream, http.Slot) http.Verdict { return http.Continue }
