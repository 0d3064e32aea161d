// Package material finds the acceptance material that tests compare with: configuration,
// recorded output and tables of cases, which are not part of the project. It is the folder
// that LATEEN_SHARED names, or else a folder "shared" in the working directory or beside
// one of the folders that lead to it.
package material

import (
	"os"
	"path/filepath"
	"testing"
)

// Dir is the folder of the material, "" where there is none.
func Dir() string {
	if dir := os.Getenv("LATEEN_SHARED"); dir != "" {
		return existing(dir)
	}
	for dir, err := os.Getwd(); err == nil; dir = filepath.Dir(dir) {
		if found := existing(filepath.Join(dir, "shared")); found != "" || dir == filepath.Dir(dir) {
			return found
		}
	}
	return ""
}

// existing is the folder if it has the material: its recorded output is what all of it has.
func existing(dir string) string {
	if _, err := os.Stat(filepath.Join(dir, "golden")); err != nil {
		return ""
	}
	return dir
}

// Path is a file or folder of the material; the test is skipped where that is not present.
func Path(t testing.TB, elements ...string) string {
	t.Helper()
	inside, dir := filepath.Join(elements...), Dir()
	path := filepath.Join(dir, inside)
	if _, err := os.Stat(path); dir == "" || err != nil {
		t.Skipf("shared acceptance material not present: %s (LATEEN_SHARED names its folder)", inside)
	}
	return path
}
