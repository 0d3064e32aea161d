package file

import (
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestKustomization: a directory that says what of it counts is read so; what would have to be
// changed on the way is refused, with the command that can.
func TestKustomization(t *testing.T) {
	const kustomization = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [web/a.yaml, ../shared/b.yaml, nested]\n"
	for _, c := range []struct {
		name    string
		files   map[string]string
		want    []string // files
		problem string
	}{
		{"its resources, in their order", map[string]string{"app/kustomization.yaml": kustomization}, []string{"app/web/a.yaml", "shared/b.yaml", "app/nested/c.yaml"}, ""},
		{"the other names of the file", map[string]string{"app/Kustomization": kustomization}, []string{"app/web/a.yaml", "shared/b.yaml", "app/nested/c.yaml"}, ""},
		{"none", nil, []string{"app/left/out.yaml", "app/nested/c.yaml", "app/web/a.yaml"}, ""},
		{"in a directory of a directory", map[string]string{"app/nested/kustomization.yml": "resources: [../left/out.yaml]\n"},
			[]string{"app/left/out.yaml", "app/web/a.yaml"}, ""},
		{"a resource that is not there", map[string]string{"app/kustomization.yaml": "resources: [web/a.yaml, none.yaml]\n"},
			[]string{"app/web/a.yaml"}, "app/none.yaml: resource of the kustomization in app: "},
		{"one of the internet", map[string]string{"app/kustomization.yaml": "resources: ['https://example.com/a.yaml']\n"},
			nil, "app: app/kustomization.yaml: resource https://example.com/a.yaml is not on this machine"},
		{"what it would change", map[string]string{"app/kustomization.yaml": "namespace: other\nresources: [web/a.yaml]\n"},
			nil, "app: app/kustomization.yaml: field namespace is not read, resources alone are: run kubectl kustomize app | lateen up -"},
		{"no YAML", map[string]string{"app/kustomization.yaml": "resources: [\n"}, nil, "app: app/kustomization.yaml: "},
		{"itself", map[string]string{"app/kustomization.yaml": "resources: [web/a.yaml, .]\n"}, []string{"app/web/a.yaml"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			for name, text := range merged(map[string]string{"app/web/a.yaml": "", "app/left/out.yaml": "", "app/nested/c.yaml": "", "shared/b.yaml": ""}, c.files) {
				if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			got, gone := Tree{Paths: []string{"app"}, Log: slog.New(slog.DiscardHandler)}.Files()
			if !slices.Equal(got, c.want) {
				t.Errorf("files %q, want %q", got, c.want)
			}
			var problems []string
			for _, path := range slices.Sorted(maps.Keys(gone)) {
				problems = append(problems, path+": "+gone[path].Error())
			}
			if text := strings.Join(problems, "\n"); !strings.HasPrefix(text, c.problem) || c.problem == "" && text != "" {
				t.Errorf("problems %q, want %q", text, c.problem)
			}
		})
	}
}

func merged(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}
