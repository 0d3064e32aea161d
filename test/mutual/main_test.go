// Package mutual runs pods with our proxy, with a real Envoy and without a proxy under our
// control plane: who speaks mutual TLS to whom, in every mode of PeerAuthentication.
package mutual

import (
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
)

func TestMain(m *testing.M) {
	if code, done := fixture.Isolate(); done {
		os.Exit(code)
	}
	code := m.Run()
	build.Remove()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			code = 1
		}
	}
	os.Exit(code)
}
