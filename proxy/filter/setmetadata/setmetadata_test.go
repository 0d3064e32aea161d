package setmetadata_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/filter/setmetadata"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
)

func build(t *testing.T, fields string, store *stats.Store) (http.Filter, error) {
	t.Helper()
	a := &anypb.Any{}
	text := `{"@type": "type.googleapis.com/envoy.extensions.filters.http.set_metadata.v3.Config", ` + fields + `}`
	if err := protojson.Unmarshal([]byte(text), a); err != nil {
		t.Fatal(err)
	}
	return setmetadata.Factory().New(a, http.Env{Stats: store.Scope("http.x.")})
}

type space = map[string]map[string]any

func TestMetadata(t *testing.T) {
	for _, c := range []struct {
		name, fields string
		before, want space
		denied       uint64
	}{
		{"new", `"metadata": [{"metadata_namespace": "a", "value": {"n": 1}}]`, nil, space{"a": {"n": 1.0}}, 0},
		{"beside others", `"metadata": [{"metadata_namespace": "a", "value": {"n": 1}}]`, space{"b": {"x": "y"}}, space{"a": {"n": 1.0}, "b": {"x": "y"}}, 0},
		{"denied", `"metadata": [{"metadata_namespace": "a", "value": {"n": 1}}]`, space{"a": {"x": "y"}}, space{"a": {"x": "y"}}, 1},
		{"merged", `"metadata": [{"metadata_namespace": "a", "allow_overwrite": true, "value": {"n": 2, "l": [3], "s": {"q": 1}, "k": "text", "new": null}}]`,
			space{"a": {"n": 1.0, "l": []any{1.0}, "s": map[string]any{"p": "r"}, "k": []any{1.0}}},
			space{"a": {"n": 2.0, "l": []any{1.0, 3.0}, "s": map[string]any{"p": "r", "q": 1.0}, "k": "text", "new": nil}}, 0},
		{"the older form comes first", `"metadata_namespace": "a", "value": {"n": 1}, "metadata": [{"metadata_namespace": "a", "allow_overwrite": true, "value": {"n": 2}}]`,
			space{"a": {"n": 0.0}}, space{"a": {"n": 2.0}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := stats.NewStore()
			f, err := build(t, c.fields, store)
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // nothing of one stream is seen in the next
				s := &http.Stream{}
				s.Info.Metadata = maps.Clone(c.before)
				f.OnRequest(s, 0)
				if diff := cmp.Diff(c.want, s.Info.Metadata); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
			if got := store.Scope("http.x.").Counter("set_metadata.overwrite_denied").Value(); got != 2*c.denied {
				t.Errorf("%d denied", got)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	for fields, want := range map[string]string{
		`"metadata": [{"value": {}}]`: "MetadataNamespace: value length must be at least 1 runes",
		`"metadata": [{"metadata_namespace": "a", "typed_value": {"@type": "type.googleapis.com/google.protobuf.Empty", "value": {}}}]`: "metadata[0].typed_value: not supported",
	} {
		if _, err := build(t, fields, stats.NewStore()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q in it", fields, err, want)
		}
	}
}
