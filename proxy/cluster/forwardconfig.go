package cluster

import (
	"errors"
	"net/netip"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	forwardv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	cachev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/dns"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// forwardConfig is what a dynamic forward proxy is configured with.
type forwardConfig struct {
	cache   string // name of the DNS cache
	spec    string // all of its settings, for comparing
	options dns.CacheOptions
	own     *dns.Options // resolver of the cache, nil: the proxy's
	first   []string     // names that are resolved at once
	sub     *clusterv3.Cluster
	maxSubs int
	ttl     time.Duration
}

// decodeForward reads the type of a dynamic forward proxy.
func (cfg *config) decodeForward(c *clusterv3.Cluster, typed *anypb.Any) error {
	cfg.kind = dynamicForward
	var m forwardv3.ClusterConfig
	if err := unpack(typed, &m, "dns_cache_config", "sub_clusters_config", "allow_insecure_cluster_options"); err != nil {
		return err
	}
	if s := m.GetSubClustersConfig(); s != nil {
		return at("sub_clusters_config", cfg.decodeSubClusters(c, s))
	}
	if m.GetDnsCacheConfig() == nil {
		return errors.New("dns_cache_config: value is required")
	}
	f, err := decodeCache(m.GetDnsCacheConfig())
	cfg.forward = f
	return at("dns_cache_config", err)
}

func (cfg *config) decodeSubClusters(c *clusterv3.Cluster, s *forwardv3.SubClustersConfig) error {
	if err := xds.Only(s, "lb_policy", "max_sub_clusters", "sub_cluster_ttl"); err != nil {
		return err
	}
	sub := proto.Clone(c).(*clusterv3.Cluster)
	sub.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STRICT_DNS}
	sub.LbPolicy, sub.LoadBalancingPolicy = s.GetLbPolicy(), nil
	cfg.forward = forwardConfig{sub: sub, maxSubs: int(number(s.GetMaxSubClusters(), 1024)), ttl: seconds(s.GetSubClusterTtl(), 5*time.Minute)}
	return nil
}

// subProto is the resource of the cluster of one host.
func (f *forwardConfig) subProto(name, host string, port uint16) *clusterv3.Cluster {
	c := proto.Clone(f.sub).(*clusterv3.Cluster)
	c.Name, c.AltStatName = name, ""
	address := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)}}}}
	c.LoadAssignment = &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
		LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}}}}}}}
	return c
}

// Names returns how names are looked up, until done, in the DNS cache that has these
// settings; clusters of the same settings share it. The error names a field.
func (cs *Clusters) Names(c *cachev3.DnsCacheConfig) (func(name string, done <-chan struct{}) error, error) {
	f, err := decodeCache(c)
	if err != nil {
		return nil, err
	}
	names := cs.cache(&f)
	return func(name string, done <-chan struct{}) error {
		_, err := names.Resolve(done, name)
		return err
	}, nil
}

// CheckCache reports what of a DNS cache is not supported; the error names the field.
func CheckCache(c *cachev3.DnsCacheConfig) error {
	_, err := decodeCache(c)
	return err
}

func decodeCache(c *cachev3.DnsCacheConfig) (f forwardConfig, err error) {
	if err := xds.Only(c, "name", "dns_lookup_family", "dns_refresh_rate", "dns_min_refresh_rate", "host_ttl", "max_hosts",
		"disable_dns_refresh_on_failure", "dns_failure_refresh_rate", "dns_cache_circuit_breaker", "use_tcp_for_dns_lookups",
		"dns_resolution_config", "typed_dns_resolver_config", "preresolve_hostnames", "dns_query_timeout"); err != nil {
		return f, err
	}
	if c.GetName() == "" {
		return f, errors.New("name: value length must be at least 1 characters")
	}
	f = forwardConfig{cache: c.GetName(), spec: protojson.MarshalOptions{}.Format(c), ttl: seconds(c.GetHostTtl(), 5*time.Minute)}
	family, err := lookupFamily(c.GetDnsLookupFamily())
	if err != nil {
		return f, err
	}
	f.options = dns.CacheOptions{
		Family: family, Refresh: seconds(c.GetDnsRefreshRate(), time.Minute), MinRefresh: seconds(c.GetDnsMinRefreshRate(), 5*time.Second),
		TTL: f.ttl, MaxHosts: int(number(c.GetMaxHosts(), 1024)), ForgetFailures: c.GetDisableDnsRefreshOnFailure(),
		FailBase: c.GetDnsFailureRefreshRate().GetBaseInterval().AsDuration(), FailMax: c.GetDnsFailureRefreshRate().GetMaxInterval().AsDuration(),
		MaxPending: int(number(c.GetDnsCacheCircuitBreaker().GetMaxPendingRequests(), 1024)), Timeout: seconds(c.GetDnsQueryTimeout(), 5*time.Second),
	}
	if f.options.FailMax == 0 {
		f.options.FailMax = 10 * f.options.FailBase
	}
	for _, a := range c.GetPreresolveHostnames() {
		f.first = append(f.first, strings.ToLower(a.GetAddress()))
	}
	f.own, err = cacheResolver(c)
	return f, err
}

func cacheResolver(c *cachev3.DnsCacheConfig) (*dns.Options, error) {
	switch {
	case c.GetTypedDnsResolverConfig() != nil:
		o, err := DecodeResolver(c.GetTypedDnsResolverConfig())
		return special(o), at("typed_dns_resolver_config", err)
	case c.GetDnsResolutionConfig() != nil:
		r := c.GetDnsResolutionConfig()
		o, err := resolverOptions(r.GetResolvers(), r.GetDnsResolverOptions())
		return special(o), at("dns_resolution_config", err)
	case c.GetUseTcpForDnsLookups():
		return &dns.Options{TCP: true}, nil
	}
	return nil, nil
}

// cache gives a cluster the DNS cache that it names, which clusters share whose settings
// of it are the same.
func (cs *Clusters) cache(f *forwardConfig) *sharedCache {
	resolver := cs.resolver(f.own)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	key := f.cache + "\n" + f.spec
	c := cs.caches[key]
	if c == nil {
		o := f.options
		o.Resolver = resolver
		scope := cs.store.Scope("dns_cache." + f.cache + ".")
		o.Count = func(event string) { scope.Counter(event).Inc() }
		c = &sharedCache{Cache: dns.NewCache(o), key: key}
		names := c.Cache
		scope.Computed("num_hosts", func() int64 { return int64(names.Len()) })
		cs.caches[key] = c
	}
	c.uses++
	for _, name := range f.first {
		go func() { _, _ = c.Resolve(cs.ctx.Done(), name) }() // who asks for it is told
	}
	return c
}

// dropCache gives a cache back; the last one closes it.
func (cs *Clusters) dropCache(c *sharedCache) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c.uses--; c.uses == 0 {
		c.Close()
		delete(cs.caches, c.key)
	}
}

// lowered is a host name in lower case, an address as it is.
func lowered(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return host
	}
	return strings.ToLower(host)
}
