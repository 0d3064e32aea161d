package material

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDir(t *testing.T) {
	top := t.TempDir()
	make := func(path string) string {
		full := filepath.Join(top, path)
		if err := os.MkdirAll(full, 0o755); err != nil {
			t.Fatal(err)
		}
		return full
	}
	make("shared/golden/recorded")
	make("elsewhere/golden")
	for _, test := range []struct{ name, variable, working, want string }{
		{"beside the project", "", make("project/deep/package"), filepath.Join(top, "shared")},
		{"a folder of another meaning on the way", "", make("project/shared"), filepath.Join(top, "shared")},
		{"named", filepath.Join(top, "elsewhere"), make("project"), filepath.Join(top, "elsewhere")},
		{"named, and not there", filepath.Join(top, "nowhere"), make("project"), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Setenv("LATEEN_SHARED", test.variable)
			t.Chdir(test.working)
			if got := Dir(); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// A skipper keeps why a test was skipped and goes on.
type skipper struct {
	testing.TB
	why string
}

func (s *skipper) Skipf(format string, args ...any) { s.why = fmt.Sprintf(format, args...) }

func TestPath(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "golden", "one"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LATEEN_SHARED", dir)
	for path, missing := range map[string]bool{"": false, "golden/one": false, "golden/two": true} {
		test := &skipper{TB: t}
		if got := Path(test, path); got != filepath.Join(dir, path) {
			t.Errorf("%q is %s", path, got)
		}
		if skipped := test.why != ""; skipped != missing || !strings.Contains(test.why, path) && missing {
			t.Errorf("%q: skipped %t: %s", path, skipped, test.why)
		}
	}
	t.Setenv("LATEEN_SHARED", filepath.Join(dir, "nowhere"))
	test := &skipper{TB: t}
	if Path(test); test.why == "" {
		t.Error("not skipped without the material")
	}
}
