package main

import (
	"os"
	"strings"
	"testing"
)

func TestTheFileIsWhatTheGeneratorMakes(t *testing.T) {
	want, err := generate()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../crds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Error("crds.yaml differs from what its generator makes now: go generate ./install/crds")
	}
}

func TestExpandWritesShortFormsOut(t *testing.T) {
	for _, tt := range []struct{ name, short, long string }{
		{"nothing to do", "has(self.a)", "has(self.a)"},
		{"default", "default(self.a, 'x') == 'y'", "(has(self.a) ? self.a : 'x') == 'y'"},
		{"quotes hide parentheses and commas", `default(self.a, "),") == ""`, `(has(self.a) ? self.a : "),") == ""`},
		{"lists are one argument", "default(self.a, [1, 2]).size() <= 1", "(has(self.a) ? self.a : [1, 2]).size() <= 1"},
		{"oneof", "oneof(self.a, self.b)", "((has(self.a) ? 1 : 0) + (has(self.b) ? 1 : 0) <= 1)"},
		{"index", "self.index({}, a, b).size() > 0", "(has(self.a) && has(self.a.b) ? self.a.b : {}).size() > 0"},
		{"several", "default(self.a, '') == default(self.b, '')", "(has(self.a) ? self.a : '') == (has(self.b) ? self.b : '')"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := expand(tt.short)
			if err != nil || got != tt.long {
				t.Errorf("expand(%s) = %s, %v; want %s", tt.short, got, err, tt.long)
			}
		})
	}
	for short, want := range map[string]string{
		"default(self.a":  "a parenthesis stays open",
		"default(self.a)": "default has 1 arguments, at least 2",
		strings.Repeat("default(", 20) + "a" + strings.Repeat(", b)", 20): "longer than 8192 bytes",
	} {
		if got, err := expand(short); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("expand(%s) = %s, %v; want an error with %q", short, got, err, want)
		}
	}
}

func FuzzExpand(f *testing.F) {
	f.Add("default(self.a, 'x') == 'y'")
	f.Add("self.index({}, a, b).size() > 0 && oneof(self.a, self.b)")
	f.Fuzz(func(t *testing.T, short string) {
		long, err := expand(short)
		if err == nil && shortForm.MatchString(long) {
			t.Errorf("%q expands to %q, which has a short form", short, long)
		}
	})
}

func FuzzMarkers(f *testing.F) {
	f.Add("package a;\n// +m\nmessage A {\n}\n")
	f.Add("}}}\nmessage A {}\n")
	f.Fuzz(func(_ *testing.T, file string) { _ = markers{}.read(strings.NewReader(file)) })
}

func TestMarkersBelongToWhatFollows(t *testing.T) {
	const file = `
package a.v1;
// +lost

// Words.
// +outer:1
message Outer {
  // +kind:x
  oneof choice {
    // +field:1
    // +field:2
    string in_oneof = 1;
  }
  enum Mode {
    // +none
    OFF = 0;
  }
  message Empty {}
  // +inner
  message Inner {
    // +deep
    map<string, string> deep = 2; // }
  }
  // +after
  repeated Inner after = 3 [
    (opt) = { a: 1 }
  ];
  string plain = 4;
}
`
	marks := markers{}
	if err := marks.read(strings.NewReader(file)); err != nil {
		t.Fatal(err)
	}
	for element, want := range map[string]string{
		"a.v1.Outer": "outer:1", "a.v1.Outer.in_oneof": "field:1 field:2", "a.v1.Outer.Inner": "inner",
		"a.v1.Outer.Inner.deep": "deep", "a.v1.Outer.after": "after", "a.v1.Outer.plain": "",
	} {
		if got := strings.Join(marks[element], " "); got != want {
			t.Errorf("%s has markers %q, want %q", element, got, want)
		}
	}
}

func TestBadMarkersAreNamed(t *testing.T) {
	for mark, want := range map[string]string{
		"v:MaxLength=long":       "invalid syntax",
		"v:MaxWeight=1":          "unknown",
		"v:XValidation:rule=one": "not message=",
	} {
		s := structure{markers{"a.B.c": {mark}}, false}
		if err := s.bounds(schema{}, "a.B.c", "v:", nil); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "a.B.c") {
			t.Errorf("%s: %v, want %q and the element", mark, err, want)
		}
	}
}
