package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

func connectionManager(h ir.HTTPConnectionManager) *hcmv3.HttpConnectionManager {
	out := &hcmv3.HttpConnectionManager{
		StatPrefix:                h.StatPrefix,
		HttpFilters:               httpFilters(h),
		AccessLog:                 accessLogs(h.AccessLogs),
		ServerName:                h.ServerName,
		UseRemoteAddress:          wrapperspb.Bool(h.UseRemoteAddress),
		PreserveExternalRequestId: h.KeepRequestID,
		XffNumTrustedHops:         h.TrustedHops,
		ForwardClientCertDetails:  forwardClientCert(h.ForwardCert),
		NormalizePath:             wrapperspb.Bool(h.Paths.Normalize),
		MergeSlashes:              h.Paths.MergeSlashes,
		Proxy_100Continue:         true,
		// Streams have no idle limit: routes without a timeout may be silent for long.
		StreamIdleTimeout: durationpb.New(0),
		UpgradeConfigs:    []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		RequestIdExtension: &hcmv3.RequestIDExtension{TypedConfig: typed(&uuidv3.UuidRequestIdConfig{
			UseRequestIdForTraceSampling: wrapperspb.Bool(true)})},
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_KEEP_UNCHANGED,
		Tracing:                      tracing(h.Tracing),
	}
	if h.Paths.Unescape {
		out.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD
	}
	switch h.ForwardCert {
	case ir.SanitizeAndSetCert, ir.AppendForwardCert:
		out.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{
			Subject: subject(h.CertDetails), Uri: h.CertDetails.URI, Dns: h.CertDetails.DNS,
			Cert: h.CertDetails.Certificate, Chain: h.CertDetails.Chain}
	}
	if h.HTTP10 || h.ExplicitHTTP1 || h.PreserveCase {
		out.HttpProtocolOptions = http1Options(h.PreserveCase)
		out.HttpProtocolOptions.AcceptHttp_10 = h.HTTP10
	}
	if h.KeepServer {
		out.ServerHeaderTransformation = hcmv3.HttpConnectionManager_PASS_THROUGH
	}
	if h.NoRequestID {
		out.GenerateRequestId = wrapperspb.Bool(false)
	}
	out.AppendXForwardedPort = h.ForwardedPort
	setRoutes(out, h)
	return out
}

func subject(d ir.CertDetails) *wrapperspb.BoolValue {
	if !d.Subject {
		return nil
	}
	return wrapperspb.Bool(true)
}

// http1Options are those of either side; names of headers are in lower case unless asked.
func http1Options(preserveCase bool) *corev3.Http1ProtocolOptions {
	out := &corev3.Http1ProtocolOptions{}
	if preserveCase {
		out.HeaderKeyFormat = &corev3.Http1ProtocolOptions_HeaderKeyFormat{
			HeaderFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat_StatefulFormatter{
				StatefulFormatter: &corev3.TypedExtensionConfig{
					Name:        "envoy.http.stateful_header_formatters.preserve_case",
					TypedConfig: typed(&preservecasev3.PreserveCaseFormatterConfig{}),
				}}}
	}
	return out
}

func setRoutes(out *hcmv3.HttpConnectionManager, h ir.HTTPConnectionManager) {
	if h.Routes != nil {
		out.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: RouteConfiguration(*h.Routes)}
		return
	}
	out.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
		RouteConfigName: h.RouteName,
		ConfigSource:    awaitedADS(),
	}}
}

func forwardClientCert(f ir.ForwardClientCert) hcmv3.HttpConnectionManager_ForwardClientCertDetails {
	switch f {
	case ir.SanitizeAndSetCert:
		return hcmv3.HttpConnectionManager_SANITIZE_SET
	case ir.AppendForwardCert:
		return hcmv3.HttpConnectionManager_APPEND_FORWARD
	case ir.ForwardOnlyCert:
		return hcmv3.HttpConnectionManager_FORWARD_ONLY
	case ir.AlwaysForwardOnlyCert:
		return hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY
	}
	return hcmv3.HttpConnectionManager_SANITIZE
}
