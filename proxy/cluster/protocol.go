package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// httpOptions say how HTTP is spoken to the endpoints.
type httpOptions struct {
	h2           bool // explicit HTTP/2: gRPC of the proxy itself
	idle         time.Duration
	maxAge       time.Duration
	maxRequests  uint32
	preserveCase bool
	trailers     bool
	autoSNI      bool
	autoSAN      bool
}

const httpOptionsKey = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// decodeHTTP reads the HTTP options: typed, or the older fields of the cluster.
func (cfg *config) decodeHTTP(c *clusterv3.Cluster) error {
	cfg.http = httpOptions{idle: time.Hour, maxRequests: c.GetMaxRequestsPerConnection().GetValue()} // older control planes send it
	for key := range c.GetTypedExtensionProtocolOptions() {
		if key != httpOptionsKey {
			return fmt.Errorf("typed_extension_protocol_options: %s is not supported", key)
		}
	}
	typed := c.GetTypedExtensionProtocolOptions()[httpOptionsKey]
	if typed == nil {
		return cfg.oldHTTP(c)
	}
	var o httpv3.HttpProtocolOptions
	if err := proto.Unmarshal(typed.GetValue(), &o); err != nil {
		return fmt.Errorf("typed_extension_protocol_options: %w", err)
	}
	return at("typed_extension_protocol_options", cfg.newHTTP(&o))
}

// oldHTTP reads the fields of the cluster that older control planes send.
func (cfg *config) oldHTTP(c *clusterv3.Cluster) error {
	if err := cfg.commonHTTP(c.GetCommonHttpProtocolOptions()); err != nil {
		return err
	}
	if err := cfg.upstreamHTTP(c.GetUpstreamHttpProtocolOptions()); err != nil {
		return err
	}
	cfg.http.h2 = c.GetHttp2ProtocolOptions() != nil
	return cfg.http1(c.GetHttpProtocolOptions())
}

func (cfg *config) newHTTP(o *httpv3.HttpProtocolOptions) error {
	err := xds.Only(o, "common_http_protocol_options", "upstream_http_protocol_options", "explicit_http_config",
		"use_downstream_protocol_config", "auto_config")
	if err != nil {
		return err
	}
	if err := cfg.commonHTTP(o.GetCommonHttpProtocolOptions()); err != nil {
		return err
	}
	if err := cfg.upstreamHTTP(o.GetUpstreamHttpProtocolOptions()); err != nil {
		return err
	}
	switch {
	case o.GetExplicitHttpConfig() != nil:
		e := o.GetExplicitHttpConfig()
		if e.GetHttp3ProtocolOptions() != nil {
			return errors.New("explicit_http_config.http3_protocol_options: not supported")
		}
		cfg.http.h2 = e.GetHttp2ProtocolOptions() != nil
		return at("explicit_http_config", cfg.http1(e.GetHttpProtocolOptions()))
	case o.GetUseDownstreamProtocolConfig() != nil:
		return at("use_downstream_protocol_config", cfg.http1(o.GetUseDownstreamProtocolConfig().GetHttpProtocolOptions()))
	}
	// auto_config: what ALPN settles; only HTTP/1.1 is offered.
	return at("auto_config", cfg.http1(o.GetAutoConfig().GetHttpProtocolOptions()))
}

func (cfg *config) commonHTTP(o *corev3.HttpProtocolOptions) error {
	if err := xds.Only(o, "idle_timeout", "max_connection_duration", "max_requests_per_connection"); err != nil {
		return at("common_http_protocol_options", err)
	}
	cfg.http.idle = seconds(o.GetIdleTimeout(), time.Hour)
	cfg.http.maxAge = seconds(o.GetMaxConnectionDuration(), 0)
	if n := o.GetMaxRequestsPerConnection(); n != nil {
		cfg.http.maxRequests = n.GetValue()
	}
	return nil
}

func (cfg *config) upstreamHTTP(o *corev3.UpstreamHttpProtocolOptions) error {
	cfg.http.autoSNI, cfg.http.autoSAN = o.GetAutoSni(), o.GetAutoSanValidation()
	return at("upstream_http_protocol_options", xds.Only(o, "auto_sni", "auto_san_validation"))
}

func (cfg *config) http1(o *corev3.Http1ProtocolOptions) error {
	if err := xds.Only(o, "header_key_format", "enable_trailers"); err != nil {
		return at("http_protocol_options", err)
	}
	cfg.http.trailers = o.GetEnableTrailers()
	switch f := o.GetHeaderKeyFormat(); {
	case f == nil:
	case f.GetStatefulFormatter().GetName() == "preserve_case",
		f.GetStatefulFormatter().GetTypedConfig().GetTypeUrl() == "type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3.PreserveCaseFormatterConfig":
		cfg.http.preserveCase = true
	default:
		return errors.New("http_protocol_options.header_key_format: only preserve_case is supported")
	}
	return nil
}

// decodeConnect reads how sockets are connected.
func (cfg *config) decodeConnect(c *clusterv3.Cluster) error {
	o := c.GetUpstreamConnectionOptions()
	if err := xds.Only(o, "tcp_keepalive"); err != nil {
		return at("upstream_connection_options", err)
	}
	if k := o.GetTcpKeepalive(); k != nil {
		cfg.dialer.KeepAlive = keepAlive(k)
	}
	return at("upstream_bind_config", cfg.bind(c.GetUpstreamBindConfig()))
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
	if err := xds.Only(b, "source_address", "freebind", "socket_options"); err != nil {
		return err
	}
	if a := b.GetSourceAddress(); a != nil {
		ip, err := netip.ParseAddr(a.GetAddress())
		if err != nil {
			return fmt.Errorf("source_address: malformed IP address: %s", a.GetAddress())
		}
		if a.GetPortValue() > 65535 {
			return fmt.Errorf("source_address: port_value: must be at most 65535, got %d", a.GetPortValue())
		}
		cfg.dialer.Source = netip.AddrPortFrom(ip, uint16(a.GetPortValue()))
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
