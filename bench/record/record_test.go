package record

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.md")
	for _, step := range []struct{ heading, text, want string }{
		{"# One", "first", "# One\n\nfirst\n"},
		{"# Two", "second\n", "# One\n\nfirst\n\n# Two\n\nsecond\n"},
		{"# One", "again\n## below", "# One\n\nagain\n## below\n\n# Two\n\nsecond\n"},
		{"# Two", "last", "# One\n\nagain\n## below\n\n# Two\n\nlast\n"},
	} {
		if err := Write(path, step.heading, []byte(step.text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != step.want {
			t.Errorf("after %s: %q, want %q (%v)", step.heading, got, step.want, err)
		}
	}
}
