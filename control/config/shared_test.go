package config_test

import (
	"os"
	"path/filepath"
	"testing"
)

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
