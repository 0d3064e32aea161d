package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A layout is a folder that a test fills.
type layout struct {
	t   *testing.T
	dir string
}

func newLayout(t *testing.T) layout {
	t.Helper()
	l := layout{t, t.TempDir()}
	if err := os.MkdirAll(filepath.Join(l.dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l layout) blob(kind string, text []byte) descriptor {
	sum := sha256.Sum256(text)
	name := hex.EncodeToString(sum[:])
	if err := os.WriteFile(filepath.Join(l.dir, "blobs", "sha256", name), text, 0o600); err != nil {
		l.t.Fatal(err)
	}
	return descriptor{MediaType: kind, Digest: "sha256:" + name, Size: int64(len(text))}
}

func (l layout) json(kind string, v any) descriptor {
	text, err := json.Marshal(v)
	if err != nil {
		l.t.Fatal(err)
	}
	return l.blob(kind, text)
}

// write makes the folder an image of layers.
func (l layout) write(config string, layers ...descriptor) {
	c := l.blob("application/vnd.oci.image.config.v1+json", []byte(config))
	m := l.json("application/vnd.oci.image.manifest.v1+json", manifest{Config: c, Layers: layers})
	m.Platform = &platform{Architecture: runtime.GOARCH, OS: "linux"}
	other := m
	other.Digest, other.Platform = "sha256:"+strings.Repeat("0", 64), &platform{Architecture: "z80", OS: "linux"}
	below := l.json(indexTypes[0], index{Manifests: []descriptor{other, m}})
	text, err := json.Marshal(index{Manifests: []descriptor{below}})
	if err != nil {
		l.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(l.dir, "index.json"), text, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// An item of a layer: a directory ends with /, "a -> b" is a link, "a => b" a hard link.
type item struct{ name, text string }

func tarOf(t testing.TB, entries ...item) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.text)), Typeflag: tar.TypeReg}
		if from, to, ok := strings.Cut(e.name, " -> "); ok {
			h.Name, h.Linkname, h.Typeflag = from, to, tar.TypeSymlink
		} else if from, to, ok := strings.Cut(e.name, " => "); ok {
			h.Name, h.Linkname, h.Typeflag = from, to, tar.TypeLink
		} else if strings.HasSuffix(e.name, "/") {
			h.Typeflag, h.Mode = tar.TypeDir, 0o555
		} else if e.name == "dev/device" {
			h.Typeflag = tar.TypeChar
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(e.text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func zipped(t *testing.T, text []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// tree of files: text by path, "-> target" for links, "/" for directories that are empty.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		switch {
		case d.IsDir():
			return nil
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			found[name] = "-> " + target
			return err
		}
		text, err := os.ReadFile(path)
		found[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestUnpack(t *testing.T) {
	l := newLayout(t)
	base := tarOf(t, item{"bin/", ""}, item{"bin/sh", "shell"}, item{"etc/passwd", "root:x:0:0::/:\napp:x:1000:1001::/home:\n"},
		item{"etc/group", "staff:x:50:\n"}, item{"run/x", "1"}, item{"var/run -> /run", ""}, item{"old/a", "a"}, item{"old/b", "b"}, item{"gone", "gone"}, item{"dev/device", ""})
	upper := tarOf(t, item{"var/run/y", "2"}, item{"old/.wh..wh..opq", ""}, item{"old/c", "c"}, item{".wh.gone", ""},
		item{"hard => bin/sh", ""}, item{"bin/sh2 -> sh", ""}, item{"etc/passwd", "root:x:0:0::/:\napp:x:1000:1001::/home:\n#2\n"})
	l.write(`{"config": {"Entrypoint": ["/bin/sh"], "Cmd": ["-c", "x"], "Env": ["A=b"], "User": "app:staff", "WorkingDir": "/home"}}`,
		l.blob(tarTypes[0], base), l.blob(gzipTypes[0], zipped(t, upper)))
	dir := t.TempDir()
	got, err := Unpack(t.Context(), l.dir, dir)
	if err != nil {
		t.Fatal(err)
	}
	if got.Entrypoint[0] != "/bin/sh" || len(got.Args) != 2 || got.Env[0] != "A=b" || got.Dir != "/home" || got.UID != 1000 || got.GID != 50 || !strings.HasPrefix(got.ID, "sha256:") {
		t.Errorf("image is %+v", got)
	}
	want := map[string]string{"bin/sh": "shell", "bin/sh2": "-> sh", "hard": "shell", "run/x": "1", "run/y": "2", "var/run": "-> /run", "old/c": "c",
		"etc/group": "staff:x:50:\n", "etc/passwd": "root:x:0:0::/:\napp:x:1000:1001::/home:\n#2\n"}
	found := treeOf(t, got.Root)
	for name, text := range want {
		if found[name] != text {
			t.Errorf("%s is %q, not %q", name, found[name], text)
		}
		delete(found, name)
	}
	if len(found) > 0 {
		t.Errorf("there is more: %q", found)
	}
	if err := os.RemoveAll(filepath.Join(l.dir, "blobs", "sha256", strings.TrimPrefix(l.blob(tarTypes[0], base).Digest, "sha256:"))); err != nil {
		t.Fatal(err)
	}
	if again, err := Unpack(t.Context(), l.dir, dir); err != nil || again.Root != got.Root {
		t.Errorf("it was unpacked again: %+v, %v", again, err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".unpacking-*")); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

func TestLayersThatCannotBe(t *testing.T) {
	for _, c := range []struct {
		name, words string
		layer       func(l layout) descriptor
	}{
		{"damaged", "another digest", func(l layout) descriptor {
			d := l.blob(tarTypes[0], tarOf(t, item{"a", "text"}))
			path := filepath.Join(l.dir, "blobs", "sha256", strings.TrimPrefix(d.Digest, "sha256:"))
			text, _ := os.ReadFile(path)
			copy(text[512:], "TEXT")
			_ = os.WriteFile(path, text, 0o600)
			return d
		}},
		{"truncated", "EOF", func(l layout) descriptor { return l.blob(gzipTypes[0], zipped(t, tarOf(t, item{"a", "b"}))[:20]) }},
		{"of another type", "not supported", func(l layout) descriptor { return l.blob("application/vnd.oci.image.layer.v1.tar+zstd", nil) }},
		{"with a digest that is a path", "is not sha256", func(layout) descriptor {
			return descriptor{MediaType: tarTypes[0], Digest: "sha256:../../../etc/passwd"}
		}},
		{"missing", "no such file", func(layout) descriptor {
			return descriptor{MediaType: tarTypes[0], Digest: "sha256:" + strings.Repeat("1", 64)}
		}},
		{"in a circle of links", "too many symbolic links", func(l layout) descriptor {
			return l.blob(tarTypes[0], tarOf(t, item{"a -> b", ""}, item{"b -> a", ""}, item{"a/x", ""}))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, dir := newLayout(t), t.TempDir()
			l.write("{}", c.layer(l))
			if _, err := Unpack(t.Context(), l.dir, dir); err == nil || !strings.Contains(err.Error(), c.words) || !strings.Contains(err.Error(), l.dir) {
				t.Errorf("%v does not say %q and the folder", err, c.words)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) > 0 {
				t.Errorf("%q is left", left)
			}
		})
	}
}

// unpackInto unpacks a layer in a folder beside a file that it must not reach.
func unpackInto(t *testing.T, layer []byte) (root string, err error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "outside"), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(dir, "root")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	tree, err := openTree(root)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.close()
	tree.own = false
	err = tree.unpack(t.Context(), bytes.NewReader(layer))
	found := treeOf(t, dir)
	for name, text := range found {
		if inside := strings.HasPrefix(name, "root/"); !inside && (name != "outside" || text != "mine") {
			t.Errorf("the layer wrote outside: %s is %q", name, text)
		}
	}
	if found["outside"] != "mine" {
		t.Error("the layer removed a file outside")
	}
	return root, err
}

func TestNoEntryLeavesTheTree(t *testing.T) {
	for name, entries := range map[string][]item{
		"a name with dots":      {{"../outside", "x"}, {"a/../../outside", "x"}},
		"an absolute name":      {{"/outside", "x"}},
		"a link to above":       {{"up -> ..", ""}, {"up/outside", "x"}},
		"a link of links":       {{"a/up -> ../..", ""}, {"b -> a/up", ""}, {"b/outside", "x"}},
		"an absolute link":      {{"etc -> /", ""}, {"etc/outside", "x"}},
		"a file that is a link": {{"x -> ../outside", ""}, {"x", "text"}},
		"a whiteout":            {{"up -> ..", ""}, {"up/.wh.outside", ""}, {".wh...", ""}, {"up/.wh..wh..opq", ""}},
		"a hard link":           {{"mine => ../outside", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _ = unpackInto(t, tarOf(t, entries...))
		})
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(tarOf(f, item{"a/b", "text"}, item{"c -> a", ""}, item{"c/d", "x"}, item{".wh.a", ""}))
	f.Add(tarOf(f, item{"up -> ..", ""}, item{"up/outside", "x"}, item{"up/.wh.outside", ""}))
	f.Fuzz(func(t *testing.T, layer []byte) { _, _ = unpackInto(t, layer) })
}
