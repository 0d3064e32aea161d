package proxy

import (
	"github.com/lateen-mesh/lateen/proxy/cluster"
	"github.com/lateen-mesh/lateen/proxy/endpoint"
	"github.com/lateen-mesh/lateen/proxy/filter/alpn"
	"github.com/lateen-mesh/lateen/proxy/filter/buffer"
	"github.com/lateen-mesh/lateen/proxy/filter/cors"
	"github.com/lateen-mesh/lateen/proxy/filter/dynamicforwardproxy"
	"github.com/lateen-mesh/lateen/proxy/filter/extauthz"
	"github.com/lateen-mesh/lateen/proxy/filter/fault"
	"github.com/lateen-mesh/lateen/proxy/filter/grpcstats"
	"github.com/lateen-mesh/lateen/proxy/filter/grpcweb"
	"github.com/lateen-mesh/lateen/proxy/filter/headermutation"
	"github.com/lateen-mesh/lateen/proxy/filter/healthcheck"
	"github.com/lateen-mesh/lateen/proxy/filter/istiostats"
	"github.com/lateen-mesh/lateen/proxy/filter/jwtauthn"
	"github.com/lateen-mesh/lateen/proxy/filter/ondemand"
	"github.com/lateen-mesh/lateen/proxy/filter/peermetadata"
	httprbac "github.com/lateen-mesh/lateen/proxy/filter/rbac"
	"github.com/lateen-mesh/lateen/proxy/filter/router"
	"github.com/lateen-mesh/lateen/proxy/filter/setmetadata"
	"github.com/lateen-mesh/lateen/proxy/hcm"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/network/connectionlimit"
	"github.com/lateen-mesh/lateen/proxy/network/directresponse"
	"github.com/lateen-mesh/lateen/proxy/network/echo"
	"github.com/lateen-mesh/lateen/proxy/network/localratelimit"
	"github.com/lateen-mesh/lateen/proxy/network/metadataexchange"
	networkrbac "github.com/lateen-mesh/lateen/proxy/network/rbac"
	"github.com/lateen-mesh/lateen/proxy/network/setfilterstate"
	"github.com/lateen-mesh/lateen/proxy/network/snicluster"
	"github.com/lateen-mesh/lateen/proxy/network/snidynamicforwardproxy"
	"github.com/lateen-mesh/lateen/proxy/network/tcpproxy"
)

// networkFilters lists the L4 filters that exist, in the order of Envoy's documents.
func (s *server) networkFilters() []network.Factory {
	return []network.Factory{
		hcm.Factory(hcm.Deps{
			Filters: s.httpFilters(), XDS: s.ads, Source: s.source, Stats: s.stats, AccessLog: s.logEnv(),
			HasCluster: func(name string) bool { return s.clusters.Get(name) != nil }, AnyCluster: s.clusters.Has,
			Service: s.identity().GetCluster(), Node: s.identity().GetId(), LocalAddress: hcm.LocalAddress(),
			Tracing: s.boot.tracer, Runtime: s.boot.runtime, Known: s.model.tables(),
		}),
		snidynamicforwardproxy.Factory(snidynamicforwardproxy.Deps{Names: s.clusters.Names}),
		metadataexchange.Factory(s.identity()),
		istiostats.NetworkFactory(s.meshStats()),
		setfilterstate.Factory(),
		extauthz.NetworkFactory(s.authz(), s.stats),
		snicluster.Factory(),
		connectionlimit.Factory(s.stats, s.boot.runtime),
		localratelimit.Factory(s.stats, s.boot.runtime),
		networkrbac.Factory(s.stats),
		directresponse.Factory(),
		echo.Factory(),
		tcpproxy.Factory(tcpproxy.Env{Cluster: s.tcpCluster, AccessLog: loggersFor[tcpproxy.Logger](s), Stats: s.stats}),
	}
}

