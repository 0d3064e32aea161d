package hcm

import (
	"bytes"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/http"
)

// TestNestedEscapes: what decoding leaves cannot be decoded to something else by whoever
// is next, as Envoy has it.
func TestNestedEscapes(t *testing.T) {
	rules := pathRules{normalize: true, merge: true}
	for in, want := range map[string]string{
		"/a/%%32e%%32e/b": "/a/%252e%252e/b", "/a/%2%65/b": "/a/%252e/b", "/a/%%32%65/b": "/a/%252e/b", "/a/%%30%30": "/a/%2500",
		"/%%32%66x": "/%252fx", "/%41%%34%31": "/A%2541", "/%%%32e": "/%%252e", "/a/%252e%252e/b": "/a/%252e%252e/b",
		"/a/%/../b": "/a/b", "/a/%zz/b": "/a/%zz/b", "/a%": "/a%", "/a%2": "/a%2", "/%41%zz%42": "/A%zzB",
	} {
		var s http.Stream
		s.Request.Path = []byte(in)
		if v := rules.apply(&s); v != pathPasses || string(s.Request.Path) != want {
			t.Errorf("%s: %s, want %s", in, s.Request.Path, want)
		}
	}
}

// FuzzPath: a canonical path is its own canonical form, and has no dot segments and no
// empty ones.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/a/../b", "/%2e%2e/%2F", "//a\\..\\b", "/%%32e%%32e/b", "/a;x/..;y/?q=/../", "/.", "/%"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) == 0 || in[0] != '/' {
			return
		}
		for _, c := range in {
			if c <= ' ' || c >= 0x7f { // the codec refuses it
				return
			}
		}
		rules := pathRules{normalize: true, merge: true, escaped: unescapeSlashes}
		var s, again http.Stream
		s.Request.Path = bytes.Clone(in)
		if rules.apply(&s) != pathPasses {
			return
		}
		once := s.Request.Path
		path, _, _ := bytes.Cut(once, []byte("?"))
		for i, segment := range bytes.Split(path, []byte("/")) {
			if string(segment) == ".." || string(segment) == "." || len(segment) == 0 && i > 0 && i < bytes.Count(path, []byte("/")) {
				t.Fatalf("%q: %q", in, once)
			}
		}
		again.Request.Path = bytes.Clone(once)
		if v := rules.apply(&again); v != pathPasses || !bytes.Equal(again.Request.Path, once) {
			t.Fatalf("%q: %q, again %q", in, once, again.Request.Path)
		}
	})
}
