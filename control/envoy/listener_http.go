package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	uuidv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/request_id/uuid/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

func connectionManager(h ir.HTTPConnectionManager) *hcmv3.HttpConnectionManager {
	out := &hcmv3.HttpConnectionManager{
		StatPrefix:               h.StatPrefix,
		HttpFilters:              httpFilters(h),
		AccessLog:                accessLogs(h.AccessLogs),
		ServerName:               h.ServerName,
		UseRemoteAddress:         wrapperspb.Bool(h.UseRemoteAddress),
		XffNumTrustedHops:        h.TrustedHops,
		ForwardClientCertDetails: forwardClientCert(h.ForwardCert),
		NormalizePath:            wrapperspb.Bool(h.Paths.Normalize),
		MergeSlashes:             h.Paths.MergeSlashes,
		Proxy_100Continue:        true,
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
			Subject: wrapperspb.Bool(true), Uri: true, Dns: true, Cert: h.ForwardCertificate}
	}
	if h.HTTP10 {
		out.HttpProtocolOptions = &corev3.Http1ProtocolOptions{AcceptHttp_10: true}
	} else if h.ExplicitHTTP1 {
		out.HttpProtocolOptions = &corev3.Http1ProtocolOptions{}
	}
	setRoutes(out, h)
	return out
}

func setRoutes(out *hcmv3.HttpConnectionManager, h ir.HTTPConnectionManager) {
	if h.Routes != nil {
		out.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: RouteConfiguration(*h.Routes)}
		return
	}
	out.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
		RouteConfigName: h.RouteName,
		ConfigSource: &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			InitialFetchTimeout:   durationpb.New(0),
			ResourceApiVersion:    corev3.ApiVersion_V3,
		},
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
