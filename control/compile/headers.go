package compile

import (
	"google.golang.org/protobuf/types/known/wrapperspb"
	meshconfig "istio.io/api/mesh/v1alpha1"

	"github.com/lateen-mesh/lateen/control/ir"
)

// side is which requests a connection manager takes.
type side uint8

const (
	outbound side = iota
	inbound
	edge
)

// setHeaders says which headers a connection manager adds: what each side does by itself,
// with the proxy's own settings (proxyHeaders) over it.
func (b *listenerBuilder) setHeaders(h *ir.HTTPConnectionManager, s side) {
	own := b.config.GetProxyHeaders()
	switch s {
	case inbound:
		h.ServerName = "istio-envoy"
		h.ForwardCert, h.CertDetails = ir.AppendForwardCert, certDetails(own.GetSetCurrentClientCertDetails())
		if f := own.GetForwardedClientCert(); f != meshconfig.ForwardClientCertDetails_UNDEFINED {
			h.ForwardCert = forwardCert(f)
		}
	case edge:
		h.ServerName = "istio-envoy"
		h.CertDetails = ir.CertDetails{Subject: true, URI: true, DNS: true, Certificate: true}
		h.ForwardCert = forwardCert(b.config.GetGatewayTopology().GetForwardClientCertDetails())
	}
	switch server := own.GetServer(); {
	case server.GetDisabled().GetValue():
		h.ServerName, h.KeepServer = "", true
	case server.GetValue() != "":
		h.ServerName = server.GetValue()
	}
	h.NoRequestID = own.GetRequestId().GetDisabled().GetValue()
	h.Quiet = own.GetEnvoyDebugHeaders().GetDisabled().GetValue()
	h.PreserveCase = own.GetPreserveHttp1HeaderCase().GetValue()
	h.ForwardedPort = own.GetXForwardedPort().GetEnabled().GetValue()
	h.MetadataInMesh = s == outbound && own.GetMetadataExchangeHeaders().GetMode() == meshconfig.ProxyConfig_ProxyHeaders_IN_MESH
}

// certDetails are what is told of a client's certificate.
func certDetails(c *meshconfig.ProxyConfig_ProxyHeaders_SetCurrentClientCertDetails) ir.CertDetails {
	unlessFalse := func(v *wrapperspb.BoolValue) bool { return v == nil || v.Value }
	return ir.CertDetails{
		Subject:     unlessFalse(c.GetSubject()),
		URI:         unlessFalse(c.GetUri()),
		DNS:         unlessFalse(c.GetDns()),
		Certificate: c.GetCert().GetValue(),
		Chain:       c.GetChain().GetValue(),
	}
}

// forwardCert is what is done with x-forwarded-client-cert; a gateway, which leaves it
// open, makes its own unless proxies in front of it are trusted.
func forwardCert(f meshconfig.ForwardClientCertDetails) ir.ForwardClientCert {
	switch f {
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

// routeHeaders applies the proxy's settings for headers that routes add.
func routeHeaders(t *ir.RouteConfiguration, own *meshconfig.ProxyConfig_ProxyHeaders) {
	attempts, host := !own.GetAttemptCount().GetDisabled().GetValue(), own.GetXForwardedHost().GetEnabled().GetValue()
	if attempts && !host {
		return
	}
	for i := range t.VirtualHosts {
		v := &t.VirtualHosts[i]
		v.AttemptCount = v.AttemptCount && attempts
		for _, r := range v.Routes {
			if r.Forward != nil {
				r.Forward.ForwardedHost = host
			}
		}
	}
}
