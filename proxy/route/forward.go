package route

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lateen-mesh/lateen/proxy/xds"
)

// defaultTimeout is Envoy's for a route that says nothing.
const defaultTimeout = 15 * time.Second

func (c *compiler) forward(v *routev3.VirtualHost, r *routev3.Route, a *routev3.RouteAction) (*Forward, error) {
	// What early_data_policy allows or forbids comes with HTTP/3 alone.
	err := xds.Only(a, "cluster", "cluster_header", "weighted_clusters", "cluster_not_found_response_code", "metadata_match",
		"prefix_rewrite", "regex_rewrite", "path_rewrite_policy", "path_rewrite", "host_rewrite_literal", "auto_host_rewrite", "host_rewrite_header",
		"host_rewrite_path_regex", "host_rewrite", "append_x_forwarded_host", "timeout", "idle_timeout", "early_data_policy", "retry_policy",
		"request_mirror_policies", "priority", "hash_policy", "cors", "max_grpc_timeout", "grpc_timeout_offset", "max_stream_duration",
		"upgrade_configs", "internal_redirect_policy", "internal_redirect_action", "max_internal_redirects", "hedge_policy")
	if err != nil {
		return nil, err
	}
	f := &Forward{
		PrefixRewrite:        a.GetPrefixRewrite(),
		HostRewrite:          a.GetHostRewriteLiteral(),
		AutoHostRewrite:      a.GetAutoHostRewrite().GetValue(),
		HostRewriteHeader:    []byte(strings.ToLower(a.GetHostRewriteHeader())),
		AppendXForwardedHost: a.GetAppendXForwardedHost(),
		ClusterNotFoundCode:  notFoundCode(a.GetClusterNotFoundResponseCode()),
		MaxRequestBytes:      bufferLimit(r, v),
	}
	if a.GetPriority() == corev3.RoutingPriority_HIGH {
		f.Priority = 1
	}
	for _, p := range []*routev3.HedgePolicy{a.GetHedgePolicy(), v.GetHedgePolicy()} {
		if err := unhedged(p); err != nil {
			return nil, err
		}
	}
	for _, set := range []func(*Forward, *routev3.RouteAction) error{c.setClusters, setTimeouts, setPathRewrite, setHostRewrite, setHash, setUpgrades, setRedirects} {
		if err := set(f, a); err != nil {
			return nil, err
		}
	}
	if f.Retry, err = inheritedRetry(a, v); err != nil {
		return nil, err
	}
	f.Mirrors, err = c.mirrors(a.GetRequestMirrorPolicies(), v.GetRequestMirrorPolicies(), c.config.GetRequestMirrorPolicies())
	return f, err
}

// unhedged accepts a policy that sends no request twice at a time.
func unhedged(p *routev3.HedgePolicy) error {
	if p.GetHedgeOnPerTryTimeout() {
		return errors.New("hedge_policy.hedge_on_per_try_timeout: not supported")
	}
	return nil
}

func notFoundCode(code routev3.RouteAction_ClusterNotFoundResponseCode) int {
	switch code {
	case routev3.RouteAction_NOT_FOUND:
		return 404
	case routev3.RouteAction_INTERNAL_SERVER_ERROR:
		return 500
	}
	return 503
}

func (c *compiler) setClusters(f *Forward, a *routev3.RouteAction) error {
	f.Subset = subset(a.GetMetadataMatch(), nil)
	switch s := a.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		f.Cluster = s.Cluster
		return c.known("cluster", s.Cluster)
	case *routev3.RouteAction_ClusterHeader:
		f.ClusterHeader = []byte(strings.ToLower(s.ClusterHeader))
		return nil
	case *routev3.RouteAction_WeightedClusters:
		return c.setWeights(f, s.WeightedClusters)
	}
	return errors.New("cluster_specifier: not set")
}

// known refuses a cluster that is not there where that is to be checked; what says what it
// would be for.
func (c *compiler) known(what, cluster string) error {
	check := c.env.Static
	if v := c.config.GetValidateClusters(); v != nil {
		check = v.GetValue()
	}
	if check && c.env.HasCluster != nil && !c.env.HasCluster(cluster) {
		return fmt.Errorf("unknown %s '%s'", what, cluster)
	}
	return nil
}

func (c *compiler) setWeights(f *Forward, w *routev3.WeightedCluster) error {
	if err := xds.Only(w, "clusters", "total_weight", "runtime_key_prefix", "header_name", "use_hash_policy"); err != nil {
		return fmt.Errorf("weighted_clusters: %w", err)
	}
	f.RandomHeader, f.HashWeights = strings.ToLower(w.GetHeaderName()), w.GetUseHashPolicy().GetValue()
	total := uint64(0)
	for i, cluster := range w.GetClusters() {
		one, err := c.weighted(cluster)
		if err != nil {
			return fmt.Errorf("weighted_clusters.clusters[%d]: %w", i, err)
		}
		one.Subset = subset(cluster.GetMetadataMatch(), f.Subset)
		if w.GetRuntimeKeyPrefix() != "" {
			one.key, f.weights = w.GetRuntimeKeyPrefix()+"."+one.Name, c.env.HTTP.Runtime
		}
		total += uint64(one.Weight)
		f.Clusters = append(f.Clusters, one)
	}
	if total == 0 || total > math.MaxUint32 {
		return fmt.Errorf("weighted_clusters: weights must sum up to 1–%d, got %d", uint32(math.MaxUint32), total)
	}
	f.TotalWeight = uint32(total)
	return nil
}