// httpFilters lists the HTTP filters that exist.
func (s *server) httpFilters() []http.Factory {
	return []http.Factory{
		alpn.Factory(s.clusters.Speaks),
		buffer.Factory(),
		cors.Factory(),
		dynamicforwardproxy.Factory(dynamicforwardproxy.Deps{Reach: s.reach(), CheckCache: cluster.CheckCache}),
		extauthz.Factory(s.authz()),
		fault.Factory(),
		grpcstats.Factory(),
		grpcweb.Factory(),
		headermutation.Factory(),
		healthcheck.Factory(healthcheck.Deps{Failing: s.failing.Load, Members: s.members, Service: s.identity().GetCluster()}),
		istiostats.Factory(s.meshStats()),
		jwtauthn.Factory(jwtauthn.Deps{Calls: s.calls(), Log: s.logs.Scope("jwt")}),
		ondemand.Factory(),
		peermetadata.Factory(peermetadata.Deps{ID: s.identity().GetId(), Metadata: s.identity().GetMetadata(), External: s.clusters.External}),
		httprbac.Factory(),
		setmetadata.Factory(),
		router.Factory(router.Deps{Cluster: s.httpCluster, LocalAddress: hcm.LocalAddress()}),
	}
}

// meshStats is what the metrics of the mesh are made of.
func (s *server) meshStats() istiostats.Deps {
	n := s.identity()
	return istiostats.Deps{ID: n.GetId(), ServiceCluster: n.GetCluster(), Metadata: n.GetMetadata(), Service: s.clusters.Service, Stats: s.stats, Log: s.logs.Scope("stats")}
}

// members counts a cluster's endpoints, and those that are healthy or degraded.
func (s *server) members(name string) (all, able int, ok bool) {
	c := s.clusters.Get(name)
	if c == nil {
		return 0, 0, false
	}
	for _, e := range c.Endpoints() {
		all++
		if st := e.State(); st == endpoint.Healthy || st == endpoint.Worse {
			able++
		}
	}
	return all, able, true
}

// httpCluster is the cluster of a name, nil and not an interface of a nil pointer where there
// is none; that of a Model notes what is picked.
func (s *server) httpCluster(name string) router.Cluster {
	if s.model != nil {
		if c := s.model.watch(name); c != nil {
			return c
		}
		return nil
	}
	if c := s.clusters.Soon(name); c != nil {
		return c
	}
	return nil
}

// reach makes a cluster ready for a host; a Model takes every host for one that is there.
func (s *server) reach() func(cluster, host string, done <-chan struct{}) error {
	if s.model != nil {
		return func(string, string, <-chan struct{}) error { return nil }
	}
	return s.clusters.Reach
}

// tcpCluster is httpCluster for what is not HTTP, which asks less of a cluster.
func (s *server) tcpCluster(name string) tcpproxy.Cluster { return s.httpCluster(name) }

// An extension is one name of node.extensions, by which a control plane sees what it
// may ask for.
type extension struct{ category, name, typeURL string }

