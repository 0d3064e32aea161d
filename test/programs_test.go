// Package test runs whole meshes over real sockets, with our halves and with
// foreign ones, and reads the README's tour to the machine.
package test

import (
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/lateen-mesh/lateen/test/fixture"
)

var engineFlag = flag.String("engine", "standalone", "what the scenarios replay on: standalone or kubernetes")

func engine() string { return *engineFlag }

// built is the folder with our binaries, made once for all tests of this package.
var built struct {
	once sync.Once
	dir  string
	err  error
}

func TestMain(m *testing.M) {
	flag.Parse()
	if code, done := fixture.Isolate(); done {
		os.Exit(code)
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// binary builds our commands and returns the path of one. The sources are read
// before: a cached result depends on every file that the test has opened.
func binary(t testing.TB, name string) string {
	t.Helper()
	built.once.Do(func() { built.dir, built.err = buildAll() })
	if built.err != nil {
		t.Fatalf("building our binaries: %v", built.err)
	}
	return filepath.Join(built.dir, name)
}

func buildAll() (string, error) {
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && strings.HasPrefix(d.Name(), ".") && len(d.Name()) > 2 {
				return filepath.SkipDir
			}
			return err
		}
		if strings.HasSuffix(path, ".go") || d.Name() == "go.sum" {
			_, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "lateen-test-")
	if err != nil {
		return "", err
	}
	args := []string{"build", "-ldflags", "-s -w", "-o", dir + "/"}
	if raceDetector {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "../cmd/...")...)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return dir, err
	}
	return dir, os.Symlink("lateen", filepath.Join(dir, "istioctl"))
}

func programs(t testing.TB) fixture.Programs {
	return fixture.Programs{Istiod: []string{binary(t, "istiod")}}
}

func ours(t testing.TB) fixture.Peer {
	return fixture.Peer{Name: "lateen", Argv: []string{binary(t, "lateen-proxy")}}
}
