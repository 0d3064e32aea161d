package envoy

import (
	"strconv"

	commonmatcherv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/matcher/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

const httpOptionsName = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

func httpOptions(h *ir.UpstreamHTTP) map[string]*anypb.Any {
	if h == nil {
		return nil
	}
	out := &httpv3.HttpProtocolOptions{CommonHttpProtocolOptions: commonHTTP(h)}
	if h.AutoSNI || h.AutoSANValidation {
		out.UpstreamHttpProtocolOptions = &corev3.UpstreamHttpProtocolOptions{
			AutoSni: h.AutoSNI, AutoSanValidation: h.AutoSANValidation}
	}
	setHTTPVersion(out, h)
	if len(h.ErrorCodes) > 0 {
		out.OutlierDetection = errorMatcher(h.ErrorCodes)
	}
	return map[string]*anypb.Any{httpOptionsName: typed(out)}
}

func commonHTTP(h *ir.UpstreamHTTP) *corev3.HttpProtocolOptions {
	if h.IdleTimeout == nil && h.MaxConnectionDuration == nil && h.MaxRequestsPerConn == 0 {
		return nil
	}
	out := &corev3.HttpProtocolOptions{}
	if h.IdleTimeout != nil {
		out.IdleTimeout = durationpb.New(*h.IdleTimeout)
	}
	if h.MaxConnectionDuration != nil {
		out.MaxConnectionDuration = durationpb.New(*h.MaxConnectionDuration)
	}
	if h.MaxRequestsPerConn > 0 {
		out.MaxRequestsPerConnection = wrapperspb.UInt32(h.MaxRequestsPerConn)
	}
	return out
}

func setHTTPVersion(out *httpv3.HttpProtocolOptions, h *ir.UpstreamHTTP) {
	switch h.Version {
	case ir.DownstreamChoice:
		out.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
			UseDownstreamProtocolConfig: &httpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
				HttpProtocolOptions:  http1Options(h.PreserveCase),
				Http2ProtocolOptions: http2Options(h),
			}}
	case ir.HTTP2:
		out.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: http2Options(h)}}}
	default:
		out.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
					HttpProtocolOptions: http1Options(h.PreserveCase)}}}
	}
}

func http2Options(h *ir.UpstreamHTTP) *corev3.Http2ProtocolOptions {
	out := &corev3.Http2ProtocolOptions{}
	if h.Version != ir.HTTP2 {
		return out
	}
	if h.MaxConcurrentStreams > 0 {
		out.MaxConcurrentStreams = wrapperspb.UInt32(h.MaxConcurrentStreams)
	}
	if h.KeepaliveInterval > 0 {
		out.ConnectionKeepalive = &corev3.KeepaliveSettings{
			Interval: durationpb.New(h.KeepaliveInterval), Timeout: durationpb.New(h.KeepaliveTimeout)}
	}
	return out
}

// errorMatcher counts the listed status codes as errors of the endpoint.
func errorMatcher(codes []uint32) *httpv3.HttpProtocolOptions_OutlierDetection {
	var rules []*commonmatcherv3.MatchPredicate
	for _, code := range codes {
		status := &routev3.HeaderMatcher{Name: ":status", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{
			StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: strconv.Itoa(int(code))}}}}
		rules = append(rules, &commonmatcherv3.MatchPredicate{Rule: &commonmatcherv3.MatchPredicate_HttpResponseHeadersMatch{
			HttpResponseHeadersMatch: &commonmatcherv3.HttpHeadersMatch{Headers: []*routev3.HeaderMatcher{status}}}})
	}
	if len(rules) == 1 {
		return &httpv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: rules[0]}
	}
	return &httpv3.HttpProtocolOptions_OutlierDetection{ErrorMatcher: &commonmatcherv3.MatchPredicate{
		Rule: &commonmatcherv3.MatchPredicate_OrMatch{OrMatch: &commonmatcherv3.MatchPredicate_MatchSet{Rules: rules}}}}
}
