package config

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	kubectl "sigs.k8s.io/yaml"
)

// Where no schema says what is meant, values and keys are what kubectl makes of them.
func TestScalarsAsKubectl(t *testing.T) {
	for _, text := range []string{
		"[y, Y, yes, Yes, YES, on, On, ON, true, True, TRUE]", "[n, N, no, No, NO, off, Off, OFF, false, False, FALSE]",
		"['y', \"on\", yEs, oN, tRUE]", "[~, null, Null, NULL, '', nULL]",
		"[0, 007, 0777, 0o17, 0x1F, 0b11, 1_000, +1, -5, 9223372036854775807, 18446744073709551615]",
		"[1.0, 1.5, .5, 1e3, 1e-3, 1_0.5, 9999999999999999999999, '1.0']",
		"[12:30:45, 2020-01-01, 2020-01-01T00:00:00Z, 1.2.3.4, 0x, 1e, <<x]",
		"[!!str 5, !!int '5', !!binary aGk=, !!str yes]",
		"{on: 1, 5: 2, 1.5: 3, 'off': 4, true: 5, text: 6}",
	} {
		t.Run(text, func(t *testing.T) {
			wantText, err := kubectl.YAMLToJSON([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			var doc yaml.Node
			if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
				t.Fatal(err)
			}
			w := walker{}
			if !w.value(doc.Content[0], shape{}) || w.failed {
				t.Fatal(w.problems)
			}
			var want, got any
			if err := json.Unmarshal(wantText, &want); err != nil {
				t.Fatal(err)
			}
			if err := json.Unmarshal(w.json, &got); err != nil {
				t.Fatalf("%v: %s", err, w.json)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-kubectl +got):\n%s", diff)
			}
		})
	}
}

func TestDidYouMean(t *testing.T) {
	for _, c := range []struct{ name, want string }{
		{"wieght", `did you mean "weight"?`}, {"Weight", `did you mean "weight"?`}, {"max_age", `did you mean "maxAge"?`},
		{"rout", `did you mean "route"?`}, {"x", ""}, {"somethingElse", ""}, {"", ""},
	} {
		if got := didYouMean(c.name, []string{"weight", "route", "maxAge", "destination"}); got != c.want {
			t.Errorf("didYouMean(%q) = %q, want %q", c.name, got, c.want)
		}
	}
}
