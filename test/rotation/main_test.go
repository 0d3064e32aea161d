// Package rotation holds a mesh that speaks mutual TLS under load while its certificates are
// renewed, its root is replaced, its authority is away and clocks are apart: pods with our agent,
// our proxy or a real Envoy, and our control plane.
package rotation

import (
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
)

var (
	roots        = flag.Int("roots", 1, "how often TestRotation replaces the root; 5 with -certificates 100 takes minutes")
	certificates = flag.Int("certificates", 5, "how often each workload's certificate is renewed meanwhile, at least")
	rate         = flag.Int("rate", 300, "requests a second")
	away         = flag.Bool("away", false, "TestAway has the authority away for a certificate's life less the margin")
)

const (
	// life is that of certificates, and renewal the time after which agents renew them: the rest is
	// what a busy machine may take for it.
	life    = time.Minute
	renewal = 1200 * time.Millisecond
	// margin is by how much less than a certificate's life the authority may be away: one is renewal
	// old when it goes, and agents try again every 10 s at the latest when it is back.
	margin = 15 * time.Second
)

func TestMain(m *testing.M) {
	if code, done := fixture.Isolate(); done {
		os.Exit(code)
	}
	flag.Parse()
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
