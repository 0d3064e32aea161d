package envoy

import (
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/lateen-mesh/lateen/control/ir"
)

const (
	jwtFilter = "envoy.filters.http.jwt_authn"
	// jwtPayload is the metadata of the filter that has the claims.
	jwtPayload = "payload"
	// keysKept is how long a proxy goes without fetching keys again.
	keysKept = 5 * time.Minute
)

// tokens checks the tokens of requests. With several issuers a request passes whose tokens are
// valid, each of its own issuer, and one whose token is valid for one of those that look for it
// in the same place.
func tokens(rules *ir.JWTRules) *jwtv3.JwtAuthentication {
	out := &jwtv3.JwtAuthentication{Providers: map[string]*jwtv3.JwtProvider{}, BypassCorsPreflight: true}
	var each, one []*jwtv3.JwtRequirement
	for i, p := range rules.Providers {
		name := fmt.Sprintf("origins-%d", i)
		out.Providers[name] = tokenProvider(p)
		valid := &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: name}}
		missing := &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_AllowMissing{AllowMissing: &emptypb.Empty{}}}
		one, each = append(one, valid), append(each, anyRequirement(valid, missing))
	}
	requires := each[0]
	if len(each) > 1 {
		requires = anyRequirement(append(one, &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_RequiresAll{
			RequiresAll: &jwtv3.JwtRequirementAndList{Requirements: each}}})...)
	}
	out.Rules = []*jwtv3.RequirementRule{{
		Match:           &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
		RequirementType: &jwtv3.RequirementRule_Requires{Requires: requires},
	}}
	return out
}

func anyRequirement(of ...*jwtv3.JwtRequirement) *jwtv3.JwtRequirement {
	return &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: &jwtv3.JwtRequirementOrList{Requirements: of}}}
}

func tokenProvider(p ir.JWTProvider) *jwtv3.JwtProvider {
	out := &jwtv3.JwtProvider{
		Issuer: p.Issuer, Audiences: p.Audiences, FromParams: p.FromParams, FromCookies: p.FromCookies,
		Forward: p.Forward, ForwardPayloadHeader: p.PayloadHeader, PayloadInMetadata: jwtPayload, ClearRouteCache: p.ClearRoutes,
		NormalizePayloadInMetadata: &jwtv3.JwtProvider_NormalizePayload{SpaceDelimitedClaims: p.SpaceDelimited},
	}
	for _, h := range p.FromHeaders {
		out.FromHeaders = append(out.FromHeaders, &jwtv3.JwtHeader{Name: h.Name, ValuePrefix: h.Prefix})
	}
	for _, c := range p.ClaimHeaders {
		out.ClaimToHeaders = append(out.ClaimToHeaders, &jwtv3.JwtClaimToHeader{HeaderName: c.Header, ClaimName: c.Claim})
	}
	if r := p.Remote; r != nil {
		out.JwksSourceSpecifier = &jwtv3.JwtProvider_RemoteJwks{RemoteJwks: &jwtv3.RemoteJwks{
			HttpUri:       &corev3.HttpUri{Uri: r.URL, Timeout: durationpb.New(r.Timeout), HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: r.Cluster}},
			CacheDuration: durationpb.New(keysKept), AsyncFetch: &jwtv3.JwksAsyncFetch{FastListener: true},
		}}
		return out
	}
	out.JwksSourceSpecifier = &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: p.Keys}}}
	return out
}
