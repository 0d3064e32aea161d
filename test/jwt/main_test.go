package jwt

import (
	"flag"
	"os"
	"testing"

	"github.com/lateen-mesh/lateen/test/build"
)

// How many requests TestSameAsEnvoy makes, and what it begins from.
var (
	requests = flag.Int("requests", 4000, "requests to compare")
	seed     = flag.Uint64("seed", 0, "seed of the requests, 0: another one each time")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	build.Remove()
	os.Exit(code)
}
