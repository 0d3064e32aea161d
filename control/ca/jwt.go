package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
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

// Bounds of keys that are fetched, and times of theirs.
const (
	maxKeys   = 1 << 20 // bytes
	keysKept  = 20 * time.Minute
	keysAgain = 10 * time.Second // at the earliest, for a key that is not known
	fetchTime = 5 * time.Second
	leeway    = time.Minute // between the issuer's clock and ours
)

// issuer verifies the tokens of one JWTRule.
type issuer struct {
	rule   JWTRule
	client *http.Client
	now    func() time.Time

	mu      sync.Mutex // held while keys are fetched: one fetch serves all
	keys    []key
	fetched time.Time
}

// A key is one of a JWKS (RFC 7517).
type key struct {
	id     string
	public crypto.PublicKey
}

// NewJWT returns a Verifier of an issuer's tokens. client fetches keys; nil is one with the
// system's roots. now is the clock, time.Now if nil.
func NewJWT(rule JWTRule, client *http.Client, now func() time.Time) (Verifier, error) {
	if rule.Issuer == "" {
		return nil, errors.New("JWT rule: issuer is missing")
	}
	i := &issuer{rule: rule, client: client, now: now}
	if len(rule.Audiences) == 0 {
		i.rule.Audiences = []string{TokenAudience}
	}
	if i.now == nil {
		i.now = time.Now
	}
	if i.client == nil {
		i.client = &http.Client{Timeout: fetchTime}
	}
	if rule.JWKS != "" {
		var err error
		if i.keys, err = parseKeys([]byte(rule.JWKS)); err != nil {
			return nil, fmt.Errorf("JWT rule of %s: jwks: %w", rule.Issuer, err)
		}
		return i.verify, nil
	}
	for _, text := range []string{rule.JWKSURI, rule.Issuer} {
		if text == "" {
			continue
		}
		if u, err := url.Parse(text); err != nil || u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("JWT rule of %s: keys come over https only, not from %q", rule.Issuer, text)
		}
		break
	}
	return i.verify, nil
}

// claims are those of a token that count.
type claims struct {
	Issuer    string    `json:"iss"`
	Subject   string    `json:"sub"`
	Audience  audiences `json:"aud"`
	Expires   *float64  `json:"exp"`
	NotBefore float64   `json:"nbf"`
}

// audiences are a list, or one without a list (RFC 7519, 4.1.3).
type audiences []string

// UnmarshalJSON reads either form.
func (a *audiences) UnmarshalJSON(text []byte) error {
	var one string
	if json.Unmarshal(text, &one) == nil {
		*a = audiences{one}
		return nil
	}
	return json.Unmarshal(text, (*[]string)(a))
}

type tokenHeader struct {
	Algorithm string `json:"alg"`
	KeyID     string `json:"kid"`
	Critical  any    `json:"crit"`
}

// A parsedToken is one whose signature is not judged yet.
type parsedToken struct {
	header    tokenHeader
	claims    claims
	signed    []byte
	signature []byte
}

func parseToken(text string) (*parsedToken, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 || len(text) > maxToken {
		return nil, ErrForeign
	}
	t := &parsedToken{signed: []byte(parts[0] + "." + parts[1])}
	for i, into := range []any{&t.header, &t.claims} {
		raw, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(raw, into)
		}
		if err != nil {
			return nil, ErrForeign
		}
	}
	var err error
	if t.signature, err = base64.RawURLEncoding.DecodeString(parts[2]); err != nil {
		return nil, ErrForeign
	}
	return t, nil
}

func (i *issuer) verify(ctx context.Context, text string) (Account, error) {
	t, err := parseToken(text)
	if err != nil {
		return Account{}, err
	}
	if t.claims.Issuer != i.rule.Issuer {
		return Account{}, ErrForeign
	}
	if t.header.Critical != nil {
		return Account{}, errors.New("the token has critical extensions")
	}
	if err := i.checkSignature(ctx, t); err != nil {
		return Account{}, err
	}
	now := float64(i.now().Unix())
	switch c := t.claims; {
	case c.Expires == nil:
		return Account{}, errors.New("the token has no end")
	case now >= *c.Expires+leeway.Seconds():
		return Account{}, errors.New("the token has expired")
	case now < c.NotBefore-leeway.Seconds():
		return Account{}, errors.New("the token is not good yet")
	case !slices.ContainsFunc(c.Audience, func(a string) bool { return slices.Contains(i.rule.Audiences, a) }):
		return Account{}, fmt.Errorf("the token is for %.200q, not for %q", c.Audience, i.rule.Audiences)
	}
	return ParseAccount(t.claims.Subject)
}

