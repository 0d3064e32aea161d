package install

import "testing"

// At is what a tree has where a path leads, nil where there is nothing.
func At(t testing.TB, tree any, path string) any {
	t.Helper()
	steps, err := parsePath(path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, s := range steps {
		if s.kind == byKey {
			m, _ := tree.(map[string]any)
			tree = m[s.key]
			continue
		}
		list, _ := tree.([]any)
		i := s.found(list)
		if i < 0 {
			return nil
		}
		tree = list[i]
	}
	return tree
}
