package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// maxJWKS bounds the keys of one issuer that are kept.
const maxJWKS = 100

// jwk is one key of a JWKS (RFC 7517; its members RFC 7518, 6.2 and 6.3).
type jwk struct {
	Type  string `json:"kty"`
	ID    string `json:"kid"`
	Use   string `json:"use"`
	N     string `json:"n"`
	E     string `json:"e"`
	Curve string `json:"crv"`
	X     string `json:"x"`
	Y     string `json:"y"`
}

// parseKeys reads a JWKS; keys that cannot verify a token here are left out.
func parseKeys(text []byte) ([]key, error) {
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil {
		return nil, err
	}
	var all []key
	var wrong error
	for n, k := range set.Keys {
		if k.Use != "" && k.Use != "sig" || len(all) == maxJWKS {
			continue
		}
		public, err := k.public()
		if err == nil {
			err = checkKey(public)
		}
		if err != nil {
			wrong = fmt.Errorf("keys[%d]: %w", n, err)
			continue
		}
		all = append(all, key{k.ID, public})
	}
	if len(all) == 0 {
		if wrong == nil {
			wrong = errors.New("there are none that sign")
		}
		return nil, wrong
	}
	return all, nil
}

func (k jwk) public() (crypto.PublicKey, error) {
	switch k.Type {
	case "RSA":
		n, e, err := integers(k.N, k.E)
		if err != nil || !e.IsInt64() || e.Int64() > 1<<31-1 {
			return nil, errors.New("n or e is no number of an RSA key")
		}
		return &rsa.PublicKey{N: n, E: int(e.Int64())}, nil
	case "EC":
		x, xErr := base64.RawURLEncoding.DecodeString(k.X)
		y, yErr := base64.RawURLEncoding.DecodeString(k.Y)
		curve := curveOf(k.Curve)
		if curve == nil || errors.Join(xErr, yErr) != nil {
			return nil, errors.New("crv, x or y is not of a key of P-256 or P-384")
		}
		// A point that is not on the curve is an error.
		return ecdsa.ParseUncompressedPublicKey(curve, append(append([]byte{4}, x...), y...))
	}
	return nil, fmt.Errorf("kty %.20q: RSA and EC are possible", k.Type)
}

func curveOf(name string) elliptic.Curve {
	switch name {
	case "P-256":
		return elliptic.P256()
	case "P-384":
		return elliptic.P384()
	}
	return nil
}

func integers(a, b string) (*big.Int, *big.Int, error) {
	first, err := base64.RawURLEncoding.DecodeString(a)
	if err != nil {
		return nil, nil, err
	}
	second, err := base64.RawURLEncoding.DecodeString(b)
	return new(big.Int).SetBytes(first), new(big.Int).SetBytes(second), err
}
