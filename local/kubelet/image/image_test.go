package image

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func catalog(t *testing.T, given map[string]string) *Catalog {
	t.Helper()
	bin := t.TempDir()
	for _, name := range []string{"lateen-sample", "lateen-opa", "pilot-agent", "istiod"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c, err := New(Options{Given: given, Bin: bin, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNames(t *testing.T) {
	c := catalog(t, map[string]string{
		"shop/web":                "sh -c 'echo web'",
		"shop/web:2":              "sh -c 'echo web2'",
		"example.org/db:1.0":      "/bin/sh db",
		"docker.io/library/redis": "sh redis",
		"kennethreitz/httpbin":    "sh mine",
	})
	for name, want := range map[string]string{
		"shop/web":                                   "sh -c echo web",
		"shop/web:1":                                 "sh -c echo web",
		"shop/web:2":                                 "sh -c echo web2",
		"registry:5000/shop/web@sha256:abc":          "sh -c echo web",
		"example.org/db:1.0":                         "/bin/sh db",
		"redis":                                      "sh redis",
		"redis:7":                                    "sh redis",
		"docker.io/kennethreitz/httpbin":             "sh mine",
		"docker.io/kong/httpbin:0.1.0":               "BIN/lateen-sample httpbin --image --listen :80",
		"docker.io/mccutchen/go-httpbin:v2.15.0":     "BIN/lateen-sample httpbin --go --listen :8080",
		"curlimages/curl":                            "sh -c " + curlOrCommand + " curl --help",
		"istio/tcp-echo-server:1.3":                  "BIN/lateen-sample tcp-echo",
		"openpolicyagent/opa:latest-envoy":           "BIN/lateen-opa run",
		"docker.io/istio/examples-helloworld-v2:1.0": "BIN/lateen-sample helloworld --listen :5000",
		"docker.io/istio/examples-bookinfo-productpage-v1:1.16.2":       "BIN/lateen-sample productpage --listen :9080 --linger 1s",
		"docker.io/istio/examples-bookinfo-details-v1:1.20.2":           "BIN/lateen-sample details --listen :9080 --linger 1s",
		"docker.io/istio/examples-bookinfo-ratings-v1:1.16.2":           "BIN/lateen-sample ratings --listen :9080 --linger 1s",
		"registry.istio.io/release/examples-bookinfo-reviews-v3:1.20.3": "BIN/lateen-sample reviews --listen :9080 --linger 1s",
		"docker.io/library/busybox:1.36":                                "sh",
		"registry.istio.io/testing/proxyv2:latest":                      "BIN/pilot-agent",
		"docker.io/istio/proxyv2:1.24.0":                                "BIN/pilot-agent",
		"docker.io/istio/pilot:1.31.0":                                  "BIN/istiod",
	} {
		got, err := c.Resolve(t.Context(), name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if text := strings.ReplaceAll(strings.Join(slices.Concat(got.Entrypoint, got.Args), " "), c.o.Bin, "BIN"); text != want {
			t.Errorf("%s stands for %q, not %q", name, text, want)
		}
	}
}

func TestUnknownNames(t *testing.T) {
	c := catalog(t, map[string]string{"shop/web:2": "sh"})
	for _, name := range []string{"nothing/known:1", "shop/web:1", "web", ""} {
		_, err := c.Resolve(t.Context(), name)
		unknown, ok := errors.AsType[*UnknownError](err)
		if !ok || !strings.Contains(err.Error(), "lateen up --image "+name+"=COMMAND") || unknown.Image != name {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestCommandsThatCannotBe(t *testing.T) {
	for command, words := range map[string]string{"": "empty", "sh 'open": "no end"} {
		if _, err := New(Options{Given: map[string]string{"x": command}}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%q: %v", command, err)
		}
	}
	c := catalog(t, map[string]string{"x": "/no/such/program", "y": "oci:/no/such/folder"})
	for _, name := range []string{"x", "y"} {
		if _, err := c.Resolve(t.Context(), name); err == nil || !strings.Contains(err.Error(), "/no/such/") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWords(t *testing.T) {
	for text, want := range map[string][]string{
		"":                nil,
		"  a  b\tc\n":     {"a", "b", "c"},
		`a 'b c' "d e"`:   {"a", "b c", "d e"},
		`a\ b "x\"y" '\'`: {"a b", `x"y`, `\`},
		`"" ''`:           {"", ""},
		`--x="a b"`:       {"--x=a b"},
		`"a\nb"`:          {`a\nb`},
	} {
		if got, err := Words(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q is %q, %v, not %q", text, got, err, want)
		}
	}
}

func FuzzWords(f *testing.F) {
	f.Add(`a 'b' "c" \d`)
	f.Fuzz(func(t *testing.T, text string) {
		words, err := Words(text)
		if err != nil {
			return
		}
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		if again, err := Words(strings.Join(quoted, " ")); err != nil || !slices.Equal(words, again) {
			t.Errorf("%q quoted again is %q, %v", words, again, err)
		}
	})
}
