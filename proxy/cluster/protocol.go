package cluster

import (
	"errors"
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"

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
