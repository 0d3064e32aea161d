package ca

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lateen-mesh/lateen/jwt"
)

// TokenAudience is for whom tokens of workloads are made where nothing else is said.
const TokenAudience = "istio-ca"

// A JWTRule says which tokens of an issuer count (environment variable JWT_RULE, in the form of
// a jwtRule of a RequestAuthentication). Their subject is a service account as Kubernetes writes
// it.
type JWTRule struct {
	Issuer    string   `json:"issuer"`
	Audiences []string `json:"audiences"` // one of them must be the token's; none is istio-ca
	JWKSURI   string   `json:"jwksUri"`   // where the keys are; without it and JWKS as OpenID Connect Discovery says
	JWKS      string   `json:"jwks"`      // the keys themselves
}

// A FetchKeys gets a JSON Web Key Set from an address of https. With discovery that is of the
// issuer's document (OpenID Connect Discovery), which says where the keys are.
type FetchKeys func(ctx context.Context, address string, discovery bool) (string, error)

// Times of keys that are fetched.
const (
	keysKept  = 20 * time.Minute
	keysAgain = 10 * time.Second // at the earliest, for a key that is not known
	fetchTime = 5 * time.Second
	leeway    = time.Minute // between the issuer's clock and ours
)

// issuer verifies the tokens of one JWTRule.
type issuer struct {
	rule      JWTRule
	fetch     FetchKeys
	address   string // of the keys, or of the document of discovery
	discovery bool
	now       func() time.Time

	mu      sync.Mutex // held while keys are fetched: one fetch serves all
	keys    *jwt.Keys  // nil before the first
	fetched time.Time
}

// NewJWT returns a Verifier of an issuer's tokens. now is the clock, time.Now if nil.
func NewJWT(rule JWTRule, fetch FetchKeys, now func() time.Time) (Verifier, error) {
	if rule.Issuer == "" {
		return nil, errors.New("JWT rule: issuer is missing")
	}
	i := &issuer{rule: rule, fetch: fetch, address: rule.JWKSURI, now: now}
	if len(rule.Audiences) == 0 {
		i.rule.Audiences = []string{TokenAudience}
	}
	if i.now == nil {
		i.now = time.Now
	}
	if rule.JWKS != "" {
		var err error
		if i.keys, err = jwt.ParseKeys([]byte(rule.JWKS)); err != nil {
			return nil, fmt.Errorf("JWT rule of %s: jwks: %w", rule.Issuer, err)
		}
		return i.verify, nil
	}
	if i.address == "" {
		i.address, i.discovery = strings.TrimSuffix(rule.Issuer, "/")+"/.well-known/openid-configuration", true
	}
	if u, err := url.Parse(i.address); err != nil || u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("JWT rule of %s: keys come over https only, not from %q", rule.Issuer, i.address)
	}
	return i.verify, nil
}

func (i *issuer) verify(ctx context.Context, text string) (Account, error) {
	t, said := jwt.Parse(text)
	if said != jwt.OK || t.Issuer != i.rule.Issuer {
		return Account{}, ErrForeign
	}
	if t.Header["crit"] != nil {
		return Account{}, errors.New("the token has critical extensions")
	}
	if strings.HasPrefix(t.Algorithm, "HS") {
		return Account{}, errors.New("the token is signed with a secret, which others may know as well")
	}
	if err := i.checkSignature(ctx, t); err != nil {
		return Account{}, err
	}
	if t.Expires == 0 {
		return Account{}, errors.New("the token has no end")
	}
	if said := t.CheckTime(uint64(max(0, i.now().Unix())), uint64(leeway.Seconds())); said != jwt.OK {
		return Account{}, errors.New(said.String())
	}
	if !slices.ContainsFunc(t.Audiences, func(a string) bool { return slices.Contains(i.rule.Audiences, a) }) {
		return Account{}, fmt.Errorf("the token is for %.200q, not for %q", t.Audiences, i.rule.Audiences)
	}
	return ParseAccount(t.Subject)
}

// checkSignature tries the keys that are there, and then those that may be new.
func (i *issuer) checkSignature(ctx context.Context, t *jwt.Token) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, late := range []bool{false, true} {
		if err := i.refresh(ctx, late); err != nil {
			return err
		}
		if i.keys.Verify(t) == jwt.OK {
			return nil
		}
	}
	return errors.New("the token is signed by none of the issuer's keys")
}

// refresh gets the keys if they are old; late: if they are not quite new. Keys that were fetched
// before do while there are no new ones. i.mu is held.
func (i *issuer) refresh(ctx context.Context, late bool) error {
	age := i.now().Sub(i.fetched)
	if i.rule.JWKS != "" || i.keys != nil && age < keysKept && (!late || age < keysAgain) {
		return nil
	}
	if i.keys == nil && age < keysAgain && !i.fetched.IsZero() {
		return fmt.Errorf("%w: keys of %s", ErrAway, i.rule.Issuer)
	}
	i.fetched = i.now()
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	text, err := i.fetch(ctx, i.address, i.discovery)
	if err == nil {
		var keys *jwt.Keys
		if keys, err = jwt.ParseKeys([]byte(text)); err == nil {
			i.keys = keys
		}
	}
	if err != nil && i.keys == nil {
		return fmt.Errorf("%w: keys of %s: %w", ErrAway, i.rule.Issuer, err)
	}
	return nil
}
