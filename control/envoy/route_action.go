package envoy

import (
	"net/http"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	previousprioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/lateen-mesh/lateen/control/ir"
)

func routeAction(f ir.Forward) *routev3.RouteAction {
	out := &routev3.RouteAction{
		Timeout:               durationpb.New(f.Timeout),
		RetryPolicy:           retryPolicy(f.Retry),
		PrefixRewrite:         f.PrefixRewrite,
		RequestMirrorPolicies: mirrors(f.Mirrors),
		HashPolicy:            hashPolicies(f.HashPolicies),
	}
	out.AppendXForwardedHost = f.ForwardedHost
	setCluster(out, f)
	if f.Inbound {
		out.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{
			MaxStreamDuration: durationpb.New(0), GrpcTimeoutHeaderMax: durationpb.New(0)}
	} else {
		// Deprecated by max_stream_duration, which would end streams of other protocols too.
		out.MaxGrpcTimeout = durationpb.New(f.Timeout) // see above
	}
	if f.RegexRewrite != nil {
		out.RegexRewrite = &matcherv3.RegexMatchAndSubstitute{
			Pattern: regex(f.RegexRewrite.Pattern), Substitution: f.RegexRewrite.Substitution}
	}
	if f.HostRewrite != "" {
		out.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: f.HostRewrite}
	}
	return out
}

func setCluster(out *routev3.RouteAction, f ir.Forward) {
	if len(f.Clusters) == 1 && !f.Split {
		out.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: f.Clusters[0].Name}
		return
	}
	weighted := &routev3.WeightedCluster{}
	for _, c := range f.Clusters {
		w := &routev3.WeightedCluster_ClusterWeight{
			Name:                    c.Name,
			Weight:                  wrapperspb.UInt32(c.Weight),
			RequestHeadersToAdd:     headerValues(c.Headers.RequestAdd),
			RequestHeadersToRemove:  c.Headers.RequestRemove,
			ResponseHeadersToAdd:    headerValues(c.Headers.ResponseAdd),
			ResponseHeadersToRemove: c.Headers.ResponseRemove,
		}
		if c.HostRewrite != "" {
			w.HostRewriteSpecifier = &routev3.WeightedCluster_ClusterWeight_HostRewriteLiteral{
				HostRewriteLiteral: c.HostRewrite}
		}
		weighted.Clusters = append(weighted.Clusters, w)
	}
	out.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted}
}

func retryPolicy(r *ir.Retry) *routev3.RetryPolicy {
	if r == nil {
		return nil
	}
	out := &routev3.RetryPolicy{
		RetryOn:              r.On,
		NumRetries:           wrapperspb.UInt32(r.Attempts),
		RetriableStatusCodes: r.StatusCodes,
		PerTryTimeout:        duration(r.PerTryTimeout),
	}
	if r.BaseInterval > 0 {
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(r.BaseInterval)}
	}
	if r.OtherHosts {
		out.HostSelectionRetryMaxAttempts = 5
		out.RetryHostPredicate = []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: typed(&previoushostsv3.PreviousHostsPredicate{})},
		}}
	}
	if r.OtherLocalities {
		out.RetryPriority = &routev3.RetryPolicy_RetryPriority{
			Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
				TypedConfig: typed(&previousprioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: 2})},
		}
	}
	return out
}

func mirrors(ms []ir.Mirror) []*routev3.RouteAction_RequestMirrorPolicy {
	var out []*routev3.RouteAction_RequestMirrorPolicy
	for _, m := range ms {
		out = append(out, &routev3.RouteAction_RequestMirrorPolicy{
			Cluster:         m.Cluster,
			RuntimeFraction: &corev3.RuntimeFractionalPercent{DefaultValue: fraction(m.Fraction)},
			TraceSampled:    wrapperspb.Bool(false),
		})
	}
	return out
}

func fraction(f ir.Fraction) *typev3.FractionalPercent {
	out := &typev3.FractionalPercent{Numerator: f.Numerator}
	if f.Million {
		out.Denominator = typev3.FractionalPercent_MILLION
	}
	return out
}

func hashPolicies(ps []ir.HashPolicy) []*routev3.RouteAction_HashPolicy {
	var out []*routev3.RouteAction_HashPolicy
	for _, p := range ps {
		h := &routev3.RouteAction_HashPolicy{}
		switch {
		case p.Header != "":
			h.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{
				Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: p.Header}}
		case p.Cookie != "":
			c := &routev3.RouteAction_HashPolicy_Cookie{Name: p.Cookie, Path: p.CookiePath}
			if p.CookieTTL != nil {
				c.Ttl = durationpb.New(*p.CookieTTL)
			}
			for _, a := range p.Attributes {
				c.Attributes = append(c.Attributes, &routev3.RouteAction_HashPolicy_CookieAttribute{Name: a.Name, Value: a.Value})
			}
			h.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: c}
		case p.SourceIP:
			h.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
				ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}
		case p.Query != "":
			h.PolicySpecifier = &routev3.RouteAction_HashPolicy_QueryParameter_{
				QueryParameter: &routev3.RouteAction_HashPolicy_QueryParameter{Name: p.Query}}
		}
		out = append(out, h)
	}
	return out
}

func redirect(r ir.Redirect) *routev3.RedirectAction {
	out := &routev3.RedirectAction{HostRedirect: r.Host, PortRedirect: r.Port, ResponseCode: redirectCode(r.Code)}
	if r.Scheme != "" {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: r.Scheme}
	}
	switch {
	case r.PrefixRewrite != "":
		out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: r.PrefixRewrite}
	case r.Path != "" || r.PathSet:
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.Path}
	}
	return out
}

func redirectCode(status uint32) routev3.RedirectAction_RedirectResponseCode {
	switch status {
	case http.StatusFound:
		return routev3.RedirectAction_FOUND
	case http.StatusSeeOther:
		return routev3.RedirectAction_SEE_OTHER
	case http.StatusTemporaryRedirect:
		return routev3.RedirectAction_TEMPORARY_REDIRECT
	case http.StatusPermanentRedirect:
		return routev3.RedirectAction_PERMANENT_REDIRECT
	}
	return routev3.RedirectAction_MOVED_PERMANENTLY
}

func directResponse(d ir.DirectResponse) *routev3.DirectResponseAction {
	out := &routev3.DirectResponseAction{Status: d.Status}
	switch {
	case !d.HasBody:
	case d.Binary:
		out.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: d.Body}}
	default:
		out.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: string(d.Body)}}
	}
	return out
}
