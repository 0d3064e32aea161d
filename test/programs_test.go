// Package test runs whole meshes over real sockets, with our halves and with
// foreign ones, and reads the README's tour to the machine.
package test

import (
	"flag"
	"os"
	"runtime"
	"strconv"
	"testing"

	"github.com/lateen-mesh/lateen/test/build"
	"github.com/lateen-mesh/lateen/test/fixture"
)

var engineFlag = flag.String("engine", "standalone", "what the scenarios replay on: standalone or kubernetes")

func engine() string { return *engineFlag }

func TestMain(m *testing.M) {
	flag.Parse()
	if f := flag.Lookup("test.parallel"); f.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = f.Value.Set("4") // cases wait, for time limits and for programs, more than they work
	}
	if code, done := fixture.Isolate(); done {
		os.Exit(code)
	}
	code := m.Run()
	build.Remove()
	os.Exit(code)
}

// binary is the path of one of our programs.
func binary(t testing.TB, name string) string { return build.Command(t, name) }

func programs(t testing.TB) fixture.Programs {
	return fixture.Programs{Istiod: []string{binary(t, "istiod")}}
}

func ours(t testing.TB) fixture.Peer {
	return fixture.Peer{Name: "lateen", Argv: []string{binary(t, "lateen-proxy")}}
}
