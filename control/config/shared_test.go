package config_test

import (
	"os"
	"path/filepath"
	"testing"
)

// shared is the directory with the acceptance material: LATEEN_SHARED, or
// "shared" beside or in an ancestor directory.
func shared(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("LATEEN_SHARED"); dir != "" {
		return dir
	}
	dir, err := os.Getwd()
	for err == nil && dir != filepath.Dir(dir) {
		if s := filepath.Join(dir, "shared"); isDir(filepath.Join(s, "golden")) {
			return s
		}
		dir = filepath.Dir(dir)
	}
	t.Skip("shared acceptance material not present: set LATEEN_SHARED to its directory")
	return ""
}

func isDir(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir()
}

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// goldenRuns are the mesh.yaml files of the recorded runs.
func goldenRuns(t *testing.T, root string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(root, "golden", "*", "mesh.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return files
}
