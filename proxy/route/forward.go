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

	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// defaultTimeout is Envoy's for a route that says nothing.
const defaultTimeout = 15 * time.Second

func (c *compiler) forward(v *routev3.VirtualHost, r *routev3.Route, a *routev3.RouteAction) (*Forward, error) {
	// metadata_match, also of weighted clusters, chooses subsets; a cluster that has some is refused.
	err := xds.Only(a, "cluster", "cluster_header", "weighted_clusters", "cluster_not_found_response_code", "metadata_match",
		"prefix_rewrite", "regex_rewrite", "host_rewrite_literal", "auto_host_rewrite", "host_rewrite_header", "append_x_forwarded_host",
		"timeout", "idle_timeout", "retry_policy", "request_mirror_policies", "priority", "hash_policy", "cors", "max_grpc_timeout", "max_stream_duration", "upgrade_configs")
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
	for _, set := range []func(*Forward, *routev3.RouteAction) error{c.setClusters, setTimeouts, setPathRewrite, setHash, setUpgrades} {
		if err := set(f, a); err != nil {
			return nil, err
		}
	}
	if f.Retry, err = inheritedRetry(a, v); err != nil {
		return nil, err
	}
	f.Mirrors, err = mirrors(a.GetRequestMirrorPolicies(), v.GetRequestMirrorPolicies(), c.config.GetRequestMirrorPolicies())
	return f, err
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
	switch s := a.GetClusterSpecifier().(type) {
	case *routev3.RouteAction_Cluster:
		f.Cluster = s.Cluster
		return c.known(s.Cluster)
	case *routev3.RouteAction_ClusterHeader:
		f.ClusterHeader = []byte(strings.ToLower(s.ClusterHeader))
		return nil
	case *routev3.RouteAction_WeightedClusters:
		return c.setWeights(f, s.WeightedClusters)
	}
	return errors.New("cluster_specifier: not set")
}

// known refuses a cluster that is not there when the resource asks for that check.
func (c *compiler) known(cluster string) error {
	if c.config.GetValidateClusters().GetValue() && c.env.HasCluster != nil && !c.env.HasCluster(cluster) {
		return fmt.Errorf("unknown cluster %q", cluster)
	}
	return nil
}