// extensions lists what is neither a network nor an HTTP filter.
var extensions = []extension{
	{"envoy.filters.listener", "envoy.filters.listener.original_dst", "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"},
	{"envoy.filters.listener", "envoy.filters.listener.proxy_protocol", "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol"},
	{"envoy.filters.listener", "envoy.filters.listener.tls_inspector", "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector"},
	{"envoy.filters.listener", "envoy.filters.listener.http_inspector", "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"},
	{"envoy.transport_sockets.downstream", "envoy.transport_sockets.tls", "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"},
	{"envoy.transport_sockets.downstream", "envoy.transport_sockets.raw_buffer", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
	{"envoy.transport_sockets.upstream", "envoy.transport_sockets.tls", "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"},
	{"envoy.transport_sockets.upstream", "envoy.transport_sockets.upstream_proxy_protocol", "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"},
	{"envoy.transport_sockets.upstream", "envoy.transport_sockets.raw_buffer", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
	{"envoy.access_loggers", "envoy.access_loggers.file", "envoy.extensions.access_loggers.file.v3.FileAccessLog"},
	{"envoy.http.original_ip_detection", "envoy.http.original_ip_detection.xff", "envoy.extensions.http.original_ip_detection.xff.v3.XffConfig"},
	{"envoy.http.original_ip_detection", "envoy.http.original_ip_detection.custom_header", "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig"},
	{"envoy.http.early_header_mutation", "envoy.http.early_header_mutation.header_mutation", "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"},
	{"envoy.tracers", "envoy.tracers.zipkin", "envoy.config.trace.v3.ZipkinConfig"},
	{"envoy.tracers", "envoy.tracers.opentelemetry", "envoy.config.trace.v3.OpenTelemetryConfig"},
	{"envoy.upstream_options", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"},
	{"envoy.clusters", "envoy.cluster.static", ""},
	{"envoy.clusters", "envoy.cluster.strict_dns", ""},
	{"envoy.clusters", "envoy.cluster.logical_dns", ""},
	{"envoy.clusters", "envoy.cluster.eds", ""},
	{"envoy.clusters", "envoy.cluster.original_dst", ""},
	{"envoy.clusters", "envoy.clusters.aggregate", "envoy.extensions.clusters.aggregate.v3.ClusterConfig"},
	{"envoy.clusters", "envoy.clusters.dynamic_forward_proxy", "envoy.extensions.clusters.dynamic_forward_proxy.v3.ClusterConfig"},
	{"envoy.clusters", "envoy.clusters.dns", "envoy.extensions.clusters.dns.v3.DnsCluster"},
	{"envoy.load_balancing_policies", "envoy.load_balancing_policies.round_robin", "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin"},
	{"envoy.load_balancing_policies", "envoy.load_balancing_policies.least_request", "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest"},
	{"envoy.load_balancing_policies", "envoy.load_balancing_policies.random", "envoy.extensions.load_balancing_policies.random.v3.Random"},
	{"envoy.load_balancing_policies", "envoy.load_balancing_policies.ring_hash", "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash"},
	{"envoy.load_balancing_policies", "envoy.load_balancing_policies.maglev", "envoy.extensions.load_balancing_policies.maglev.v3.Maglev"},
	{"envoy.load_balancing_policies", "envoy.load_balancing_policies.subset", "envoy.extensions.load_balancing_policies.subset.v3.Subset"},
	{"envoy.load_balancing_policies", "envoy.load_balancing_policies.override_host", "envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost"},
	{"envoy.load_balancing_policies", "envoy.load_balancing_policies.cluster_provided", "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided"},
	{"envoy.retry_host_predicates", "envoy.retry_host_predicates.previous_hosts", "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
	{"envoy.retry_host_predicates", "envoy.retry_host_predicates.omit_canary_hosts", "envoy.extensions.retry.host.omit_canary_hosts.v3.OmitCanaryHostsPredicate"},
	{"envoy.retry_host_predicates", "envoy.retry_host_predicates.omit_host_metadata", "envoy.extensions.retry.host.omit_host_metadata.v3.OmitHostMetadataConfig"},
	{"envoy.path.match", "envoy.path.match.uri_template.uri_template_matcher", "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig"},
	{"envoy.path.rewrite", "envoy.path.rewrite.uri_template.uri_template_rewriter", "envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig"},
	{"envoy.internal_redirect_predicates", "envoy.internal_redirect_predicates.allow_listed_routes", "envoy.extensions.internal_redirect.allow_listed_routes.v3.AllowListedRoutesConfig"},
	{"envoy.internal_redirect_predicates", "envoy.internal_redirect_predicates.previous_routes", "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig"},
	{"envoy.internal_redirect_predicates", "envoy.internal_redirect_predicates.safe_cross_scheme", "envoy.extensions.internal_redirect.safe_cross_scheme.v3.SafeCrossSchemeConfig"},
	{"envoy.retry_priorities", "envoy.retry_priorities.previous_priorities", "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"},
}
