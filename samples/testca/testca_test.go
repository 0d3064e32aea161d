package testca

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"testing"
)

func TestOpenKeepsItsRootAndItsKeyPrivate(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if string(first.PEM()) != string(again.PEM()) {
		t.Error("the second Open made another root")
	}
	info, err := os.Stat(filepath.Join(dir, "testca.key"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("key file has mode %v, want 0600", info.Mode().Perm())
	}
}

func TestCertificateIsTrustedForItsNames(t *testing.T) {
	ca, err := New()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Certificate("edition.cnn.com", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	for name, ok := range map[string]bool{"edition.cnn.com": true, "127.0.0.1": true, "other.example": false} {
		_, err := pair.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: ca.Pool()})
		if (err == nil) != ok {
			t.Errorf("%s: verify says %v, want ok=%v", name, err, ok)
		}
	}
}

// What openssl makes by default has no names that Go takes; clients that know it by its
// common name do.
func TestBareCertificateHasNoExtensions(t *testing.T) {
	ca, err := New()
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.IssueBare("bookinfo.example.com")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := pair.Leaf
	if leaf.Version != 1 || leaf.SerialNumber.Sign() != 0 || len(leaf.Extensions) > 0 || leaf.Subject.CommonName != "bookinfo.example.com" {
		t.Errorf("version %d, serial %v, %d extensions, subject %v", leaf.Version, leaf.SerialNumber, len(leaf.Extensions), leaf.Subject)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: ca.Pool()}); err != nil {
		t.Error(err)
	}
}

func TestRevokeListsSerialsUnderTheRoot(t *testing.T) {
	ca, err := New()
	if err != nil {
		t.Fatal(err)
	}
	text, err := ca.Revoke(big.NewInt(7))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	list, err := x509.ParseRevocationList(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := list.CheckSignatureFrom(ca.cert); err != nil {
		t.Error(err)
	}
	if n := len(list.RevokedCertificateEntries); n != 1 || list.RevokedCertificateEntries[0].SerialNumber.Int64() != 7 {
		t.Errorf("%d entries", n)
	}
}
