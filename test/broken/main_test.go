package broken

import (
	"flag"
	"os"
	"testing"

	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if code, done := fixture.Isolate(); done {
		os.Exit(code)
	}
	code := m.Run()
	build.Remove()
	os.Exit(code)
}
