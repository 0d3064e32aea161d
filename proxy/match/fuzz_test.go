package match_test

import (
	"bytes"
	"testing"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/lateen-mesh/lateen/proxy/match"
)

// FuzzRewrite: every pattern and substitution is refused or works, and a substitution
// without groups stands in the result as it was written.
func FuzzRewrite(f *testing.F) {
	f.Add("/a(b)?", `/x\1`, []byte("/ab/a"))
	f.Add("^/", `$1\\`, []byte("/"))
	f.Add(`(?i)[[:alpha:]]+`, `\0\0`, []byte("/Q"))
	f.Add("", `\`, []byte(""))
	f.Fuzz(func(t *testing.T, pattern, text string, path []byte) {
		re, substitution, err := match.NewRewrite(&matcherv3.RegexMatchAndSubstitute{Pattern: &matcherv3.RegexMatcher{Regex: pattern}, Substitution: text})
		if err != nil {
			return
		}
		got := re.ReplaceAll(path, []byte(substitution))
		if !bytes.Contains([]byte(text), []byte(`\`)) {
			if want := re.ReplaceAllLiteral(path, []byte(text)); !bytes.Equal(got, want) {
				t.Fatalf("%q with %q for %q: %q, want %q", path, text, pattern, got, want)
			}
		}
	})
}

// FuzzParameter: a parameter's value is part of the query, and the first one of its name.
func FuzzParameter(f *testing.F) {
	f.Add([]byte("/a?b=1&c=&b=2"), "b")
	f.Add([]byte("?&&=x"), "")
	f.Fuzz(func(t *testing.T, target []byte, name string) {
		path, query := match.SplitPath(target)
		if len(path)+len(query) > len(target) || bytes.Contains(path, []byte("?")) {
			t.Fatalf("%q: %q, %q", target, path, query)
		}
		value, ok := match.Parameter(query, name)
		if ok && (bytes.Contains(value, []byte("&")) || !bytes.Contains(query, value) || !bytes.Contains(query, []byte(name))) || !ok && value != nil {
			t.Fatalf("%q in %q: %q, %v", name, query, value, ok)
		}
	})
}