// checkSignature tries the keys that the token may mean.
func (i *issuer) checkSignature(ctx context.Context, t *parsedToken) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, late := range []bool{false, true} {
		if err := i.fetch(ctx, late); err != nil {
			return err
		}
		for _, k := range i.keys {
			if (t.header.KeyID == "" || k.id == "" || k.id == t.header.KeyID) && signedBy(k.public, t) {
				return nil
			}
		}
	}
	return errors.New("the token is signed by none of the issuer's keys")
}

// hashes are those of the algorithms by the end of their names (RFC 7518, 3.1).
func hashOf(algorithm string) crypto.Hash {
	switch {
	case strings.HasSuffix(algorithm, "256"):
		return crypto.SHA256
	case strings.HasSuffix(algorithm, "384"):
		return crypto.SHA384
	case strings.HasSuffix(algorithm, "512"):
		return crypto.SHA512
	}
	return 0
}

func signedBy(public crypto.PublicKey, t *parsedToken) bool {
	h := hashOf(t.header.Algorithm)
	if h == 0 || len(t.header.Algorithm) != 5 {
		return false
	}
	sum := h.New()
	sum.Write(t.signed)
	digest := sum.Sum(nil)
	switch kind := t.header.Algorithm[:2]; k := public.(type) {
	case *rsa.PublicKey:
		return kind == "RS" && rsa.VerifyPKCS1v15(k, h, digest, t.signature) == nil ||
			kind == "PS" && rsa.VerifyPSS(k, h, digest, t.signature, nil) == nil
	case *ecdsa.PublicKey:
		size := (k.Curve.Params().BitSize + 7) / 8
		if kind != "ES" || len(t.signature) != 2*size || h.Size() != size { // P-256 and P-384 only: their hashes are of their size
			return false
		}
		r, s := new(big.Int).SetBytes(t.signature[:size]), new(big.Int).SetBytes(t.signature[size:])
		return ecdsa.Verify(k, digest, r, s)
	}
	return false
}

// fetch gets the keys if they are old; late: if they are not quite new. i.mu is held.
func (i *issuer) fetch(ctx context.Context, late bool) error {
	age := i.now().Sub(i.fetched)
	if i.rule.JWKS != "" || len(i.keys) > 0 && age < keysKept && (!late || age < keysAgain) {
		return nil
	}
	if len(i.keys) == 0 && age < keysAgain && !i.fetched.IsZero() {
		return fmt.Errorf("%w: keys of %s", ErrAway, i.rule.Issuer)
	}
	i.fetched = i.now()
	from := i.rule.JWKSURI
	if from == "" {
		var discovery struct {
			JWKSURI string `json:"jwks_uri"`
		}
		text, err := i.get(ctx, strings.TrimSuffix(i.rule.Issuer, "/")+"/.well-known/openid-configuration")
		if err == nil {
			err = json.Unmarshal(text, &discovery)
		}
		if err != nil {
			return i.withOld(err)
		}
		from = discovery.JWKSURI
	}
	text, err := i.get(ctx, from)
	if err != nil {
		return i.withOld(err)
	}
	keys, err := parseKeys(text)
	if err != nil {
		return i.withOld(err)
	}
	i.keys = keys
	return nil
}

// withOld has keys that were fetched before do while there are no new ones.
func (i *issuer) withOld(err error) error {
	if len(i.keys) > 0 {
		return nil
	}
	return fmt.Errorf("%w: keys of %s: %w", ErrAway, i.rule.Issuer, err)
}

func (i *issuer) get(ctx context.Context, from string) ([]byte, error) {
	if u, err := url.Parse(from); err != nil || u.Scheme != "https" {
		return nil, fmt.Errorf("keys come over https only, not from %q", from)
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, err
	}
	answer, err := i.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxKeys+1))
	switch {
	case err != nil:
		return nil, err
	case answer.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s answers %s", from, answer.Status)
	case len(text) > maxKeys:
		return nil, fmt.Errorf("%s has more than %d bytes", from, maxKeys)
	}
	return text, nil
}
