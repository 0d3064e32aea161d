package compile

import (
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
	"github.com/lateen-mesh/lateen/control/registry"
)

// Names under which proxies list extensions: those that are not Envoy's own, and some
// that may be left out of an Envoy.
const (
	extPeerMetadata     = "envoy.filters.http.peer_metadata"
	extALPN             = "istio.alpn"
	extPeerExchange     = "envoy.filters.network.metadata_exchange"
	extZipkin           = "envoy.tracers.zipkin"
	extOpenTelemetry    = "envoy.tracers.opentelemetry"
	extOpenTelemetryLog = "envoy.access_loggers.open_telemetry"
	extHeaders          = "envoy.filters.http.header_mutation"
	extMetrics          = "envoy.filters.http.istio_stats"
	extTCPMetrics       = "envoy.filters.network.istio_stats"
	extOriginalSource   = "envoy.filters.listener.original_src"
	extForwardProxy     = "envoy.filters.http.dynamic_forward_proxy"
	extForwardSNI       = "envoy.filters.network.sni_dynamic_forward_proxy"
)

// filter gives a connection manager its HTTP filters, in order. Filters that the proxy
// does not have are left out: a proxy refuses a listener that names one. Those that trade
// descriptions of workloads have a stand-in, since what they send is always the same.
func (b *listenerBuilder) filter(h *ir.HTTPConnectionManager, peer ir.HTTPFilter, port uint32, grpcWeb bool) {
	outbound := peer == ir.PeerMetadataUpstream
	switch {
	case b.proxy.Has(extPeerMetadata):
		h.Filters = append(h.Filters, peer)
	case b.proxy.Has(extHeaders):
		h.Filters, h.Headers = append(h.Filters, ir.HeaderMutation), peerHeaders(b.proxy, outbound)
		if h.MetadataInMesh { // fixed headers cannot tell peers apart
			h.Headers.RequestAdd = nil
		}
	}
	b.guard(h, outbound, port)
	if grpcWeb {
		h.Filters = append(h.Filters, ir.GRPCWeb)
	}
	h.Filters = append(h.Filters, ir.GRPCStats)
	if outbound && b.proxy.Has(extALPN) {
		h.Filters = append(h.Filters, ir.ALPN)
	}
	h.Filters = append(h.Filters, ir.Fault, ir.CORS)
	if b.metrics && b.proxy.Has(extMetrics) {
		if outbound && b.proxy.Type != mesh.Router {
			h.Filters = append(h.Filters, ir.Metrics)
		} else {
			h.Filters = append(h.Filters, ir.MetricsNoHost)
		}
	}
	if len(h.Lookups) > 0 {
		h.Filters = append(h.Filters, ir.ForwardProxy)
	}
	h.Filters = append(h.Filters, ir.Router)
}

// lookups are the names that are resolved when requests come, for the services that ask for
// it on a port; 0 is any.
func (b *listenerBuilder) lookups(services []*registry.Service, port uint32) []ir.DNS {
	if !b.proxy.Has(extForwardProxy) {
		return nil
	}
	var out []ir.DNS
	for _, s := range services {
		if s.Resolution == registry.DynamicDNS && (port == 0 || s.Port(port) != nil) {
			out = append(out, forwardDNS(s, b.proxy))
		}
	}
	return out
}

// metrics reports that proxies count for Prometheus where no Telemetry says otherwise.
func metrics(c *meshconfig.MeshConfig) bool {
	for p := range namedProviders(c, c.GetDefaultProviders().GetMetrics()) {
		if p.GetPrometheus() != nil {
			return true
		}
	}
	return false
}

// countTCP has the connections of chains without HTTP counted.
func (b *listenerBuilder) countTCP(listeners []ir.Listener) []ir.Listener {
	if !b.metrics || !b.proxy.Has(extTCPMetrics) {
		return listeners
	}
	for i := range listeners {
		l := &listeners[i]
		for j := range l.Chains {
			l.Chains[j].Metrics = l.Chains[j].TCP != nil
		}
		if l.DefaultChain != nil {
			l.DefaultChain.Metrics = l.DefaultChain.TCP != nil
		}
	}
	return listeners
}
