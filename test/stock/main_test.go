// Package stock runs the real Envoy, as it is released, under our control plane: with the
// nodes and the bootstrap of a mesh's proxies, by ADS in both of its forms, on everything
// that users are known to write.
package stock

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/lateen-mesh/lateen/test/fixture"
)

// both has every node take everything in both forms of ADS; without it the forms alternate
// from node to node, and files are left out that say nothing to the proxy or the same as others.
var both = flag.Bool("both", false, "every configuration in both forms of ADS")

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("8") // tours wait, for files to be seen, more than they work
	}
	if code, done := fixture.Isolate(); done {
		os.Exit(code)
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			code = 1
		}
	}
	os.Exit(code)
}

// envoyPath is the real Envoy; the test is skipped without it.
func envoyPath(t *testing.T) string {
	t.Helper()
	path := fixture.EnvoyPath()
	if path == "" {
		t.Skip("the real Envoy is not installed: run `make peers`")
	}
	return path
}
