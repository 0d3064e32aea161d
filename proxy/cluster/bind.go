package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// decodeConnect reads how sockets are connected.
func (cfg *config) decodeConnect(c *clusterv3.Cluster, shared *corev3.BindConfig) error {
	o := c.GetUpstreamConnectionOptions()
	if err := xds.Only(o, "tcp_keepalive"); err != nil {
		return at("upstream_connection_options", err)
	}
	if k := o.GetTcpKeepalive(); k != nil {
		cfg.dialer.KeepAlive = keepAlive(k)
	}
	return at("upstream_bind_config", cfg.bind(inherit(c.GetUpstreamBindConfig(), shared)))
}

// inherit is the bind config of a cluster: its own, with the socket options and freebind
// of the shared one where it has none, as in Envoy. So a mark (SO_MARK) of the bootstrap
// is on every connection of the proxy.
func inherit(own, shared *corev3.BindConfig) *corev3.BindConfig {
	switch {
	case own == nil:
		return shared
	case shared == nil:
		return own
	}
	b := proto.Clone(own).(*corev3.BindConfig)
	if len(b.GetSocketOptions()) == 0 {
		b.SocketOptions = shared.GetSocketOptions()
	}
	if b.GetFreebind() == nil {
		b.Freebind = shared.GetFreebind()
	}
	return b
}

// CheckBind reports what of a bind config is not supported; the error names the field.
func CheckBind(b *corev3.BindConfig) error { return new(config).bind(b) }

// ControlOf prepares sockets that are no cluster's, such as the resolver's, as a bind config
// says for all sockets (SOL_SOCKET): so they are known as the proxy's by their mark. It is
// nil where there is nothing to do.
func ControlOf(b *corev3.BindConfig) func(network, address string, c syscall.RawConn) error {
	var cfg config
	if cfg.bind(b) != nil { // CheckBind has told
		return nil
	}
	var general transport.Dialer
	for _, o := range cfg.dialer.Options {
		if o.Level == unix.SOL_SOCKET {
			general.Options = append(general.Options, o)
		}
	}
	if len(general.Options) == 0 {
		return nil
	}
	return general.Control
}

// keepAlive leaves to the system what is not set, which is negative in net.
func keepAlive(k *corev3.TcpKeepalive) net.KeepAliveConfig {
	cfg := net.KeepAliveConfig{Enable: true, Idle: -1, Interval: -1, Count: -1}
	if v := k.GetKeepaliveTime(); v != nil {
		cfg.Idle = time.Duration(v.GetValue()) * time.Second
	}
	if v := k.GetKeepaliveInterval(); v != nil {
		cfg.Interval = time.Duration(v.GetValue()) * time.Second
	}
	if v := k.GetKeepaliveProbes(); v != nil {
		cfg.Count = int(v.GetValue())
	}
	return cfg
}

func (cfg *config) bind(b *corev3.BindConfig) error {
	if b == nil {
		return nil
	}
	if err := xds.Only(b, "source_address", "freebind", "socket_options", "extra_source_addresses", "additional_source_addresses",
		"local_address_selector"); err != nil {
		return err
	}
	if s := b.GetLocalAddressSelector(); s != nil && s.GetTypedConfig().GetTypeUrl() != defaultSelector {
		return fmt.Errorf("local_address_selector: %s is not supported", s.GetTypedConfig().GetTypeUrl())
	}
	if err := cfg.sources(b); err != nil {
		return err
	}
	if b.GetFreebind().GetValue() {
		cfg.dialer.Options = append(cfg.dialer.Options, transport.FreeBind)
	}
	for i, s := range b.GetSocketOptions() {
		v, ok := s.GetValue().(*corev3.SocketOption_IntValue)
		if !ok || s.GetState() != corev3.SocketOption_STATE_PREBIND {
			return fmt.Errorf("socket_options[%d]: only int_value before the bind is supported", i)
		}
		cfg.dialer.Options = append(cfg.dialer.Options,
			transport.SocketOption{Level: int(s.GetLevel()), Name: int(s.GetName()), Value: int(v.IntValue)})
	}
	return nil
}

// defaultSelector chooses the source address by the family of the endpoint's.
const defaultSelector = "type.googleapis.com/envoy.config.upstream.local_address_selector.v3.DefaultLocalAddressSelector"

// sources reads the source address and those for the other family.
func (cfg *config) sources(b *corev3.BindConfig) error {
	var err error
	if b.GetSourceAddress() != nil {
		if cfg.dialer.Source, err = sourceAddress("source_address", b.GetSourceAddress()); err != nil {
			return err
		}
	}
	more := slices.Clone(b.GetAdditionalSourceAddresses())
	for i, x := range b.GetExtraSourceAddresses() {
		if x.GetSocketOptions() != nil {
			return fmt.Errorf("extra_source_addresses[%d].socket_options: not supported", i)
		}
		more = append(more, x.GetAddress())
	}
	if len(more) > 0 && b.GetSourceAddress() == nil {
		return errors.New("Bootstrap's upstream binding config has extra/additional source addresses but no source_address. Extra/additional addresses cannot be specified if source_address is not set.") //nolint:revive,staticcheck // Envoy's words
	}
	for i, a := range more {
		s, err := sourceAddress(fmt.Sprintf("extra_source_addresses[%d]", i), a)
		if err != nil {
			return err
		}
		cfg.dialer.Extra = append(cfg.dialer.Extra, s)
	}
	return nil
}

func sourceAddress(field string, a *corev3.SocketAddress) (netip.AddrPort, error) {
	ip, err := netip.ParseAddr(a.GetAddress())
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%s: malformed IP address: %s", field, a.GetAddress())
	}
	if a.GetPortValue() > 65535 {
		return netip.AddrPort{}, fmt.Errorf("%s: port_value: must be at most 65535, got %d", field, a.GetPortValue())
	}
	return netip.AddrPortFrom(ip, uint16(a.GetPortValue())), nil
}
