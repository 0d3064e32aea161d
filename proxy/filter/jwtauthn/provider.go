package jwtauthn

import (
	"errors"
	"fmt"
	"strings"
	"time"

	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"

	"github.com/lateen-mesh/lateen/jwt"
	"github.com/lateen-mesh/lateen/proxy/match"
	"github.com/lateen-mesh/lateen/proxy/xds"
)

// A provider is a compiled JwtProvider.
type provider struct {
	issuer    string // "" for any
	audiences jwt.Audiences
	subjects  *match.String // nil: any
	skew      uint64        // seconds
	// lifetime is how long a token may still hold, less than that; 0: however long. expires
	// says that it must tell its end.
	lifetime time.Duration
	expires  bool

	locations locations
	keys      *source
	cache     *cache // nil: none

	forward        bool // the token stays in the request
	payloadHeader  string
	pad            bool
	claims         []claim
	payloadKey     string // metadata keys, "" for none
	headerKey      string
	failureKey     string
	spaceDelimited []string
	clearRoute     bool
	own            []string // headers that only this provider may set
}

// defaultSkew is in seconds.
const defaultSkew = 60

func newProvider(c *jwtv3.JwtProvider, st *counters, d Deps) (*provider, error) {
	err := xds.Only(c, "issuer", "audiences", "subjects", "require_expiration", "max_lifetime", "remote_jwks", "local_jwks", "forward", "from_headers",
		"from_params", "from_cookies", "forward_payload_header", "pad_forward_payload_header", "payload_in_metadata", "normalize_payload_in_metadata",
		"header_in_metadata", "failed_status_in_metadata", "clock_skew_seconds", "jwt_cache_config", "claim_to_headers", "clear_route_cache")
	if err != nil {
		return nil, err
	}
	p := &provider{
		issuer: c.GetIssuer(), audiences: jwt.NewAudiences(c.GetAudiences()), skew: uint64(c.GetClockSkewSeconds()), expires: c.GetRequireExpiration(),
		forward: c.GetForward(), payloadHeader: strings.ToLower(c.GetForwardPayloadHeader()), pad: c.GetPadForwardPayloadHeader(),
		payloadKey: c.GetPayloadInMetadata(), headerKey: c.GetHeaderInMetadata(), failureKey: c.GetFailedStatusInMetadata(),
		spaceDelimited: c.GetNormalizePayloadInMetadata().GetSpaceDelimitedClaims(), clearRoute: c.GetClearRouteCache(),
		cache: newCache(c.GetJwtCacheConfig()),
	}
	if p.skew == 0 {
		p.skew = defaultSkew
	}
	if m := c.GetSubjects(); m != nil {
		s, err := match.NewString(m)
		if err != nil {
			return nil, fmt.Errorf("subjects: %w", err)
		}
		p.subjects = &s
	}
	if m := c.GetMaxLifetime(); m != nil {
		p.expires, p.lifetime = true, m.AsDuration()
		if p.lifetime <= 0 {
			return nil, errors.New("max_lifetime: must be more than 0")
		}
	}
	if err := p.setClaims(c); err != nil {
		return nil, err
	}
	p.locations.add(c)
	p.locations.sort()
	p.keys, err = newSource(c, st, d)
	return p, err
}

func (p *provider) setClaims(c *jwtv3.JwtProvider) error {
	if p.payloadHeader != "" {
		p.own = append(p.own, p.payloadHeader)
	}
	for i, h := range c.GetClaimToHeaders() {
		one, err := newClaim(h)
		if err != nil {
			return fmt.Errorf("claim_to_headers[%d].%w", i, err)
		}
		p.claims = append(p.claims, one)
		p.own = append(p.own, one.header)
	}
	return nil
}

// check looks at what the token says of itself.
func (p *provider) check(t *jwt.Token, now uint64, audiences jwt.Audiences) jwt.Status {
	if status := t.CheckTime(now, p.skew); status != jwt.OK {
		return status
	}
	if p.subjects != nil && !p.subjects.Match([]byte(t.Subject)) {
		return jwt.VerificationFails
	}
	if p.expires && !p.briefEnough(t, now) {
		return jwt.VerificationFails
	}
	if !audiences.Allow(t.Audiences) {
		return jwt.AudienceNotAllowed
	}
	return jwt.OK
}

// briefEnough reports whether a token ends, and soon enough.
func (p *provider) briefEnough(t *jwt.Token, now uint64) bool {
	if t.Expires == 0 || p.lifetime == 0 {
		return t.Expires != 0
	}
	return t.Expires <= now || float64(t.Expires-now) < p.lifetime.Seconds()
}
