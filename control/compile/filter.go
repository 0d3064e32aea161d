package compile

import (
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ir"
)

// Names under which proxies list the filters that are not Envoy's own.
const (
	extPeerMetadata = "envoy.filters.http.peer_metadata"
	extALPN         = "istio.alpn"
	extPeerExchange = "envoy.filters.network.metadata_exchange"
	extZipkin       = "envoy.tracers.zipkin" // one of Envoy's own, which may be left out too
)

// gatewayFilters are the HTTP filters of a gateway, in order.
func (b *listenerBuilder) gatewayFilters(protocol string) []ir.HTTPFilter {
	return b.filters(ir.PeerMetadataUpstream, protocol == "GRPC-WEB", true)
}

// filters is the order of HTTP filters. Filters that the proxy does not have are
// left out: a proxy refuses a listener that names one.
func (b *listenerBuilder) filters(peer ir.HTTPFilter, grpcWeb, outbound bool) []ir.HTTPFilter {
	var out []ir.HTTPFilter
	if b.proxy.Has(extPeerMetadata) {
		out = append(out, peer)
	}
	if grpcWeb {
		out = append(out, ir.GRPCWeb)
	}
	out = append(out, ir.GRPCStats)
	if outbound && b.proxy.Has(extALPN) {
		out = append(out, ir.ALPN)
	}
	return append(out, ir.Fault, ir.CORS, ir.Router)
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
