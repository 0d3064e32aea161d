package pki_test

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/clientcmd"

	"github.com/lateen-mesh/lateen/local/apiserver/pki"
)

var names = []string{"localhost", "127.0.0.1", "10.96.0.1"}

func open(t *testing.T, dir string, names ...string) *pki.Keys {
	t.Helper()
	keys, err := pki.Open(dir, names)
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

func TestKeysStay(t *testing.T) {
	dir := t.TempDir()
	first, second := open(t, dir, names...), open(t, dir, names...)
	for what, same := range map[string]bool{
		"authority":      string(first.AuthorityPEM) == string(second.AuthorityPEM),
		"server":         first.Server.Leaf.Equal(second.Server.Leaf),
		"administrator":  first.Administrator.Leaf.Equal(second.Administrator.Leaf),
		"serviceaccount": first.ServiceAccount.Equal(second.ServiceAccount),
	} {
		if !same {
			t.Errorf("%s: another one after the second Open", what)
		}
	}
	for _, leaf := range []*x509.Certificate{first.Server.Leaf, first.Administrator.Leaf} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: first.Authority, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
			t.Error(err)
		}
	}
	for _, name := range names {
		if err := first.Server.Leaf.VerifyHostname(name); err != nil {
			t.Error(err)
		}
	}
}

func TestCertificatesAreRenewed(t *testing.T) {
	dir := t.TempDir()
	first := open(t, dir, names...)
	more := open(t, dir, append(names, "10.244.0.1")...)
	if err := more.Server.Leaf.VerifyHostname("10.244.0.1"); err != nil {
		t.Error("a new name is missing: ", err)
	}
	if string(more.AuthorityPEM) != string(first.AuthorityPEM) || !more.Administrator.Leaf.Equal(first.Administrator.Leaf) {
		t.Error("a new name of the server changed more than the server's certificate")
	}
	synctest.Test(t, func(t *testing.T) { // its clock begins in 2000: long before the certificates made above
		early := open(t, dir, names...)
		if now := time.Now(); now.Before(early.Server.Leaf.NotBefore) {
			t.Errorf("not valid before %v, and it is %v", early.Server.Leaf.NotBefore, now)
		}
		time.Sleep(350 * 24 * time.Hour)
		late := open(t, dir, names...)
		if left := time.Until(late.Server.Leaf.NotAfter); left < 300*24*time.Hour {
			t.Errorf("valid for %v more", left)
		}
	})
}

func TestDamage(t *testing.T) {
	for _, c := range []struct{ name, file, text, want string }{
		{"an authority that is no certificate", "ca.crt", "junk", "ca.crt: holds no CERTIFICATE"},
		{"an authority's key that is none", "ca.key", "junk", "ca.key: holds no PRIVATE KEY"},
		{"a damaged certificate of the server is made anew", "server.crt", "junk", ""},
		{"a damaged certificate of the administrator is made anew", "admin.crt", "junk", ""},
		{"a key of service accounts that is none", "sa.key", "junk", "sa.key: holds no PRIVATE KEY"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir, names...)
			if err := os.WriteFile(filepath.Join(dir, c.file), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := pki.Open(dir, names)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

func TestAnotherAuthoritysKey(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	open(t, dir, names...)
	open(t, other, names...)
	key, err := os.ReadFile(filepath.Join(other, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pki.Open(dir, names); err == nil || !strings.Contains(err.Error(), "does not belong to ca.key") {
		t.Errorf("%v", err)
	}
}

func TestKubeconfig(t *testing.T) {
	dir := t.TempDir()
	keys, path := open(t, dir, names...), filepath.Join(dir, "kubeconfig")
	for range 2 { // the second replaces the first
		if err := keys.WriteKubeconfig(path, "127.0.0.1:6443"); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if config.CurrentContext != pki.Context || config.Clusters[pki.Context].Server != "https://127.0.0.1:6443" {
		t.Errorf("context %s of %+v", config.CurrentContext, config.Clusters)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
