package match_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/lateen-mesh/lateen/proxy/match"
)

func TestTemplate(t *testing.T) {
	for _, c := range []struct{ template, rewrite, path, want string }{
		{"/videos/*/*/*.m4s", "/x", "/videos/123/hls/1080.m4s", "/x"},
		{"/videos/*/*/*.m4s", "/x", "/videos/123/1080.m4s", ""},
		{"/videos/{file}", "/{file}/of", "/videos/a.m4s", "/a.m4s/of"},
		{"/**.mpd", "/x", "/content/123/manifest.mpd", "/x"},
		{"/{a=one/*}/{b=**}", "/{b}/{a}", "/one/two/three/four", "/three/four/one/two"},
		{"/{all=**}", "/p/{all}", "/", "/p/"},
		{"/api/v{version}/{id}.json", "/{id}{version}", "/api/v2/4.json", "/42"},
		{"/a.b", "/x", "/aXb", ""},
		{"/{a}", "/x", "/a/b", ""},
		{"/{a}", "/x", `/a"b`, ""},
	} {
		template, err := match.NewTemplate(c.template)
		if err != nil {
			t.Errorf("%s: %v", c.template, err)
			continue
		}
		rewrite, err := template.NewRewrite(c.rewrite)
		if err != nil {
			t.Errorf("%s of %s: %v", c.rewrite, c.template, err)
			continue
		}
		got := ""
		if template.Match([]byte(c.path)) {
			got = string(template.Append(nil, []byte(c.path), rewrite))
		}
		if got != c.want {
			t.Errorf("%s on %s: %q, want %q", c.template, c.path, got, c.want)
		}
	}
}

func TestTemplateRefused(t *testing.T) {
	for want, text := range map[string]string{
		"must begin with /": "a", "} without": "/a}", "{ without": "/{a", "no pattern": "/{a=}", "a name is a letter": "/{1}",
		"two of it": "/{a}/{a}", "more than 5": "/{a}/{b}/{c}/{d}/{e}/{f}", "last operator": "/**/*", "at most 1024": "/" + strings.Repeat("a", 1100),
	} {
		if _, err := match.NewTemplate(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20s: error %v, want %q", text, err, want)
		}
	}
	template, err := match.NewTemplate("/{a}")
	if err != nil {
		t.Fatal(err)
	}
	for want, text := range map[string]string{"must begin with /": "x", "no variable": "/{b}", "only {name}": "/*", `"a"`: "/{a"} {
		if _, err := template.NewRewrite(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("rewrite %s: error %v, want %q", text, err, want)
		}
	}
}

// FuzzTemplate: every template is refused or works, and one without operators matches itself alone.
func FuzzTemplate(f *testing.F) {
	f.Add("/a/{b}/{c=**}", "/{c}/{b}", []byte("/a/x/y/z"))
	f.Add("/*/x*", "/", []byte("/q/xy"))
	f.Add("/{a=b/*}", "/{a}{a}", []byte("/b/c"))
	f.Fuzz(func(t *testing.T, text, rewrite string, path []byte) {
		template, err := match.NewTemplate(text)
		if err != nil {
			return
		}
		matches := template.Match(path)
		if !strings.ContainsAny(text, "{}*") && matches != bytes.Equal(path, []byte(text)) {
			t.Fatalf("%q on %q: %v", text, path, matches)
		}
		r, err := template.NewRewrite(rewrite)
		if err == nil && matches {
			template.Append(nil, path, r)
		}
	})
}
