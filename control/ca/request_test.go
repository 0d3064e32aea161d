package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/pem"
	"strings"
	"testing"
)

type tlsCertificate = tls.Certificate

func TestParseRequest(t *testing.T) {
	good := csrFor(t, ecKey(t))
	block, _ := pem.Decode(good)
	forged := append([]byte{}, block.Bytes...)
	forged[len(forged)-1] ^= 1
	encoded := func(kind string, raw []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}))
	}
	weak := must[*rsa.PrivateKey](t)(rsa.GenerateKey(rand.Reader, 1024))
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	wide := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	of := func(k crypto.Signer) string { return string(csrFor(t, k)) }
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "no PEM block CERTIFICATE REQUEST"},
		{"a certificate", encoded("CERTIFICATE", block.Bytes), "no PEM block CERTIFICATE REQUEST"},
		{"two", string(good) + string(good), "something follows"},
		{"no ASN.1", encoded("CERTIFICATE REQUEST", []byte("x")), "the CSR: "},
		{"a forged signature", encoded("CERTIFICATE REQUEST", forged), "the signature of the CSR"},
		{"a short RSA key", of(weak), "an RSA key of 1024 bits"},
		{"Ed25519, which Envoy does not know", of(edwards), "a key of kind ed25519.PublicKey"},
		{"P-521", of(wide), "curve P-521"},
		{"one that is too long", strings.Repeat("x", maxRequest+1), "at most 16384 are read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if r, err := ParseRequest([]byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, %v; want %q", r, err, tt.want)
			}
		})
	}
	if _, err := ParseRequest([]byte(encoded("NEW CERTIFICATE REQUEST", block.Bytes))); err != nil {
		t.Error(err)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add(csrFor(f, ecKey(f)))
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nAA==\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if r, err := ParseRequest(text); err == nil && checkKey(r.key) != nil {
			t.Error("a key that cannot be")
		}
	})
}
