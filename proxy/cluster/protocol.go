package cluster

import (
	"errors"
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"

	"github.com/lateen-mesh/lateen/proxy/http1"
	"github.com/lateen-mesh/lateen/proxy/http2"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// httpOptions say how HTTP is spoken to the endpoints.
type httpOptions struct {
	version     upstream.Version
	follow      bool // what the client speaks is spoken upstream
	http2       http2.Options
	idle        time.Duration
	maxAge      time.Duration
	maxRequests uint32
	http1       http1.Options
	autoSNI     bool
	autoSAN     bool
	errors      errorMatcher
}

// particular reports that requests to one endpoint differ in the connections they may use.
func (o *httpOptions) particular() bool { return o.follow || o.autoSNI }

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
	switch c.GetProtocolSelection() {
	case clusterv3.Cluster_USE_CONFIGURED_PROTOCOL:
		if c.GetHttp2ProtocolOptions() != nil {
			cfg.http.version = upstream.HTTP2
		}
	case clusterv3.Cluster_USE_DOWNSTREAM_PROTOCOL:
		cfg.http.follow = true
	}
	if err := cfg.decodeHTTP2(c.GetHttp2ProtocolOptions()); err != nil {
		return err
	}
	return cfg.http1(c.GetHttpProtocolOptions())
}

func (cfg *config) newHTTP(o *httpv3.HttpProtocolOptions) error {
	err := xds.Only(o, "common_http_protocol_options", "upstream_http_protocol_options", "explicit_http_config",
		"use_downstream_protocol_config", "auto_config", "outlier_detection")
	if err != nil {
		return err
	}
	if cfg.http.errors, err = decodeErrors(o.GetOutlierDetection()); err != nil {
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
		return at("explicit_http_config", cfg.explicitHTTP(o.GetExplicitHttpConfig()))
	case o.GetUseDownstreamProtocolConfig() != nil:
		cfg.http.follow = true
		return at("use_downstream_protocol_config", cfg.both(o.GetUseDownstreamProtocolConfig()))
	case o.GetAutoConfig() != nil:
		cfg.http.version = upstream.ALPN
		return at("auto_config", cfg.both(o.GetAutoConfig()))
	}
	return errors.New("upstream_protocol_options: value is required")
}

func (cfg *config) explicitHTTP(e *httpv3.HttpProtocolOptions_ExplicitHttpConfig) error {
	switch {
	case e.GetHttp3ProtocolOptions() != nil:
		return errors.New("http3_protocol_options: not supported")
	case e.GetHttp2ProtocolOptions() != nil:
		cfg.http.version = upstream.HTTP2
		return cfg.decodeHTTP2(e.GetHttp2ProtocolOptions())
	}
	return cfg.http1(e.GetHttpProtocolOptions())
}

// both reads the options of a choice that leaves the version open.
func (cfg *config) both(o interface {
	proto.Message
	GetHttpProtocolOptions() *corev3.Http1ProtocolOptions
	GetHttp2ProtocolOptions() *corev3.Http2ProtocolOptions
}) error {
	if err := xds.Only(o, "http_protocol_options", "http2_protocol_options"); err != nil {
		return err
	}
	if err := cfg.decodeHTTP2(o.GetHttp2ProtocolOptions()); err != nil {
		return err
	}
	return cfg.http1(o.GetHttpProtocolOptions())
}

func (cfg *config) decodeHTTP2(o *corev3.Http2ProtocolOptions) (err error) {
	cfg.http.http2, err = http2.Decode(o)
	return at("http2_protocol_options", err)
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

func (cfg *config) http1(o *corev3.Http1ProtocolOptions) (err error) {
	cfg.http.http1, err = http1.Decode(o)
	return at("http_protocol_options", err)
}
