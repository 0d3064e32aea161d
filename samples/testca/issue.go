package testca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// Issue signs a certificate for the given DNS names or IP addresses, good for
// servers and clients; the chain and key are PEM.
func (c *CA) Issue(names ...string) (certPEM, keyPEM []byte, err error) {
	return c.IssueUntil(c.cert.NotAfter, names...)
}

// IssueUntil is Issue of a certificate that ends at a time, and began a day before that if
// it has ended.
func (c *CA) IssueUntil(end time.Time, names ...string) (certPEM, keyPEM []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate key: %w", err)
	}
	return c.issue(key, end, names)
}

// IssueRSA is Issue with an RSA key.
func (c *CA) IssueRSA(names ...string) (certPEM, keyPEM []byte, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate key: %w", err)
	}
	return c.issue(key, c.cert.NotAfter, names)
}

func (c *CA) issue(key crypto.Signer, end time.Time, names []string) (certPEM, keyPEM []byte, err error) {
	begin := time.Now().Add(-time.Hour)
	if end.Before(begin) {
		begin = end.Add(-24 * time.Hour)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: names[0]}, NotBefore: begin, NotAfter: end,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if err := addName(template, name); err != nil {
			return nil, nil, err
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, key.Public(), c.key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate for %v: %w", names, err)
	}
	return c.encode(der, key)
}

// encode is a chain that ends with the root, and the key, in PEM.
func (c *CA) encode(der []byte, key crypto.Signer) (certPEM, keyPEM []byte, err error) {
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("key: %w", err)
	}
	certPEM = append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), c.pem...)
	return certPEM, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}), nil
}

// A bareCertificate is one of X.509 version 1 (RFC 5280, 4.1): the version is its default and
// there are no extensions.
type bareCertificate struct {
	Serial    *big.Int
	Algorithm pkix.AlgorithmIdentifier
	Issuer    asn1.RawValue
	Validity  struct{ Begin, End time.Time }
	Subject   pkix.RDNSequence
	Key       asn1.RawValue
}

var ecdsaWithSHA256 = pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}}

// IssueBare signs a certificate as "openssl req" and "openssl x509 -req" make it without more
// being said: of version 1, with serial number 0, the name nowhere but in the subject.
func (c *CA) IssueBare(name string) (certPEM, keyPEM []byte, err error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate key: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, nil, fmt.Errorf("certificate key: %w", err)
	}
	bare := bareCertificate{
		Serial: big.NewInt(0), Algorithm: ecdsaWithSHA256, Issuer: asn1.RawValue{FullBytes: c.cert.RawSubject},
		Subject: pkix.Name{CommonName: name}.ToRDNSequence(), Key: asn1.RawValue{FullBytes: public},
	}
	bare.Validity.Begin, bare.Validity.End = time.Now().Add(-time.Hour).UTC(), c.cert.NotAfter
	signed, err := asn1.Marshal(bare)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate for %s: %w", name, err)
	}
	sum := sha256.Sum256(signed)
	signature, err := c.key.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate for %s: %w", name, err)
	}
	der, err := asn1.Marshal(struct {
		Signed    asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: signed}, ecdsaWithSHA256, asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})
	if err != nil {
		return nil, nil, fmt.Errorf("certificate for %s: %w", name, err)
	}
	return c.encode(der, key)
}

// Revoke lists certificates, by their serial numbers, that the authority takes back: a CRL in PEM.
func (c *CA) Revoke(serials ...*big.Int) ([]byte, error) {
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-time.Hour), NextUpdate: c.cert.NotAfter}
	for _, n := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: list.ThisUpdate})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("revocation list: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}), nil
}