func (c *compiler) setWeights(f *Forward, w *routev3.WeightedCluster) error {
	if err := xds.Only(w, "clusters", "total_weight", "runtime_key_prefix"); err != nil {
		return fmt.Errorf("weighted_clusters: %w", err)
	}
	total := uint64(0)
	for i, cluster := range w.GetClusters() {
		one, err := c.weighted(cluster)
		if err != nil {
			return fmt.Errorf("weighted_clusters.clusters[%d]: %w", i, err)
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
	err := xds.Only(w, "name", "weight", "metadata_match", "request_headers_to_add", "request_headers_to_remove",
		"response_headers_to_add", "response_headers_to_remove", "typed_per_filter_config", "host_rewrite_literal")
	if err != nil {
		return WeightedCluster{}, err
	}
	if w.GetName() == "" {
		return WeightedCluster{}, errors.New("name: must be set")
	}
	out := WeightedCluster{Name: w.GetName(), Weight: w.GetWeight().GetValue(), HostRewrite: w.GetHostRewriteLiteral()}
	if err = c.known(out.Name); err != nil {
		return out, err
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
	n := uint32(random % uint64(f.TotalWeight))
	for i := range f.Clusters {
		if n < f.Clusters[i].Weight {
			return &f.Clusters[i]
		}
		n -= f.Clusters[i].Weight
	}
	return nil
}

func setTimeouts(f *Forward, a *routev3.RouteAction) (err error) {
	if f.Timeout, err = duration("timeout", a.GetTimeout(), defaultTimeout); err != nil {
		return err
	}
	if f.IdleTimeout, err = duration("idle_timeout", a.GetIdleTimeout(), -1); err != nil {
		return err
	}
	if err = unlimited(a.GetMaxStreamDuration()); err != nil {
		return err
	}
	f.MaxGRPCTimeoutSet = a.GetMaxGrpcTimeout() != nil
	f.MaxGRPCTimeout, err = duration("max_grpc_timeout", a.GetMaxGrpcTimeout(), 0)
	return err
}

// unlimited accepts the form of max_stream_duration that the original puts on every
// route: no limit of our own, and a gRPC client's deadline as it is. Of that the
// upstream is told by grpc-timeout and keeps it.
func unlimited(m *routev3.RouteAction_MaxStreamDuration) error {
	if m.GetMaxStreamDuration().AsDuration() != 0 || m.GetGrpcTimeoutHeaderMax().AsDuration() != 0 || m.GetGrpcTimeoutHeaderOffset().AsDuration() != 0 {
		return errors.New("max_stream_duration: limits are not supported")
	}
	return nil
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

func setPathRewrite(f *Forward, a *routev3.RouteAction) error {
	if a.GetRegexRewrite() == nil {
		return nil
	}
	if f.PrefixRewrite != "" {
		return errors.New("prefix_rewrite and regex_rewrite: only one may be set")
	}
	re, text, err := match.NewRewrite(a.GetRegexRewrite())
	if err != nil {
		return fmt.Errorf("regex_rewrite: %w", err)
	}
	f.RegexRewrite = &RegexRewrite{re, text}
	return nil
}

func setUpgrades(f *Forward, a *routev3.RouteAction) error {
	for i, u := range a.GetUpgradeConfigs() {
		if err := xds.Only(u, "upgrade_type", "enabled"); err != nil {
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
	}
	return nil
}

func setHash(f *Forward, a *routev3.RouteAction) error {
	for i, p := range a.GetHashPolicy() {
		h, err := newHash(p)
		if err != nil {
			return fmt.Errorf("hash_policy[%d]: %w", i, err)
		}
		f.HashPolicy = append(f.HashPolicy, h)
	}
	return nil
}

func newHash(p *routev3.RouteAction_HashPolicy) (HashPolicy, error) {
	out := HashPolicy{Terminal: p.GetTerminal()}
	if err := xds.Only(p, "header", "cookie", "connection_properties", "query_parameter", "terminal"); err != nil {
		return out, err
	}
	switch s := p.GetPolicySpecifier().(type) {
	case *routev3.RouteAction_HashPolicy_Header_:
		out.Header = strings.ToLower(s.Header.GetHeaderName())
		return out, xds.Only(s.Header, "header_name")
	case *routev3.RouteAction_HashPolicy_Cookie_:
		out.Cookie, out.CookiePath = s.Cookie.GetName(), s.Cookie.GetPath()
		out.CookieTTL, out.CookieTTLSet = s.Cookie.GetTtl().AsDuration(), s.Cookie.GetTtl() != nil
		for _, a := range s.Cookie.GetAttributes() {
			out.CookieAttributes += "; " + a.GetName()
			if a.GetValue() != "" {
				out.CookieAttributes += "=" + a.GetValue()
			}
		}
		return out, xds.Only(s.Cookie, "name", "ttl", "path", "attributes")
	case *routev3.RouteAction_HashPolicy_ConnectionProperties_:
		out.SourceIP = s.ConnectionProperties.GetSourceIp()
	case *routev3.RouteAction_HashPolicy_QueryParameter_:
		out.Query = s.QueryParameter.GetName()
	default:
		return out, errors.New("policy_specifier: not set")
	}
	return out, nil
}

// mirrors compiles the most specific list that is not empty.
func mirrors(levels ...[]*routev3.RouteAction_RequestMirrorPolicy) ([]Mirror, error) {
	for _, level := range levels {
		if len(level) == 0 {
			continue
		}
		var out []Mirror
		for i, p := range level {
			if err := xds.Only(p, "cluster", "runtime_fraction", "trace_sampled", "disable_shadow_host_suffix_append"); err != nil {
				return nil, fmt.Errorf("request_mirror_policies[%d]: %w", i, err)
			}
			m := Mirror{Cluster: p.GetCluster(), Numerator: 1_000_000, NoShadowSuffix: p.GetDisableShadowHostSuffixAppend(),
				TraceSampled: p.GetTraceSampled() == nil || p.GetTraceSampled().GetValue()}
			if rf := p.GetRuntimeFraction(); rf != nil {
				fraction := match.NewFraction(rf.GetDefaultValue())
				m.Numerator = uint32(min(uint64(fraction.Numerator)*(1_000_000/uint64(fraction.Denominator)), 1_000_000))
			}
			out = append(out, m)
		}
		return out, nil
	}
	return nil, nil
}
