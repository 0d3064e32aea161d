// Package pki holds the keys of one mesh's Kubernetes API: its certificate
// authority, the server's certificate, the administrator's certificate and the
// key that signs tokens of service accounts.
//
// Open reads them from a directory and makes what is missing, so that a
// kubeconfig handed out once keeps working after a restart. Certificates that run
// out soon, are not valid yet (the clock went back) or lack a wanted name are made
// anew from the same authority; only a damaged authority is an error, because
// replacing it would lock out everybody who trusts it.
//
// Every file is readable by its owner only. WriteKubeconfig writes the file that
// kubectl reads.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

const (
	authorityLifetime = 10 * 365 * 24 * time.Hour
	leafLifetime      = 365 * 24 * time.Hour
	renewBefore       = 30 * 24 * time.Hour
	// backdate lets certificates survive a clock that is set back.
	backdate = 5 * 365 * 24 * time.Hour
)

// Keys are the keys and certificates of one API. They do not change after Open.
type Keys struct {
	// AuthorityPEM is the certificate that clients trust; Authority the same, as a pool.
	AuthorityPEM []byte
	Authority    *x509.CertPool
	// Server is what the TLS port shows.
	Server tls.Certificate
	// Administrator is the client certificate of kubernetes-admin in system:masters.
	Administrator tls.Certificate
	// ServiceAccount signs and verifies tokens of service accounts.
	ServiceAccount *ecdsa.PrivateKey
}

// An authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         crypto.Signer
}

// Open reads the keys in dir and makes what is missing there. names are the host
// names and IP addresses under which clients reach the server.
func Open(dir string, names []string) (*Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	ca, err := openAuthority(dir)
	if err != nil {
		return nil, fmt.Errorf("keys: certificate authority: %w", err)
	}
	k := &Keys{Authority: x509.NewCertPool(), AuthorityPEM: encode("CERTIFICATE", ca.certificate.Raw)}
	k.Authority.AddCert(ca.certificate)

	server := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			server.IPAddresses = append(server.IPAddresses, ip)
		} else {
			server.DNSNames = append(server.DNSNames, name)
		}
	}
	if k.Server, err = openLeaf(dir, "server", ca, server); err != nil {
		return nil, fmt.Errorf("keys: server certificate: %w", err)
	}
	administrator := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kubernetes-admin", Organization: []string{"system:masters"}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if k.Administrator, err = openLeaf(dir, "admin", ca, administrator); err != nil {
		return nil, fmt.Errorf("keys: administrator's certificate: %w", err)
	}
	if k.ServiceAccount, err = openKey(filepath.Join(dir, "sa.key")); err != nil {
		return nil, fmt.Errorf("keys: service accounts: %w", err)
	}
	return k, nil
}

func openAuthority(dir string) (*authority, error) {
	path := filepath.Join(dir, "ca.crt")
	der, err := readPEM(path, "CERTIFICATE")
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, err
	}
	key, err := openKey(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, err
	}
	if missing {
		return newAuthority(path, key)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !key.PublicKey.Equal(certificate.PublicKey) {
		return nil, fmt.Errorf("%s: does not belong to ca.key", path)
	}
	return &authority{certificate, key}, nil
}

func newAuthority(path string, key crypto.Signer) (*authority, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "lateen-kubernetes-ca"},
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	certificate, err := sign(template, authorityLifetime, key.Public(), &authority{template, key})
	if err != nil {
		return nil, err
	}
	return &authority{certificate, key}, writeFile(path, encode("CERTIFICATE", certificate.Raw))
}

// openLeaf reads name.crt and name.key, or makes a certificate as the template says.
func openLeaf(dir, name string, ca *authority, template *x509.Certificate) (tls.Certificate, error) {
	template.KeyUsage = x509.KeyUsageDigitalSignature
	path := filepath.Join(dir, name+".crt")
	key, err := openKey(filepath.Join(dir, name+".key"))
	if err != nil {
		return tls.Certificate{}, err
	}
	if der, err := readPEM(path, "CERTIFICATE"); err == nil {
		if leaf, err := x509.ParseCertificate(der); err == nil && serves(leaf, template, key, ca) {
			return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
		}
	}
	leaf, err := sign(template, leafLifetime, key.Public(), ca)
	if err != nil {
		return tls.Certificate{}, err
	}
	made := tls.Certificate{Certificate: [][]byte{leaf.Raw}, PrivateKey: key, Leaf: leaf}
	return made, writeFile(path, encode("CERTIFICATE", leaf.Raw))
}

// serves reports whether a stored certificate can still be used in place of a new one.
func serves(leaf, want *x509.Certificate, key *ecdsa.PrivateKey, ca *authority) bool {
	now := time.Now()
	return leaf.CheckSignatureFrom(ca.certificate) == nil && key.PublicKey.Equal(leaf.PublicKey) &&
		now.After(leaf.NotBefore) && now.Add(renewBefore).Before(leaf.NotAfter) &&
		slices.Equal(leaf.DNSNames, want.DNSNames) &&
		slices.EqualFunc(leaf.IPAddresses, want.IPAddresses, net.IP.Equal)
}

func sign(template *x509.Certificate, lifetime time.Duration, public crypto.PublicKey, ca *authority) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	template.NotBefore = time.Now().Add(-backdate)
	template.NotAfter = time.Now().Add(lifetime)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.certificate, public, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// openKey reads a key, or makes one where there is none.
func openKey(path string) (*ecdsa.PrivateKey, error) {
	der, err := readPEM(path, "PRIVATE KEY")
	if errors.Is(err, fs.ErrNotExist) {
		return newKey(path)
	}
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s: want an ECDSA key, got %T", path, parsed)
	}
	return key, nil
}

func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(path, encode("PRIVATE KEY", der))
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

func readPEM(path, kind string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: holds no %s", path, kind)
	}
	return block.Bytes, nil
}

// writeFile replaces path at once, so that no reader sees a half of it.
func writeFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(content); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
