// Package foreign runs our proxy under control planes that are not ours: servers that
// replay what the original's has sent, word for word.
package foreign

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
)

func TestMain(m *testing.M) {
	if code, done := fixture.Isolate(); done {
		os.Exit(code)
	}
	code := m.Run()
	build.Remove()
	os.Exit(code)
}

// binary is the path of one of our programs.
func binary(t testing.TB, name string) string { return build.Command(t, name) }

// shared is a path of the acceptance material; the test is skipped without it.
func shared(t *testing.T, path string) string {
	t.Helper()
	if root := os.Getenv("LATEEN_SHARED"); root != "" {
		return filepath.Join(root, path)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		root := filepath.Join(filepath.Dir(dir), "shared")
		if _, err := os.Stat(filepath.Join(root, "golden")); err == nil {
			return filepath.Join(root, path)
		}
	}
	t.Skip("shared acceptance material not present: " + path)
	return ""
}

// tlsListener is a listener that shows a certificate.
func tlsListener(ln net.Listener, cert tls.Certificate) net.Listener {
	return tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
}
