// Package foreign runs our proxy under control planes that are not ours: servers that
// replay what the original's has sent, word for word.
package foreign

import (
	"crypto/tls"
	"net"
	"os"
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

// tlsListener is a listener that shows a certificate.
func tlsListener(ln net.Listener, cert tls.Certificate) net.Listener {
	return tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
}
