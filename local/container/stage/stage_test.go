package stage

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestEnvironment(t *testing.T) {
	for _, c := range []struct {
		name string
		c    Config
		want []string // without HOME, which is this machine's
	}{
		{"nothing given", Config{UID: 4_000_000}, []string{Path}},
		{"a path given", Config{Env: []string{"PATH=/bin"}}, []string{"PATH=/bin"}},
		{"a name of the host", Config{Hostname: "web-0"}, []string{Path, "HOSTNAME=web-0"}},
		{"a name of the host given", Config{Hostname: "web-0", Env: []string{"HOSTNAME=x"}}, []string{"HOSTNAME=x", Path}},
		{"a terminal", Config{Terminal: true}, []string{Path, "TERM=xterm"}},
		{"a terminal given", Config{Terminal: true, Env: []string{"TERM=vt100"}}, []string{"TERM=vt100", Path}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := slices.DeleteFunc(environment(&c.c), func(v string) bool { return strings.HasPrefix(v, "HOME=") })
			if !slices.Equal(got, c.want) {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestTheLastOfAVariableCounts(t *testing.T) {
	env := []string{"A=1", "PATH=/a", "PATH=/b", "PATHS=/c"}
	if got := value(env, "PATH"); got != "/b" {
		t.Errorf("%q", got)
	}
}

func TestHome(t *testing.T) {
	const passwd = "root:x:0:0:root:/root:/bin/sh\n# comment\nweb:x:1000:1000::/srv/web:\nnone:x:1001:1001:::\nshort:x:1002\n"
	for uid, want := range map[int]string{0: "/root", 1000: "/srv/web", 1001: "/", 1002: "/", 4: "/"} {
		if got := home(passwd, uid); got != want {
			t.Errorf("home of %d is %q, want %q", uid, got, want)
		}
	}
}

func TestLookUp(t *testing.T) {
	dir := t.TempDir()
	for path, mode := range map[string]os.FileMode{"a/program": 0o755, "b/program": 0o755, "a/plain": 0o644, "b/plain": 0o755} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "a/folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, c := range []struct{ name, program, path, want string }{
		{"the first folder with it", "program", a + ":" + b, a + "/program"},
		{"one that may run", "plain", a + ":" + b, b + "/plain"},
		{"by its path", a + "/program", "", a + "/program"},
		{"no folder has it", "other", a, ""},
		{"a folder is no program", "folder", a, ""},
		{"no folders", "program", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := lookUp(c.program, c.path)
			if got != c.want || (err == nil) != (c.want != "") {
				t.Errorf("%q, %v, want %q", got, err, c.want)
			}
			if err != nil && !errors.Is(err, errNotFound) {
				t.Errorf("%v is not that the program is not found", err)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"Argv":["/bin/sh"],"Mounts":[{"Target":"/data"}],"Files":{"hosts":""}}`)
	f.Add(`{"Argv":["x"],"Files":{"..":""}}`)
	f.Add(`{"Argv":["x"],"Mounts":[{"Target":"/../.."}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Decode(strings.NewReader(text))
		if err != nil {
			return
		}
		for name := range c.Files {
			if filepath.Dir(filepath.Join("/etc", name)) != "/etc" {
				t.Errorf("file %q would not be in /etc", name)
			}
		}
		for _, m := range c.Mounts {
			if filepath.Clean(m.Target) == "/" || !filepath.IsAbs(m.Target) {
				t.Errorf("mount %q", m.Target)
			}
		}
		if len(c.Argv) == 0 {
			t.Error("no program")
		}
	})
}
