// Package testca is a certificate authority for examples and tests: it is made on
// first use in a folder of the caller's and signs certificates for stand-ins of
// public sites. It protects nothing and must not be trusted outside of them.
package testca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lifetime is that of the authority and of every certificate it signs.
const lifetime = 30 * 24 * time.Hour

// A CA signs certificates with one root.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

// New makes a root that lives in memory only.
func New() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("test CA key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Lateen test CA"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("test CA certificate: %w", err)
	}
	return parse(der, key)
}

// Open returns the root kept in dir, made there on first use: testca.crt, and
// testca.key which only its owner can read. A root that has run out is made anew.
func Open(dir string) (*CA, error) {
	crt, key := filepath.Join(dir, "testca.crt"), filepath.Join(dir, "testca.key")
	pair, err := tls.LoadX509KeyPair(crt, key)
	if err == nil && time.Now().Add(24*time.Hour).Before(pair.Leaf.NotAfter) {
		k, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("%s: not an ECDSA key; remove it and %s to have a new test CA made", key, crt)
		}
		return parse(pair.Certificate[0], k)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("test CA in %s: %w", dir, err)
	}
	ca, err := New()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		return nil, fmt.Errorf("test CA key: %w", err)
	}
	if err := os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		return nil, err
	}
	return ca, os.WriteFile(crt, ca.pem, 0o644) //nolint:gosec // a certificate is public
}

// PEM is the root certificate, for clients that are told to trust it.
func (c *CA) PEM() []byte { return c.pem }

// Pool trusts this root only.
func (c *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(c.cert)
	return pool
}

// addName adds a name of the kind that it looks like: an address, a URI, an email address,
// else a host.
func addName(c *x509.Certificate, name string) error {
	switch {
	case net.ParseIP(name) != nil:
		c.IPAddresses = append(c.IPAddresses, net.ParseIP(name))
	case strings.Contains(name, "://"):
		u, err := url.Parse(name)
		if err != nil {
			return fmt.Errorf("certificate: %w", err)
		}
		c.URIs = append(c.URIs, u)
	case strings.Contains(name, "@"):
		c.EmailAddresses = append(c.EmailAddresses, name)
	default:
		c.DNSNames = append(c.DNSNames, name)
	}
	return nil
}

// Certificate is Issue for a server in this process.
func (c *CA) Certificate(names ...string) (tls.Certificate, error) {
	cert, key, err := c.Issue(names...)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(cert, key)
}

func parse(der []byte, key *ecdsa.PrivateKey) (*CA, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("test CA certificate: %w", err)
	}
	return &CA{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic(err) // crypto/rand does not fail on the systems we run on
	}
	return n
}
