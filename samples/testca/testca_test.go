package testca

import (
	"crypto/x509"
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