func (c *compiler) weighted(w *routev3.WeightedCluster_ClusterWeight) (WeightedCluster, error) {
	err := xds.Only(w, "name", "cluster_header", "weight", "metadata_match", "request_headers_to_add", "request_headers_to_remove",
		"response_headers_to_add", "response_headers_to_remove", "typed_per_filter_config", "host_rewrite_literal")
	if err != nil {
		return WeightedCluster{}, err
	}
	if (w.GetName() == "") == (w.GetClusterHeader() == "") {
		return WeightedCluster{}, errors.New("name and cluster_header: one must be set")
	}
	out := WeightedCluster{Name: w.GetName(), Header: strings.ToLower(w.GetClusterHeader()), Weight: w.GetWeight().GetValue(), HostRewrite: w.GetHostRewriteLiteral()}
	if out.Name != "" {
		if err = c.known("weighted cluster", out.Name); err != nil {
			return out, err
		}
	}
	if out.Edits, err = newEdits(w); err != nil {
		return out, err
	}
	out.PerFilter, err = c.perFilter(w.GetTypedPerFilterConfig())
	return out, err
}

// Pick chooses among the weighted clusters by a random number; nil when there are none.
func (f *Forward) Pick(random uint64) *WeightedCluster {
	if len(f.Clusters) == 0 {
		return nil
	}
	if f.weights != nil {
		return f.pickByKey(random)
	}
	n := uint32(random % uint64(f.TotalWeight))
	for i := range f.Clusters {
		if n < f.Clusters[i].Weight {
			return &f.Clusters[i]
		}
		n -= f.Clusters[i].Weight
	}
	return nil
}

// pickByKey is Pick where the runtime may have weights.
func (f *Forward) pickByKey(random uint64) *WeightedCluster {
	weigh := func(w *WeightedCluster) uint64 { return min(f.weights.Whole(w.key, uint64(w.Weight)), math.MaxUint32) }
	total := uint64(0)
	for i := range f.Clusters {
		total += weigh(&f.Clusters[i])
	}
	if total == 0 {
		return nil
	}
	n := random % total
	for i := range f.Clusters {
		weight := weigh(&f.Clusters[i])
		if n < weight {
			return &f.Clusters[i]
		}
		n -= weight
	}
	return nil // a weight has changed meanwhile
}

func setTimeouts(f *Forward, a *routev3.RouteAction) (err error) {
	if f.Timeout, err = duration("timeout", a.GetTimeout(), defaultTimeout); err != nil {
		return err
	}
	if f.IdleTimeout, err = duration("idle_timeout", a.GetIdleTimeout(), -1); err != nil {
		return err
	}
	if f.Duration, err = streamDuration(a.GetMaxStreamDuration()); err != nil {
		return fmt.Errorf("max_stream_duration.%w", err)
	}
	if f.GRPCTimeoutOffset, err = duration("grpc_timeout_offset", a.GetGrpcTimeoutOffset(), 0); err != nil {
		return err
	}
	f.MaxGRPCTimeoutSet = a.GetMaxGrpcTimeout() != nil
	f.MaxGRPCTimeout, err = duration("max_grpc_timeout", a.GetMaxGrpcTimeout(), 0)
	return err
}

func streamDuration(m *routev3.RouteAction_MaxStreamDuration) (d StreamDuration, err error) {
	d.MaxSet, d.GRPCMaxSet = m.GetMaxStreamDuration() != nil, m.GetGrpcTimeoutHeaderMax() != nil
	if d.Max, err = duration("max_stream_duration", m.GetMaxStreamDuration(), 0); err != nil {
		return d, err
	}
	if d.GRPCMax, err = duration("grpc_timeout_header_max", m.GetGrpcTimeoutHeaderMax(), 0); err != nil {
		return d, err
	}
	d.GRPCOffset, err = duration("grpc_timeout_header_offset", m.GetGrpcTimeoutHeaderOffset(), 0)
	return d, err
}

// duration is d, or otherwise when d is not set.
func duration(field string, d *durationpb.Duration, otherwise time.Duration) (time.Duration, error) {
	if d == nil {
		return otherwise, nil
	}
	if err := d.CheckValid(); err != nil {
		return 0, fmt.Errorf("%s: %w", field, err)
	}
	if d.AsDuration() < 0 {
		return 0, fmt.Errorf("%s: must not be negative, got %s", field, d.AsDuration())
	}
	return d.AsDuration(), nil
}

func setUpgrades(f *Forward, a *routev3.RouteAction) error {
	for i, u := range a.GetUpgradeConfigs() {
		if err := xds.Only(u, "upgrade_type", "enabled", "connect_config"); err != nil {
			return fmt.Errorf("upgrade_configs[%d]: %w", i, err)
		}
		name := strings.ToLower(u.GetUpgradeType())
		if _, twice := f.Upgrades[name]; twice {
			return fmt.Errorf("upgrade_configs[%d]: there are two for %q", i, name)
		}
		if f.Upgrades == nil {
			f.Upgrades = map[string]bool{}
		}
		f.Upgrades[name] = u.GetEnabled() == nil || u.GetEnabled().GetValue()
		if u.GetConnectConfig() == nil {
			continue
		}
		if name != "connect" {
			return fmt.Errorf("upgrade_configs[%d].connect_config: not supported for %q", i, u.GetUpgradeType())
		}
		f.Connect = newConnect(u.GetConnectConfig())
	}
	return nil
}

// newConnect takes TLVs of the PROXY protocol for nothing, as Envoy does here.
func newConnect(c *routev3.RouteAction_UpgradeConfig_ConnectConfig) *Connect {
	p := c.GetProxyProtocolConfig()
	return &Connect{AllowPost: c.GetAllowPost(), Proxied: p != nil, ProxiedV2: p.GetVersion() == corev3.ProxyProtocolConfig_V2}
}
