package jwt

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/fips140"
	"crypto/hmac"
	"crypto/rsa"
	_ "crypto/sha256" // hashes that crypto.Hash finds
	_ "crypto/sha512"
	"math/big"
	"strings"
)

// Verify checks the token's signature with the keys that its kid and alg allow, one after the
// other until one fits. The kind of the key decides how: what a token says of itself never
// makes a secret of a public key.
func (k *Keys) Verify(t *Token) Status {
	status := NoKeyMatches
	for i := range k.list {
		one := &k.list[i]
		if t.KeyID != "" && one.id != "" && one.id != t.KeyID || one.algorithm != "" && one.algorithm != t.Algorithm {
			continue
		}
		switch said := one.verify(t); said {
		case OK, SignatureLength:
			return said
		default:
			status = said
		}
	}
	return status
}

// hash is that of the token's algorithm if it is of one of the families, else SHA-256.
func (t *Token) hash(families ...string) crypto.Hash {
	for _, family := range families {
		switch strings.TrimPrefix(t.Algorithm, family) {
		case "384":
			return crypto.SHA384
		case "512":
			return crypto.SHA512
		}
	}
	return crypto.SHA256
}

func (t *Token) digest(h crypto.Hash) []byte {
	sum := h.New()
	sum.Write([]byte(t.signed))
	return sum.Sum(nil)
}

func statusOf(good bool) Status {
	if good {
		return OK
	}
	return VerificationFails
}

type rsaKey struct{ *rsa.PublicKey }

func (k rsaKey) verify(t *Token) Status {
	h := t.hash("RS", "PS")
	switch t.Algorithm[:2] {
	case "RS":
		return statusOf(rsa.VerifyPKCS1v15(k.PublicKey, h, t.digest(h), t.signature) == nil)
	case "PS":
		return statusOf(rsa.VerifyPSS(k.PublicKey, h, t.digest(h), t.signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil)
	}
	return VerificationFails
}

type ecKey struct{ *ecdsa.PublicKey }

// verify takes the two halves of the signature for r and s, however long they are.
func (k ecKey) verify(t *Token) Status {
	half := len(t.signature) / 2
	r, s := new(big.Int).SetBytes(t.signature[:half]), new(big.Int).SetBytes(t.signature[half:2*half])
	return statusOf(ecdsa.Verify(k.PublicKey, t.digest(t.hash("ES")), r, s))
}

type secretKey []byte

// leastSecret is how long keys of HMAC are at least where FIPS 140-3 is enforced, in bytes (NIST
// SP 800-131A).
const leastSecret = 112 / 8

func (k secretKey) verify(t *Token) Status {
	if fips140.Enforced() && len(k) < leastSecret {
		return VerificationFails // HMAC would panic
	}
	sum := hmac.New(t.hash("HS").New, k)
	sum.Write([]byte(t.signed))
	return statusOf(hmac.Equal(sum.Sum(nil), t.signature))
}

type edwardsKey ed25519.PublicKey

func (k edwardsKey) verify(t *Token) Status {
	if len(t.signature) != ed25519.SignatureSize {
		return SignatureLength
	}
	return statusOf(ed25519.Verify(ed25519.PublicKey(k), []byte(t.signed), t.signature))
}
