package ads

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestNamed(t *testing.T) {
	for _, c := range []struct {
		name, text string
		resources  []string
		want       []string
	}{
		{"Envoy's CDS error", "Error adding/updating cluster(s) outbound|80||a.b: Proto constraint validation failed, outbound|81||a.b: x",
			[]string{"outbound|80||a.b", "outbound|81||a.b", "outbound|8||a.b", "a.b"}, []string{"outbound|80||a.b", "outbound|81||a.b"}},
		{"Envoy's LDS error", "Error adding/updating listener(s) 0.0.0.0_8080: cannot bind '0.0.0.0:8080'\n",
			[]string{"0.0.0.0_80", "0.0.0.0_8080"}, []string{"0.0.0.0_8080"}},
		{"a name at the end of a sentence", "cannot take http.80.", []string{"http.80", "http.8"}, []string{"http.80"}},
		{"in quotes", `route "http.80" is not valid`, []string{"http.80"}, []string{"http.80"}},
		{"part of a longer word, then a word", "http.8080 and http.80", []string{"http.80"}, []string{"http.80"}},
		{"not at all", "malformed", []string{"a", "m", ""}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var versions []version
			for _, r := range c.resources {
				versions = append(versions, version{r, firstStamp})
			}
			if got := slices.Sorted(maps.Keys(named(c.text, versions))); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzNamed(f *testing.F) {
	f.Add("Error adding/updating cluster(s) a.b: x", "a.b")
	f.Add("aa", "a")
	f.Fuzz(func(t *testing.T, text, name string) {
		found := named(text, []version{{name, firstStamp}})
		if len(found) == 1 && !strings.Contains(text, name) {
			t.Errorf("%q found in %q", name, text)
		}
		if name != "" && text == name && len(found) != 1 {
			t.Errorf("%q not found in itself", name)
		}
	})
}
