package cluster

import (
	"errors"
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lateen-mesh/lateen/proxy/lb"
	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// config is a Cluster resource, compiled. It is immutable and holds no proto.
type config struct {
	name, statName string
	kind           kind
	connectTimeout time.Duration
	policy         lb.Policy
	panic          uint32
	byLocality     bool // locality_weighted_lb_config
	thresholds     [2]upstream.Thresholds
	http           httpOptions
	dialer         transport.Dialer
	socket         *corev3.TransportSocket
	matches        []*clusterv3.Cluster_TransportSocketMatch
	outlier        *outlierConfig // nil: off
	dns            dnsConfig
	eds            *edsConfig
	original       originalConfig
	assignment     *assignment // of the resource itself, nil for EDS
	external       bool        // not of the mesh, as its metadata say
}

// A kind says where endpoints come from.
type kind uint8

const (
	static kind = iota
	strictDNS
	logicalDNS
	eds
	originalDst
)

type edsConfig struct {
	service string
	source  *corev3.ConfigSource
}

// fields of a Cluster that are understood. Some change nothing here: buffers are
// bounded on their own, jitter and merge windows have no counterpart, and without
// active health checks nothing waits for the first of them.
var fields = []protoreflect.Name{
	"name", "alt_stat_name", "type", "cluster_type", "eds_cluster_config", "connect_timeout", "per_connection_buffer_limit_bytes",
	"lb_policy", "load_assignment", "circuit_breakers", "max_requests_per_connection", "common_http_protocol_options",
	"upstream_http_protocol_options", "http_protocol_options", "http2_protocol_options", "typed_extension_protocol_options",
	"dns_refresh_rate", "dns_jitter", "dns_failure_refresh_rate", "respect_dns_ttl", "dns_lookup_family", "dns_resolvers",
	"use_tcp_for_dns_lookups", "dns_resolution_config", "typed_dns_resolver_config", "wait_for_warm_on_init", "outlier_detection",
	"cleanup_interval", "upstream_bind_config", "common_lb_config", "transport_socket", "transport_socket_matches", "metadata",
	"upstream_connection_options", "ignore_health_on_host_removal", "filters", "load_balancing_policy", "protocol_selection",
	"ring_hash_lb_config", "maglev_lb_config", "original_dst_lb_config", "least_request_lb_config", "round_robin_lb_config",
	"track_cluster_stats",
}

// at puts a field name in front of an error.
func at(field string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s.%w", field, err)
}

// decode compiles a Cluster; shared is the bind config of those without one. A cluster
// of the bootstrap may also be one that only gRPC uses (explicit HTTP/2).
func decode(c *clusterv3.Cluster, shared *corev3.BindConfig, bootstrap bool) (*config, error) {
	if err := xds.Only(c, fields...); err != nil {
		return nil, err
	}
	if c.GetName() == "" {
		return nil, errors.New("name: value length must be at least 1 characters")
	}
	cfg := &config{
		name: c.GetName(), statName: c.GetAltStatName(), connectTimeout: 5 * time.Second,
		socket: c.GetTransportSocket(), matches: c.GetTransportSocketMatches(),
	}
	cfg.external = c.GetType() == clusterv3.Cluster_ORIGINAL_DST || c.GetMetadata().GetFilterMetadata()["istio"].GetFields()["external"].GetBoolValue()
	if cfg.statName == "" {
		cfg.statName = cfg.name
	}
	if d := c.GetConnectTimeout(); d != nil {
		if cfg.connectTimeout = d.AsDuration(); cfg.connectTimeout <= 0 {
			return nil, errors.New("connect_timeout: value must be greater than 0s")
		}
	}
	for _, step := range []func(*clusterv3.Cluster) error{
		cfg.decodeKind, cfg.decodePolicy, cfg.decodeCommonLB, cfg.decodeBreakers, cfg.decodeHTTP,
		func(c *clusterv3.Cluster) error { return cfg.decodeConnect(c, shared) },
		cfg.decodeDNS, cfg.decodeOutlier, cfg.decodeFilters, cfg.decodeEndpoints,
	} {
		if err := step(c); err != nil {
			return nil, err
		}
	}
	if cfg.http.h2 && !bootstrap {
		return nil, errors.New("typed_extension_protocol_options: explicit HTTP/2 to the upstream is not supported")
	}
	if err := c.Validate(); err != nil { // the constraints that the schema itself states
		return nil, err
	}
	return cfg, nil
}

func (cfg *config) decodeKind(c *clusterv3.Cluster) error {
	if t := c.GetClusterType(); t != nil {
		return fmt.Errorf("cluster_type: %s is not supported", t.GetName())
	}
	switch c.GetType() {
	case clusterv3.Cluster_STATIC:
		cfg.kind = static
	case clusterv3.Cluster_STRICT_DNS:
		cfg.kind = strictDNS
	case clusterv3.Cluster_LOGICAL_DNS:
		cfg.kind = logicalDNS
	case clusterv3.Cluster_ORIGINAL_DST:
		cfg.kind = originalDst
		return cfg.decodeOriginal(c)
	case clusterv3.Cluster_EDS:
		cfg.kind = eds
		return cfg.decodeEDS(c.GetEdsClusterConfig())
	default:
		return fmt.Errorf("type: %s is not supported", c.GetType())
	}
	return nil
}

func (cfg *config) decodeEDS(e *clusterv3.Cluster_EdsClusterConfig) error {
	if e.GetEdsConfig() == nil {
		return errors.New("eds_cluster_config: cannot create an EDS cluster without an EDS config")
	}
	cfg.eds = &edsConfig{service: e.GetServiceName(), source: e.GetEdsConfig()}
	if cfg.eds.service == "" {
		cfg.eds.service = cfg.name
	}
	return nil
}

func (cfg *config) decodeBreakers(c *clusterv3.Cluster) error {
	cfg.thresholds = [2]upstream.Thresholds{upstream.DefaultThresholds, upstream.DefaultThresholds}
	if err := xds.Only(c.GetCircuitBreakers(), "thresholds"); err != nil {
		return at("circuit_breakers", err)
	}
	for i, t := range c.GetCircuitBreakers().GetThresholds() {
		if err := xds.Only(t, "priority", "max_connections", "max_pending_requests", "max_requests", "max_retries", "track_remaining"); err != nil {
			return at(fmt.Sprintf("circuit_breakers.thresholds[%d]", i), err)
		}
		if t.GetPriority() > corev3.RoutingPriority_HIGH {
			return fmt.Errorf("circuit_breakers.thresholds[%d].priority: unknown value %d", i, t.GetPriority())
		}
		out := &cfg.thresholds[t.GetPriority()]
		*out = upstream.DefaultThresholds
		out.TrackRemaining = t.GetTrackRemaining()
		if v := t.GetMaxConnections(); v != nil {
			out.Connections = v.GetValue()
		}
		if v := t.GetMaxPendingRequests(); v != nil {
			out.Pending = v.GetValue()
		}
		if v := t.GetMaxRequests(); v != nil {
			out.Requests = v.GetValue()
		}
		if v := t.GetMaxRetries(); v != nil {
			out.Retries = v.GetValue()
		}
	}
	return nil
}

// decodeFilters looks at upstream network filters. The original's peer metadata
// exchange needs its own ALPN, which is not offered: without it the filter does
// nothing in the original either.
func (cfg *config) decodeFilters(c *clusterv3.Cluster) error {
	for i, f := range c.GetFilters() {
		if f.GetName() != "istio.metadata_exchange" {
			return fmt.Errorf("filters[%d]: %s is not supported", i, f.GetName())
		}
	}
	return nil
}

// seconds is a duration with a default.
func seconds(d *durationpb.Duration, otherwise time.Duration) time.Duration {
	if d == nil {
		return otherwise
	}
	return d.AsDuration()
}
