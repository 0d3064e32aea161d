package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	askv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	asknetworkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/lateen-mesh/lateen/control/ir"
)

// shadowPolicy is the metadata in which an RBAC filter names the policy that its shadow rules
// have matched, behind their prefix.
const shadowPolicy = "istio_ext_authz_shadow_effective_policy_id"

// askHTTP has a service decide on requests that a policy of its has matched.
func askHTTP(a *ir.ExternalAuthorization) *askv3.ExtAuthz {
	out := &askv3.ExtAuthz{
		TransportApiVersion: corev3.ApiVersion_V3, FailureModeAllow: a.FailOpen, ClearRouteCache: a.ClearRoutes,
		FilterEnabledMetadata: matchedPolicy(a),
	}
	if a.StatusOnError != 0 {
		out.StatusOnError = &typev3.HttpStatus{Code: typev3.StatusCode(a.StatusOnError)}
	}
	if b := a.Body; b != nil {
		out.WithRequestBody = &askv3.BufferSettings{MaxRequestBytes: b.MaxBytes, AllowPartialMessage: b.Partial, PackAsBytes: b.Bytes}
	}
	if a.HTTP == nil {
		out.Services = &askv3.ExtAuthz_GrpcService{GrpcService: askService(a)}
		return out
	}
	out.AllowedHeaders = headerPatterns(a.HTTP.Send)
	out.Services = &askv3.ExtAuthz_HttpService{HttpService: askCall(a)}
	return out
}

func askCall(a *ir.ExternalAuthorization) *askv3.HttpService {
	h := a.HTTP
	out := &askv3.HttpService{PathPrefix: h.PathPrefix, ServerUri: &corev3.HttpUri{
		Uri: "http://" + a.Host, Timeout: durationpb.New(a.Timeout), HttpUpstreamType: &corev3.HttpUri_Cluster{Cluster: a.Cluster}}}
	if len(h.Add) > 0 {
		out.AuthorizationRequest = &askv3.AuthorizationRequest{}
		for _, v := range h.Add {
			out.AuthorizationRequest.HeadersToAdd = append(out.AuthorizationRequest.HeadersToAdd, &corev3.HeaderValue{Key: v.Name, Value: v.Value})
		}
	}
	if len(h.ToUpstream)+len(h.ToClient)+len(h.ToClientOnPass) > 0 {
		out.AuthorizationResponse = &askv3.AuthorizationResponse{AllowedUpstreamHeaders: headerPatterns(h.ToUpstream),
			AllowedClientHeaders: headerPatterns(h.ToClient), AllowedClientHeadersOnSuccess: headerPatterns(h.ToClientOnPass)}
	}
	return out
}

// askNetwork has a service decide on connections.
func askNetwork(a *ir.ExternalAuthorization) *asknetworkv3.ExtAuthz {
	return &asknetworkv3.ExtAuthz{
		StatPrefix: networkStats, TransportApiVersion: corev3.ApiVersion_V3, FailureModeAllow: a.FailOpen,
		GrpcService: askService(a), FilterEnabledMetadata: matchedPolicy(a),
	}
}

func askService(a *ir.ExternalAuthorization) *corev3.GrpcService {
	return &corev3.GrpcService{Timeout: durationpb.New(a.Timeout), TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
		EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: a.Cluster, Authority: a.Host}}}
}

func matchedPolicy(a *ir.ExternalAuthorization) *matcherv3.MetadataMatcher {
	return metadataMatch(&ir.MetadataMatch{Filter: a.Where, Path: []string{shadowPolicy},
		Values: []ir.MetadataValue{{StringMatch: ir.StringMatch{Kind: ir.Prefix, Value: a.PolicyPrefix}}}})
}

func headerPatterns(all []ir.StringMatch) *matcherv3.ListStringMatcher {
	if len(all) == 0 {
		return nil
	}
	out := &matcherv3.ListStringMatcher{}
	for _, m := range all {
		out.Patterns = append(out.Patterns, stringMatch(m))
	}
	return out
}
