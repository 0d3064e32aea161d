package compile

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	security "istio.io/api/security/v1beta1"

	"github.com/lateen-mesh/lateen/control/ir"
	"github.com/lateen-mesh/lateen/control/mesh"
)

// noKeys is a key set by which no token is valid: its key is no point of the curve, so that no
// signature fits it and nobody can have its other half. Envoy refuses a set without keys.
const noKeys = `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","x":"AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`

// keysTimeout bounds one fetch of keys where the rule does not.
const keysTimeout = 5 * time.Second

// jwtRules are the rules of all RequestAuthentications of a proxy, by issuer; nil if there is
// none.
//
// Keys that could not be fetched are none: tokens of that issuer are refused and those of
// others are not touched by it.
func jwtRules(s *mesh.Snapshot, scope *mesh.Scope, p *mesh.Proxy) *ir.JWTRules {
	var rules []*security.JWTRule
	for _, a := range s.RequestAuthentications(p) {
		rules = append(rules, a.Spec.GetJwtRules()...)
	}
	if len(rules) == 0 {
		return nil
	}
	slices.SortStableFunc(rules, func(a, b *security.JWTRule) int { return strings.Compare(a.GetIssuer(), b.GetIssuer()) })
	out := &ir.JWTRules{}
	for _, r := range rules {
		provider := jwtProvider(r)
		provider.ClearRoutes = p.Type == mesh.Router // routes of gateways may ask for claims
		setKeys(&provider, r, s, scope)
		out.Providers = append(out.Providers, provider)
	}
	return out
}

func jwtProvider(r *security.JWTRule) ir.JWTProvider {
	out := ir.JWTProvider{
		Issuer: r.GetIssuer(), Audiences: r.GetAudiences(), FromParams: r.GetFromParams(), FromCookies: r.GetFromCookies(),
		Forward: r.GetForwardOriginalToken(), PayloadHeader: r.GetOutputPayloadToHeader(),
	}
	for _, h := range r.GetFromHeaders() {
		out.FromHeaders = append(out.FromHeaders, ir.TokenHeader{Name: h.GetName(), Prefix: h.GetPrefix()})
	}
	for _, c := range r.GetOutputClaimToHeaders() {
		out.ClaimHeaders = append(out.ClaimHeaders, ir.ClaimHeader{Header: c.GetHeader(), Claim: c.GetClaim()})
	}
	out.SpaceDelimited = append([]string{"permission", "scope"}, r.GetSpaceDelimitedClaims()...)
	slices.Sort(out.SpaceDelimited)
	out.SpaceDelimited = slices.Compact(out.SpaceDelimited)
	return out
}

func setKeys(out *ir.JWTProvider, r *security.JWTRule, s *mesh.Snapshot, scope *mesh.Scope) {
	source := mesh.KeySourceOf(r)
	if source.URL == "" {
		if out.Keys = r.GetJwks(); hasNoKeys(out.Keys) {
			out.Keys = noKeys
		}
		return
	}
	if s.RemoteKeys != mesh.KeysByControlPlane && !source.Discovery {
		if cluster, ok := clusterOfURL(scope, source.URL); ok {
			out.Remote = &ir.RemoteKeys{URL: source.URL, Cluster: cluster, Timeout: timeoutOr(r.GetTimeout(), keysTimeout)}
			return
		}
	}
	out.Keys = noKeys
	if keys := s.Keys[source]; keys != "" && (s.RemoteKeys != mesh.KeysByProxies || source.Discovery) {
		out.Keys = keys
	}
}

func hasNoKeys(text string) bool {
	var set struct{ Keys *[]json.RawMessage }
	return json.Unmarshal([]byte(text), &set) == nil && set.Keys != nil && len(*set.Keys) == 0
}

// clusterOfURL is the cluster by which the proxy calls a URL.
func clusterOfURL(scope *mesh.Scope, address string) (string, bool) {
	u, err := url.Parse(address)
	if err != nil {
		return "", false
	}
	port := uint64(80)
	if u.Scheme == "https" {
		port = 443
	}
	if text := u.Port(); text != "" {
		if port, err = strconv.ParseUint(text, 10, 16); err != nil {
			return "", false
		}
	}
	cluster, _, ok := providerCluster(scope, u.Hostname(), uint32(port))
	return cluster, ok
}
