package xds

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// A Dial opens a connection for a stream.
type Dial func(ctx context.Context) (net.Conn, error)

// FetchTimeout is the initial_fetch_timeout of a config source, 15 s where it has none; 0
// waits for ever.
func FetchTimeout(src *corev3.ConfigSource) time.Duration {
	if t := src.GetInitialFetchTimeout(); t != nil {
		return t.AsDuration()
	}
	return 15 * time.Second
}

// FromConfig turns an api_config_source into the Options that it determines: Dial,
// Authority, Metadata and Delta. cluster gives the way to a cluster by name.
func FromConfig(cfg *corev3.ApiConfigSource, cluster func(name string) Dial) (Options, error) {
	var o Options
	switch cfg.GetApiType() {
	case corev3.ApiConfigSource_GRPC, corev3.ApiConfigSource_AGGREGATED_GRPC:
	case corev3.ApiConfigSource_DELTA_GRPC, corev3.ApiConfigSource_AGGREGATED_DELTA_GRPC:
		o.Delta = true
	default:
		return o, fmt.Errorf("api_type: %s is not supported", cfg.GetApiType())
	}
	if v := cfg.GetTransportApiVersion(); v != corev3.ApiVersion_V3 && v != corev3.ApiVersion_AUTO {
		return o, fmt.Errorf("transport_api_version: %s is not supported", v)
	}
	services := cfg.GetGrpcServices()
	if len(services) == 0 {
		return o, fmt.Errorf("grpc_services: one is needed")
	}
	if err := o.target(services[0], cluster); err != nil {
		return o, fmt.Errorf("grpc_services[0].%w", err)
	}
	for _, h := range services[0].GetInitialMetadata() {
		if o.Metadata == nil {
			o.Metadata = map[string]string{}
		}
		o.Metadata[strings.ToLower(h.GetKey())] = h.GetValue()
	}
	return o, nil
}

func (o *Options) target(s *corev3.GrpcService, cluster func(string) Dial) error {
	switch t := s.GetTargetSpecifier().(type) {
	case *corev3.GrpcService_EnvoyGrpc_:
		name := t.EnvoyGrpc.GetClusterName()
		o.Dial, o.Authority = cluster(name), t.EnvoyGrpc.GetAuthority()
		if o.Authority == "" {
			o.Authority = name
		}
		return nil
	case *corev3.GrpcService_GoogleGrpc_:
		return o.google(t.GoogleGrpc)
	}
	return fmt.Errorf("target_specifier: none is set")
}

// google is a target by URI, in plain text: channel credentials would need gRPC's
// own, and no control plane of a mesh is reached that way.
func (o *Options) google(g *corev3.GrpcService_GoogleGrpc) error {
	switch g.GetChannelCredentials().GetCredentialSpecifier().(type) {
	case nil, *corev3.GrpcService_GoogleGrpc_ChannelCredentials_LocalCredentials:
	default:
		return fmt.Errorf("google_grpc.channel_credentials: only local credentials are supported; use envoy_grpc with a TLS cluster")
	}
	if len(g.GetCallCredentials()) > 0 {
		return fmt.Errorf("google_grpc.call_credentials: not supported")
	}
	network, address := "tcp", strings.TrimLeft(strings.TrimPrefix(g.GetTargetUri(), "dns:"), "/")
	if path, ok := strings.CutPrefix(g.GetTargetUri(), "unix:"); ok {
		network, address = "unix", strings.TrimPrefix(path, "//")
	}
	if o.Authority = address; network == "unix" {
		o.Authority = "localhost"
	}
	o.Dial = func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, address)
	}
	return nil
}
