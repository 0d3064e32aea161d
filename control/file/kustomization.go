package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// kustomizations are the names of the file that says what of a directory counts.
var kustomizations = []string{"kustomization.yaml", "kustomization.yml", "Kustomization"}

// maxKustomization bounds that file, in bytes.
const maxKustomization = 1 << 20

// kustomization reads which resources a directory names: files and directories as paths. It
// finds none where no such file is.
func kustomization(dir string, entries []os.DirEntry) (resources []string, found bool, err error) {
	at := slices.IndexFunc(entries, func(e os.DirEntry) bool { return slices.Contains(kustomizations, e.Name()) })
	if at < 0 {
		return nil, false, nil
	}
	path := filepath.Join(dir, entries[at].Name())
	if resources, err = readKustomization(path); err != nil {
		return nil, true, fmt.Errorf("%s: %w", path, err)
	}
	for i, r := range resources {
		if strings.Contains(r, "://") {
			return nil, true, fmt.Errorf("%s: resource %s is not on this machine: download it and name the file", path, r)
		}
		resources[i] = filepath.Join(dir, r)
	}
	return resources, true, nil
}

// readKustomization takes a file that names resources and changes nothing in them.
func readKustomization(path string) ([]string, error) {
	info, err := os.Stat(path)
	if err == nil && info.Size() > maxKustomization {
		err = fmt.Errorf("larger than %d bytes", maxKustomization)
	}
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	fields := map[string]any{}
	if err := yaml.UnmarshalStrict(text, &fields); err != nil {
		return nil, err
	}
	for name := range fields {
		if !slices.Contains([]string{"apiVersion", "kind", "metadata", "resources"}, name) {
			return nil, fmt.Errorf("field %s is not read, resources alone are: run kubectl kustomize %s | lateen up -", name, filepath.Dir(path))
		}
	}
	var k struct{ Resources []string }
	return k.Resources, yaml.Unmarshal(text, &k)
}

// resources adds what a kustomization names.
func (l *lister) resources(dir string, paths []string) {
	for _, path := range paths {
		info, err := os.Stat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			l.gone[path] = fmt.Errorf("resource of the kustomization in %s: %w", dir, err)
		case err != nil:
			l.gone[path] = err
		case info.IsDir():
			l.walk(path)
		default:
			l.add(path)
		}
	}
}
