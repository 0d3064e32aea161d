// Package snidynamicforwardproxy is the network filter
// envoy.filters.network.sni_dynamic_forward_proxy: it resolves the server name that a TLS
// client asks for, which the cluster behind the TCP proxy then connects to. A client whose
// name cannot be resolved is hung up on; one without a name passes.
package snidynamicforwardproxy

import (
	"cmp"
	"fmt"
	"net"
	"strconv"
	"strings"

	cachepb "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	snipb "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/sni_dynamic_forward_proxy/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/network/tcpproxy"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// Deps are what the filter uses of the proxy around it.
type Deps struct {
	// Names returns how names are looked up in the DNS cache of these settings, until done.
	// The error names a field.
	Names func(*cachepb.DnsCacheConfig) (resolve func(name string, done <-chan struct{}) error, err error)
}

// Factory makes the filter known to listeners.
func Factory(d Deps) network.Factory {
	return network.Factory{
		Name:     "envoy.filters.network.sni_dynamic_forward_proxy",
		TypeURLs: []string{"envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig"},
		New: func(cfg *anypb.Any, _ network.Env) (network.Built, error) {
			f, err := newFilter(cfg, d)
			return network.Built{Filter: f}, err
		},
	}
}

type filter struct {
	resolve func(name string, done <-chan struct{}) error
	port    uint32
}

func newFilter(cfg *anypb.Any, d Deps) (*filter, error) {
	var c snipb.FilterConfig
	if err := cfg.UnmarshalTo(&c); err != nil {
		return nil, err
	}
	if err := xds.Only(&c, "dns_cache_config", "port_value"); err != nil {
		return nil, err
	}
	if c.GetPortValue() > 65535 {
		return nil, fmt.Errorf("port_value: must be at most 65535, got %d", c.GetPortValue())
	}
	resolve, err := d.Names(c.GetDnsCacheConfig())
	if err != nil {
		return nil, fmt.Errorf("dns_cache_config.%w", err)
	}
	return &filter{resolve, cmp.Or(c.GetPortValue(), 443)}, nil
}

// OnConnect resolves the name and tells the TCP proxy's cluster where to connect to.
func (f *filter) OnConnect(c *network.Conn) bool {
	if c.Info.ServerName == "" {
		return true
	}
	host := net.JoinHostPort(c.Info.ServerName, strconv.FormatUint(uint64(f.port), 10))
	if err := f.resolve(strings.ToLower(c.Info.ServerName), nil); err != nil {
		c.Info.Flags.Set(streaminfo.DNSResolutionFailed)
		return false
	}
	c.Info.SetState(tcpproxy.HostKey, host)
	return true
}
