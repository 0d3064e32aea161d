package proxy

import (
	"github.com/lateen-mesh/lateen/proxy/accesslog"
	"github.com/lateen-mesh/lateen/proxy/filter/alpn"
	"github.com/lateen-mesh/lateen/proxy/filter/cors"
	"github.com/lateen-mesh/lateen/proxy/filter/fault"
	"github.com/lateen-mesh/lateen/proxy/filter/grpcstats"
	"github.com/lateen-mesh/lateen/proxy/filter/peermetadata"
	"github.com/lateen-mesh/lateen/proxy/filter/router"
	"github.com/lateen-mesh/lateen/proxy/hcm"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/network/metadataexchange"
	"github.com/lateen-mesh/lateen/proxy/network/tcpproxy"
)

// networkFilters lists the L4 filters that exist, in the order of Envoy's documents.
func (s *server) networkFilters() []network.Factory {
	return []network.Factory{
		hcm.Factory(hcm.Deps{
			Filters: s.httpFilters(), XDS: s.ads, Stats: s.stats, AccessLog: accesslog.Env{Files: s.files},
			HasCluster: func(name string) bool { return s.clusters.Get(name) != nil },
			Service:    s.identity().GetCluster(), Node: s.identity().GetId(), LocalAddress: hcm.LocalAddress(),
			Tracing: s.boot.tracer,
		}),
		metadataexchange.Factory(),
		tcpproxy.Factory(tcpproxy.Env{Cluster: s.tcpCluster, AccessLog: loggersFor[tcpproxy.Logger](s), Stats: s.stats}),
	}
}

// httpFilters lists the HTTP filters that exist.
func (s *server) httpFilters() []http.Factory {
	return []http.Factory{
		alpn.Factory(),
		cors.Factory(),
		fault.Factory(),
		grpcstats.Factory(),
		peermetadata.Factory(peermetadata.Deps{ID: s.identity().GetId(), Metadata: s.identity().GetMetadata(), External: s.clusters.External}),
		router.Factory(router.Deps{Cluster: s.httpCluster, LocalAddress: hcm.LocalAddress()}),
	}
}

func (s *server) httpCluster(name string) router.Cluster {
	if c := s.clusters.Soon(name); c != nil {
		return c
	}
	return nil
}

// tcpCluster keeps a missing cluster from becoming a non-nil interface.
func (s *server) tcpCluster(name string) tcpproxy.Cluster {
	if c := s.clusters.Soon(name); c != nil {
		return c
	}
	return nil
}

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
	{"envoy.transport_sockets.upstream", "envoy.transport_sockets.raw_buffer", "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"},
	{"envoy.access_loggers", "envoy.access_loggers.file", "envoy.extensions.access_loggers.file.v3.FileAccessLog"},
	{"envoy.tracers", "envoy.tracers.zipkin", "envoy.config.trace.v3.ZipkinConfig"},
	{"envoy.tracers", "envoy.tracers.opentelemetry", "envoy.config.trace.v3.OpenTelemetryConfig"},
	{"envoy.upstream_options", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions", "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"},
	{"envoy.clusters", "envoy.cluster.static", ""},
	{"envoy.clusters", "envoy.cluster.strict_dns", ""},
	{"envoy.clusters", "envoy.cluster.logical_dns", ""},
	{"envoy.clusters", "envoy.cluster.eds", ""},
	{"envoy.clusters", "envoy.cluster.original_dst", ""},
	{"envoy.retry_host_predicates", "envoy.retry_host_predicates.previous_hosts", "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"},
	{"envoy.retry_priorities", "envoy.retry_priorities.previous_priorities", "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig"},
}
