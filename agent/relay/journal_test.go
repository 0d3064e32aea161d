package relay

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	discoverypb "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/wellknown"
)

const aType = wellknown.ClusterType

func response(names ...string) *discoverypb.DeltaDiscoveryResponse {
	m := &discoverypb.DeltaDiscoveryResponse{TypeUrl: aType}
	for _, name := range names {
		m.Resources = append(m.Resources, &discoverypb.Resource{Name: name, Version: "1", Resource: &anypb.Any{TypeUrl: aType, Value: bytes.Repeat([]byte{'x'}, 1000)}})
	}
	return m
}

// stored are the names of the type, as another start reads them.
func stored(t *testing.T, path string) string {
	t.Helper()
	j, err := openJournal(path, "n")
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	m, err := j.read(aType, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range m.GetResources() {
		if len(r.GetResource().GetValue()) != 1000 {
			t.Errorf("%s has %d bytes", r.GetName(), len(r.GetResource().GetValue()))
		}
		names = append(names, r.GetName())
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func TestJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "accepted")
	j, err := openJournal(path, "n")
	if err != nil {
		t.Fatal(err)
	}
	add := func(m *discoverypb.DeltaDiscoveryResponse) {
		t.Helper()
		if err := j.add(m); err != nil {
			t.Fatal(err)
		}
	}
	add(response("a", "b", "c"))
	add(&discoverypb.DeltaDiscoveryResponse{TypeUrl: aType, RemovedResources: []string{"b"}})
	if got := stored(t, path); got != "a c" {
		t.Errorf("stored %q", got)
	}
	t.Run("it does not grow with changes", func(t *testing.T) {
		for range 5000 {
			add(response("a"))
		}
		info, err := os.Stat(path)
		if err != nil || info.Size() > 2*slack {
			t.Errorf("%d bytes %v", info.Size(), err)
		}
		if got := stored(t, path); got != "a c" {
			t.Errorf("stored %q", got)
		}
	})
	if err := j.retain(aType, map[string]string{"c": "1"}); err != nil {
		t.Fatal(err)
	}
	_ = j.close()
	t.Run("a program was killed while it wrote", func(t *testing.T) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, append(text, 0, 0, 0, 90, 1, 2, 3), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := stored(t, path); got != "c" {
			t.Errorf("stored %q", got)
		}
		if again, _ := os.ReadFile(path); len(again) != len(text) {
			t.Errorf("%d bytes, want %d: the broken end is to go", len(again), len(text))
		}
	})
}

// FuzzJournal: whatever the file holds, it opens, and what is added is read again.
func FuzzJournal(f *testing.F) {
	var whole bytes.Buffer
	for _, m := range []*discoverypb.DeltaDiscoveryResponse{{SystemVersionInfo: "n"}, response("a"), {TypeUrl: aType, RemovedResources: []string{"a"}}} {
		if err := appendRecord(&whole, m); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(whole.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
	path := filepath.Join(f.TempDir(), "accepted"+strconv.Itoa(os.Getpid()))
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(path, "n")
		if err != nil {
			t.Fatal(err)
		}
		before := slices.Collect(maps.Keys(j.types[aType]))
		if err := j.add(response("new")); err != nil {
			t.Fatal(err)
		}
		_ = j.close()
		again, err := openJournal(path, "n")
		if err != nil {
			t.Fatal(err)
		}
		defer again.close()
		for _, name := range append(before, "new") {
			if _, ok := again.types[aType][name]; !ok {
				t.Errorf("%q is lost", name)
			}
		}
	})
}
