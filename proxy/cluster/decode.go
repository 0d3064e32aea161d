package cluster

import (
	"errors"
	"fmt"
	"time"

	udpav1 "github.com/cncf/xds/go/udpa/type/v1"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lateen-mesh/lateen/proxy/transport"
	"github.com/lateen-mesh/lateen/proxy/upstream"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// config is a Cluster resource, compiled. It is immutable and holds no proto.
type config struct {
	name, statName string
	kind           kind
	connectTimeout time.Duration
	balancing      balancing
	ignoreNew      bool // ignore_new_hosts_until_first_hc
	closeOnChange  bool // close_connections_on_host_set_change
	thresholds     [2]upstream.Thresholds
	perHost        [2]uint32 // max_connections of one endpoint, 0: no limit
	http           httpOptions
	dialer         transport.Dialer
	socket         *corev3.TransportSocket
	matches        []*clusterv3.Cluster_TransportSocketMatch
	outlier        *outlierConfig // nil: off
	health         healthConfig
	dns            dnsConfig
	eds            *edsConfig
	original       originalConfig
	members        []string      // of an aggregate
	forward        forwardConfig // of a dynamic forward proxy
	assignment     *assignment   // of the resource itself, nil for EDS
	external       bool          // not of the mesh, as its metadata say
	meshService    meshService   // what they say it serves
	exchange       string        // ALPN protocol of TCP connections that begin with what peers tell each other, "" for none
}

// A kind says where endpoints come from.
type kind uint8

const (
	static kind = iota
	strictDNS
	logicalDNS
	eds
	originalDst
	aggregate
	dynamicForward
)

type edsConfig struct {
	service string // what is asked for
	named   string // service_name, "" for none
	source  *corev3.ConfigSource
}

// fields of a Cluster that are understood. Some change nothing here: buffers are
// bounded on their own, jitter and merge windows have no counterpart.
var fields = []protoreflect.Name{
	"name", "alt_stat_name", "type", "cluster_type", "eds_cluster_config", "connect_timeout", "per_connection_buffer_limit_bytes",
	"lb_policy", "load_assignment", "circuit_breakers", "max_requests_per_connection", "common_http_protocol_options",
	"upstream_http_protocol_options", "http_protocol_options", "http2_protocol_options", "typed_extension_protocol_options",
	"dns_refresh_rate", "dns_jitter", "dns_failure_refresh_rate", "respect_dns_ttl", "dns_lookup_family", "dns_resolvers",
	"use_tcp_for_dns_lookups", "dns_resolution_config", "typed_dns_resolver_config", "wait_for_warm_on_init", "outlier_detection",
	"cleanup_interval", "upstream_bind_config", "common_lb_config", "transport_socket", "transport_socket_matches", "metadata",
	"upstream_connection_options", "ignore_health_on_host_removal", "filters", "load_balancing_policy", "protocol_selection",
	"ring_hash_lb_config", "maglev_lb_config", "original_dst_lb_config", "least_request_lb_config", "round_robin_lb_config",
	"track_cluster_stats", "health_checks", "close_connections_on_host_health_failure", "lb_subset_config",
}

// at puts a field name in front of an error.
func at(field string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s.%w", field, err)
}

// decode compiles a Cluster; shared is the bind config of those without one.
func decode(c *clusterv3.Cluster, shared *corev3.BindConfig) (*config, error) {
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
	cfg.meshService = serviceOf(c)
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
		cfg.decodeDNS, cfg.decodeOutlier, cfg.decodeHealth, cfg.decodeFilters, cfg.decodeEndpoints,
	} {
		if err := step(c); err != nil {
			return nil, err
		}
	}
	if err := c.Validate(); err != nil { // the constraints that the schema itself states
		return nil, err
	}
	return cfg, nil
}

func (cfg *config) decodeKind(c *clusterv3.Cluster) error {
	if t := c.GetClusterType(); t != nil {
		return at("cluster_type", cfg.decodeType(c, t))
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

// decodeType reads a type that is an extension.
func (cfg *config) decodeType(c *clusterv3.Cluster, t *clusterv3.Cluster_CustomClusterType) error {
	switch t.GetName() {
	case "envoy.clusters.aggregate":
		return cfg.decodeAggregate(t.GetTypedConfig())
	case "envoy.clusters.dynamic_forward_proxy":
		return cfg.decodeForward(c, t.GetTypedConfig())
	case "envoy.clusters.dns", "envoy.cluster.dns":
		return cfg.decodeDNSType(t.GetTypedConfig())
	}
	return fmt.Errorf("%s is not supported", t.GetName())
}

func (cfg *config) decodeEDS(e *clusterv3.Cluster_EdsClusterConfig) error {
	if e.GetEdsConfig() == nil {
		return errors.New("eds_cluster_config: cannot create an EDS cluster without an EDS config")
	}
	cfg.eds = &edsConfig{service: e.GetServiceName(), named: e.GetServiceName(), source: e.GetEdsConfig()}
	if cfg.eds.service == "" {
		cfg.eds.service = cfg.name
	}
	return nil
}

// decodeFilters looks at upstream network filters.
func (cfg *config) decodeFilters(c *clusterv3.Cluster) error {
	for i, f := range c.GetFilters() {
		if f.GetName() != "istio.metadata_exchange" {
			return fmt.Errorf("filters[%d]: %s is not supported", i, f.GetName())
		}
		var s udpav1.TypedStruct
		if err := f.GetTypedConfig().UnmarshalTo(&s); err != nil {
			return fmt.Errorf("filters[%d]: %w", i, err)
		}
		cfg.exchange = s.GetValue().GetFields()["protocol"].GetStringValue()
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
