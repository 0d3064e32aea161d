package route

import (
	"errors"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// mirrors compiles the most specific list that is not empty.
func (c *compiler) mirrors(levels ...[]*routev3.RouteAction_RequestMirrorPolicy) ([]Mirror, error) {
	for _, level := range levels {
		if len(level) > 0 {
			return compileAll("request_mirror_policies", level, c.mirror)
		}
	}
	return nil, nil
}

func (c *compiler) mirror(p *routev3.RouteAction_RequestMirrorPolicy) (m Mirror, err error) {
	err = xds.Only(p, "cluster", "cluster_header", "runtime_fraction", "trace_sampled", "disable_shadow_host_suffix_append",
		"request_headers_mutations", "host_rewrite_literal")
	if err != nil {
		return m, err
	}
	if p.GetCluster() != "" && p.GetClusterHeader() != "" {
		return m, errors.New("cluster and cluster_header: only one may be set")
	}
	if p.GetCluster() != "" {
		if err := c.known("shadow cluster", p.GetCluster()); err != nil {
			return m, err
		}
	}
	m = Mirror{Cluster: p.GetCluster(), ClusterHeader: strings.ToLower(p.GetClusterHeader()),
		Share:          c.env.HTTP.Runtime.ShareOf("", match.Fraction{Numerator: 1, Denominator: 1}),
		NoShadowSuffix: p.GetDisableShadowHostSuffixAppend(), HostRewrite: p.GetHostRewriteLiteral(),
		TraceSampled: p.GetTraceSampled() == nil || p.GetTraceSampled().GetValue()}
	if p.GetRuntimeFraction() != nil {
		m.Share = c.env.HTTP.Runtime.Share(p.GetRuntimeFraction())
	}
	m.Mutations, err = NewMutations("request_headers_mutations", p.GetRequestHeadersMutations())
	return m, err
}
