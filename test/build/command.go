package build

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// commands is the folder with our programs, made once for all tests of a process.
var commands struct {
	once sync.Once
	dir  string
	err  error
}

// Command builds the programs of cmd/ and returns the path of one. With the race detector
// in the test they have it, too. The sources are read before: a cached result depends on
// every file that the test has opened.
func Command(t testing.TB, name string) string {
	t.Helper()
	commands.once.Do(func() { commands.dir, commands.err = buildCommands() })
	if commands.err != nil {
		t.Fatalf("building our programs: %v", commands.err)
	}
	return filepath.Join(commands.dir, name)
}

// Remove takes away what Command has built; a TestMain calls it at its end.
func Remove() {
	if commands.dir != "" {
		_ = os.RemoveAll(commands.dir)
	}
}

func buildCommands() (string, error) {
	dir, err := module(api)
	if err != nil {
		return "", err
	}
	root := filepath.Dir(filepath.Dir(dir))
	if err := readSources(root); err != nil {
		return "", err
	}
	dir, err = os.MkdirTemp("", "lateen-test-")
	if err != nil {
		return "", err
	}
	args := []string{"build", "-C", root, "-ldflags", "-s -w", "-o", dir + "/"}
	if raceDetector {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/...")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build ./cmd/...: %w\n%s", err, out)
	}
	return dir, os.Symlink("lateen", filepath.Join(dir, "istioctl"))
}

func readSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			if d != nil && strings.HasPrefix(d.Name(), ".") {
				return filepath.SkipDir
			}
			return err
		}
		if strings.HasSuffix(path, ".go") || d.Name() == "go.sum" {
			_, err = os.ReadFile(path)
		}
		return err
	})
}
