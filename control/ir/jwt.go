package ir

import "time"

// JWTRules are the issuers whose tokens are checked: a request with a token that is not valid
// is refused, one without a token passes (Envoy: filters.http.jwt_authn).
type JWTRules struct{ Providers []JWTProvider }

// A JWTProvider is one issuer of tokens.
type JWTProvider struct {
	Issuer    string
	Audiences []string // empty: any
	// Keys are a JSON Web Key Set (RFC 7517), or fetched from Remote by the proxy. Neither: no
	// token of the issuer is valid.
	Keys   string
	Remote *RemoteKeys

	FromHeaders []TokenHeader // where tokens are; with nothing of the three the usual places
	FromParams  []string
	FromCookies []string

	Forward        bool   // the token goes to the upstream
	PayloadHeader  string // has the payload for the upstream, "" for none
	ClaimHeaders   []ClaimHeader
	SpaceDelimited []string // claims that are lists with spaces between
	// ClearRoutes has the route chosen again once the claims are known.
	ClearRoutes bool
}

// RemoteKeys are fetched by the proxy.
type RemoteKeys struct {
	URL, Cluster string
	Timeout      time.Duration
}

// A TokenHeader is a header with a token behind Prefix.
type TokenHeader struct{ Name, Prefix string }

// A ClaimHeader tells the upstream a claim.
type ClaimHeader struct{ Header, Claim string }
