package compile

import (
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Names under which proxies list extensions: those that are not Envoy's own, and some
// that may be left out of an Envoy.
const (
	extPeerMetadata = "envoy.filters.http.peer_metadata"
	extALPN         = "istio.alpn"
	extPeerExchange = "envoy.filters.network.metadata_exchange"
	extZipkin       = "envoy.tracers.zipkin"
	extHeaders      = "envoy.filters.http.header_mutation"
)

// filter gives a connection manager its HTTP filters, in order. Filters that the proxy
// does not have are left out: a proxy refuses a listener that names one. Those that trade
// descriptions of workloads have a stand-in, since what they send is always the same.
func (b *listenerBuilder) filter(h *ir.HTTPConnectionManager, peer ir.HTTPFilter, grpcWeb bool) {
	outbound := peer == ir.PeerMetadataUpstream
	switch {
	case b.proxy.Has(extPeerMetadata):
		h.Filters = append(h.Filters, peer)
	case b.proxy.Has(extHeaders):
		h.Filters, h.Headers = append(h.Filters, ir.HeaderMutation), peerHeaders(b.proxy, outbound)
	}
	if grpcWeb {
		h.Filters = append(h.Filters, ir.GRPCWeb)
	}
	h.Filters = append(h.Filters, ir.GRPCStats)
	if outbound && b.proxy.Has(extALPN) {
		h.Filters = append(h.Filters, ir.ALPN)
	}
	h.Filters = append(h.Filters, ir.Fault, ir.CORS, ir.Router)
}

// forwardCert is what a gateway does with x-forwarded-client-cert; it makes its own
// unless its settings say that proxies in front of it are trusted.
func forwardCert(c *meshconfig.ProxyConfig) ir.ForwardClientCert {
	switch c.GetGatewayTopology().GetForwardClientCertDetails() {
	case meshconfig.ForwardClientCertDetails_SANITIZE:
		return ir.SanitizeCert
	case meshconfig.ForwardClientCertDetails_FORWARD_ONLY:
		return ir.ForwardOnlyCert
	case meshconfig.ForwardClientCertDetails_APPEND_FORWARD:
		return ir.AppendForwardCert
	case meshconfig.ForwardClientCertDetails_ALWAYS_FORWARD_ONLY:
		return ir.AlwaysForwardOnlyCert
	}
	return ir.SanitizeAndSetCert
}
