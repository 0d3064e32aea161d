package main_test

import (
	"encoding/json"
	"path/filepath"
	"testing"
)

// Definitions that the server is given at its first start are put into the store as they
// are once established. They must be what they would have become had somebody applied
// them.
func TestSeededDefinitionsAreAsAppliedOnes(t *testing.T) {
	file := absolute(t, "testdata/definition.yaml")
	seeded, applied := start(t, 0, "--crds", file), start(t, 0)
	applied.must("", "create", "-f", file)
	applied.must("", "wait", "--for=condition=Established", "crd", "--all", "--timeout=20s")
	want, got := definitionsOf(t, applied), definitionsOf(t, seeded)
	if len(want) == 0 || want != got {
		t.Errorf("seeded:\n%s\napplied:\n%s", got, want)
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

// definitionsOf are the definitions of a server without what differs each time.
func definitionsOf(t *testing.T, s *server) string {
	t.Helper()
	var list struct {
		Items []map[string]any `json:"items"`
	}
	if err := json.Unmarshal([]byte(s.must("", "get", "crd", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, d := range list.Items {
		meta := d["metadata"].(map[string]any)
		for _, field := range []string{"uid", "creationTimestamp", "resourceVersion", "managedFields"} {
			delete(meta, field)
		}
		for _, c := range d["status"].(map[string]any)["conditions"].([]any) {
			delete(c.(map[string]any), "lastTransitionTime")
		}
	}
	text, err := json.MarshalIndent(list.Items, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
