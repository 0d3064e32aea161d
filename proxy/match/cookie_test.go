package match_test

import (
	"testing"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/match"
)

func TestCookieValue(t *testing.T) {
	for header, want := range map[string]string{
		"a=1": "1", "b=2; a=1": "1", "b=2;a=1": "1", `a="1"`: "1", "a=1; a=2": "1", "a=": "", "xa=1; a=2": "2", "a=b=c": "b=c", `a="`: `"`,
	} {
		r := &http.Request{}
		r.Headers.Add([]byte("cookie"), []byte(header))
		if got, ok := match.CookieValue(r, "a"); string(got) != want || !ok {
			t.Errorf("%s: %q, %v, want %q", header, got, ok, want)
		}
	}
	for _, header := range []string{"", "b=1", "a", ";;", "A=1"} {
		r := &http.Request{}
		r.Headers.Add([]byte("cookie"), []byte(header))
		if got, ok := match.CookieValue(r, "a"); ok {
			t.Errorf("%s: %q", header, got)
		}
	}
}
