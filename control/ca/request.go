package ca

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
)

// maxRequest bounds a CSR in PEM, in bytes; one with an RSA key of 8192 bits has 4 KiB.
const maxRequest = 16 << 10

// A Request is a CSR (RFC 2986) whose sender has proved that it has the private key.
type Request struct {
	key  crypto.PublicKey
	text []byte   // in PEM
	uris []string // that it asks for,
	more bool     // and whether for other names
}

// ParseRequest reads a CSR in PEM. Nothing of it is used but the public key, unless somebody else
// signs.
func ParseRequest(text []byte) (*Request, error) {
	if len(text) > maxRequest {
		return nil, fmt.Errorf("the CSR has %d bytes, at most %d are read", len(text), maxRequest)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST" {
		return nil, errors.New("the CSR is no PEM block CERTIFICATE REQUEST")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("something follows the CSR")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the CSR: %w", err)
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("the CSR is for %w", err)
	}
	switch csr.SignatureAlgorithm {
	case x509.SHA1WithRSA, x509.ECDSAWithSHA1:
		return nil, errors.New("the CSR is signed with SHA-1")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("the signature of the CSR: %w", err)
	}
	r := &Request{key: csr.PublicKey, text: text, more: len(csr.DNSNames)+len(csr.EmailAddresses)+len(csr.IPAddresses)+len(csr.Subject.Names) > 0}
	for _, e := range csr.Extensions {
		r.more = r.more || !e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, 17}) // subject alternative names
	}
	for _, u := range csr.URIs {
		r.uris = append(r.uris, u.String())
	}
	return r, nil
}
