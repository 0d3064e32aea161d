package config_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/test/material"
)

// The verdicts of the original's validator, object by object.
func TestVerdictsOfTheOriginal(t *testing.T) {
	dir := material.Path(t, "data", "validation", "cases")
	for _, kind := range []string{"virtualservice", "destinationrule", "gateway", "serviceentry", "workloadentry", "sidecar",
		"workloadgroup", "proxyconfig", "peerauthentication", "requestauthentication", "authorizationpolicy", "telemetry", "wasmplugin", "trafficextension"} {
		var cases []struct {
			Name    string
			Valid   bool
			Warning bool
			YAML    string
		}
		if err := yaml.Unmarshal(read(t, dir, kind+".yaml"), &cases); err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			t.Run(kind+"/"+c.Name, func(t *testing.T) {
				objects, problems := config.DecodeYAML("case.yaml", []byte(c.YAML))
				if got := len(objects) == 1; got != c.Valid {
					t.Errorf("accepted: %v, want %v; problems %v", got, c.Valid, problems)
				}
				if got := config.HasErrors(problems); got == c.Valid {
					t.Errorf("errors: %v, want %v; problems %v", got, !c.Valid, problems)
				}
				if warns := aboutTheObject(problems); c.Valid && c.Warning != (len(warns) > 0) {
					t.Errorf("warnings %v, want some: %v", warns, c.Warning)
				}
				for _, p := range problems {
					if p.Object.Name == "" || p.Source.Line < 1 {
						t.Errorf("problem without object or line: %v", p)
					}
				}
			})
		}
	}
}

// What the schemas of the API server refuse is refused here with the same object.
func TestVerdictsOfTheSchemas(t *testing.T) {
	dir := material.Path(t, "data", "validation", "crd")
	kinds := []string{"destinationrule", "serviceentry", "workloadentry",
		"envoyfilter", "workloadgroup", "proxyconfig", "peerauth", "reqauth", "authz", "telemetry", "wasm"}
	for _, kind := range kinds {
		t.Run(kind+" valid", func(t *testing.T) {
			for doc := range strings.SplitSeq(string(read(t, dir, kind+"-valid.yaml")), "\n---\n") {
				objects, problems := config.DecodeYAML("valid.yaml", []byte(doc))
				if strings.Trim(doc, "-\n") == "" {
					continue
				}
				if len(objects) != 1 || config.HasErrors(problems) {
					t.Errorf("refused: %v", problems)
				}
			}
		})
		for i, doc := range strings.Split(string(read(t, dir, kind+"-invalid.yaml")), "\n---\n") {
			want, text := expectation(doc)
			if want == "" {
				continue
			}
			t.Run(fmt.Sprintf("%s invalid %d %s", kind, i, want), func(t *testing.T) {
				objects, problems := config.DecodeYAML("invalid.yaml", []byte(text))
				if len(objects) != 0 || !config.HasErrors(problems) {
					t.Errorf("accepted: %v", problems)
				}
			})
		}
	}
}

// expectation takes the line `_err: …` out of a document.
func expectation(doc string) (want, text string) {
	var kept []string
	for line := range strings.Lines(doc) {
		if rest, ok := strings.CutPrefix(line, "_err:"); ok {
			want = strings.Trim(strings.TrimSpace(rest), `'"`)
			continue
		}
		kept = append(kept, line)
	}
	return want, strings.Join(kept, "")
}

// Files that users apply: samples, tasks and scenarios must be taken as they are.
func TestFilesOfUsersAreAccepted(t *testing.T) {
	root := material.Path(t)
	for _, dir := range []string{"samples", "data/samples-extra", "scenarios", "golden"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) != ".yaml" || filepath.Base(path) == "mesh.yaml" {
				return err
			}
			text := read(t, path)
			if !bytes.Contains(text, []byte("\nkind:")) && !bytes.HasPrefix(text, []byte("kind:")) || bytes.Contains(text, []byte("<my-")) {
				return nil // values of charts, mesh configuration, templates to fill in
			}
			_, problems := config.DecodeYAML(path, text)
			for _, p := range problems {
				if p.Severity == config.Error {
					t.Errorf("%v (%s)", p, p.Hint)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// aboutTheObject are the problems without those about what this version does not do.
func aboutTheObject(problems []config.Problem) []config.Problem {
	return slices.DeleteFunc(slices.Clone(problems), func(p config.Problem) bool { return p.Aside })
}
