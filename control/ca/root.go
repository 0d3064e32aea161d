package ca

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"time"
)

// rootLife is how long a root is good, as the original has it.
const rootLife = 10 * 365 * 24 * time.Hour

// A RootOptions says what root is made.
type RootOptions struct {
	TrustDomain string        // which the root's subject names
	Life        time.Duration // 0 is ten years
	RSABits     int           // of an RSA key; 0 is an ECDSA key of P-256
	Now         time.Time
}

// NewRoot makes a root that signs by itself.
func NewRoot(o RootOptions) (Files, error) {
	key, err := newKey(o.RSABits)
	if err != nil {
		return nil, err
	}
	number, err := serial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: number, Subject: pkix.Name{Organization: []string{o.TrustDomain}},
		NotBefore: o.Now.Add(-Skew), NotAfter: o.Now.Add(cmp.Or(o.Life, rootLife)),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return Files{CertFile: encode(raw), KeyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}), RootFile: encode(raw)}, nil
}

func newKey(bits int) (crypto.Signer, error) {
	switch {
	case bits == 0:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case bits < minRSA || bits > maxRSA:
		return nil, fmt.Errorf("an RSA key of %d bits: %d to %d are possible", bits, minRSA, maxRSA)
	}
	return rsa.GenerateKey(rand.Reader, bits)
}
