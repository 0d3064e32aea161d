package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/test/material"
)

// TestCommandsOfTheOriginal runs the commands of the acceptance material that need no mesh,
// as they are written there, and wants what the original prints. Those that ask for pods are
// in scenario 49, which has a mesh.
func TestCommandsOfTheOriginal(t *testing.T) {
	dir := material.Path(t, "data", "cli")
	text, err := os.ReadFile(filepath.Join(dir, "cases.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var cases struct {
		Commands []struct{ Name, Command, Expected, ExpectedText, OutputContains string }
	}
	if err := yaml.Unmarshal(text, &cases); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	t.Setenv("HOME", t.TempDir()) // no mesh
	t.Setenv("KUBECONFIG", "")
	for _, c := range cases.Commands {
		row := rowOf(c.Name)
		if row == "" {
			continue
		}
		t.Run(row+" "+c.Name, func(t *testing.T) {
			code, out, errs := command(t, "", strings.Fields(c.Command)[1:]...)
			if c.OutputContains != "" {
				// ours say "error:" at the begin of that line, as all our programs do
				if want := strings.TrimPrefix(c.OutputContains, "Error: "); code == 0 || !strings.Contains(errs, want) {
					t.Errorf("exit code %d, %q, want %q in it", code, errs, want)
				}
				return
			}
			want := []byte(c.ExpectedText)
			if c.Expected != "" {
				if want, err = os.ReadFile(c.Expected); err != nil {
					t.Fatal(err)
				}
			}
			if code != 0 {
				t.Fatalf("exit code %d: %s", code, errs)
			}
			if diff := cmp.Diff(meaning(t, c.Command, want), meaning(t, c.Command, []byte(out))); diff != "" {
				t.Errorf("(-original +ours)\n%s", diff)
			}
		})
	}
}

// rowOf is the row of the feature surface that a case proves, "" for one that asks for pods.
func rowOf(name string) string {
	for begin, row := range map[string]string{
		"proxy-config all": "CL-032", "authz check": "CL-037", "routes ": "CL-027", "endpoints ": "CL-028", "ecds ": "CL-033", "proxy-config log": "CL-031",
	} {
		if strings.HasPrefix(name, begin) {
			return row
		}
	}
	return ""
}

var blanks = regexp.MustCompile(` {2,}`)

// meaning is a document, or the cells of a table.
func meaning(t *testing.T, command string, text []byte) any {
	t.Helper()
	if strings.Contains(command, "-o ") {
		var v any
		if err := yaml.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	var rows [][]string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimRight(line, " \n"); line != "" {
			rows = append(rows, blanks.Split(line, -1))
		}
	}
	return rows
}
