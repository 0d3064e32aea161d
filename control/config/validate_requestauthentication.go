package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	security "istio.io/api/security/v1beta1"
)

func validateRequestAuthentication(p place, o *Config) {
	a := o.Spec.(*security.RequestAuthentication)
	p.attachment(a)
	for i, r := range a.JwtRules {
		validateJWTRule(p.at("jwtRules", i), r)
	}
}

func validateJWTRule(p place, r *security.JWTRule) {
	p.notBlank("issuer")
	if r.Issuer == "" && r.JwksUri == "" {
		p.field("issuer").add(Error, "or give jwksUri", "required")
	}
	if r.JwksUri != "" {
		p.field("jwksUri").longest(r.JwksUri, 2048)
		p.field("jwksUri").wrong(keysURI(r.JwksUri))
	}
	if r.Jwks != "" {
		p.field("jwks").wrong(keySet(r.Jwks))
		if r.JwksUri != "" {
			p.field("jwks").errorf("cannot be set together with jwksUri")
		}
	}
	p.field("audiences").notEmpty(r.Audiences)
	p.field("fromParams").notEmpty(r.FromParams)
	p.field("fromCookies").notEmpty(r.FromCookies)
	p.field("spaceDelimitedClaims").notEmpty(r.SpaceDelimitedClaims)
	for i, h := range r.FromHeaders {
		p.at("fromHeaders", i).field("name").required(h.Name)
	}
	for i, c := range r.OutputClaimToHeaders {
		at := p.at("outputClaimToHeaders", i)
		at.field("claim").required(c.Claim)
		at.field("header").required(c.Header)
		if c.Header != "" && !probeHeader.MatchString(c.Header) {
			at.field("header").errorf("%q is not a header name: letters, digits, - and _ are allowed", shorten(c.Header))
		}
	}
	p.field("timeout").wrong(positive(r.Timeout))
}

// keysURI checks from where keys are fetched.
func keysURI(s string) error {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%q is not a URL of http or https", shorten(s))
	}
	if number := u.Port(); number != "" && numericPort(number) != nil {
		return fmt.Errorf("%q has no valid port", shorten(s))
	}
	return nil
}

// keySet checks a JSON Web Key Set, or a single key, as RFC 7517 has them.
func keySet(text string) error {
	type key struct {
		Type               string `json:"kty"`
		N, E, Crv, X, Y, K string
	}
	var set struct {
		key
		Keys *[]key
	}
	if err := json.Unmarshal([]byte(text), &set); err != nil {
		return fmt.Errorf("is not a JSON Web Key Set: %w", err)
	}
	keys := []key{set.key}
	if set.Keys != nil {
		keys = *set.Keys
	} else if set.Type == "" {
		return errors.New("is not a JSON Web Key Set: it has no keys")
	}
	required := map[string]func(key) bool{
		"RSA": func(k key) bool { return k.N != "" && k.E != "" },
		"EC":  func(k key) bool { return k.Crv != "" && k.X != "" && k.Y != "" },
		"OKP": func(k key) bool { return k.Crv != "" && k.X != "" },
		"oct": func(k key) bool { return k.K != "" },
	}
	for i, k := range keys {
		whole, known := required[k.Type]
		if !known {
			return fmt.Errorf("key %d has the unknown type %q", i, shorten(k.Type))
		}
		if !whole(k) {
			return fmt.Errorf("key %d of type %s is not complete", i, k.Type)
		}
	}
	return nil
}
