package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// TestOursAccepts: our proxy takes all that our control plane generates for it: every
// input that we have, for sidecars and gateways.
func TestOursAccepts(t *testing.T) {
	pem := writePEMs(t)
	lateen := binary(t, "lateen-proxy")
	extensions := extensionsOf(t, lateen)
	for _, source := range []struct {
		name  string
		views func(*testing.T) []stockView
	}{{"golden", goldenViews}, {"compile", compileViews}, {"cases", caseViews}} {
		t.Run(source.name, func(t *testing.T) {
			t.Parallel()
			all := source.views(t)
			for i := range all {
				all[i].node.Extensions = extensions
			}
			for views := range slices.Chunk(all, 20) {
				if takes(t, lateen, pem, views...) == "" {
					continue
				}
				for _, v := range views {
					if err := takes(t, lateen, pem, v); err != "" {
						t.Errorf("%s: %s", v.name, err)
					}
				}
			}
		})
	}
}

// takes returns what our proxy says against what is generated for all of the views, ""
// when it takes it.
func takes(t *testing.T, lateen string, pem pemFiles, views ...stockView) string {
	t.Helper()
	b := newStaticBootstrap(pem)
	for _, v := range views {
		if err := b.add(v); err != nil {
			return err.Error()
		}
	}
	return validateOurs(t, lateen, b)
}

// validateOurs is validate for our proxy; it returns what the proxy says.
func validateOurs(t *testing.T, lateen string, b *staticBootstrap) string {
	t.Helper()
	data, err := proto.Marshal(b.Bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bootstrap.pb")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(lateen, "--mode", "validate", "-c", file, "-l", "error").CombinedOutput()
	if err == nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}
