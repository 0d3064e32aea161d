package mixed

import (
	"flag"
	"os"
	"testing"

	"github.com/lateen-mesh/lateen/test/build"
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	build.Remove()
	os.Exit(code)
}
