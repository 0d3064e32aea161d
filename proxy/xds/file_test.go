package xds_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/lateen-mesh/lateen/proxy/xds"
	"github.com/lateen-mesh/lateen/wellknown"
)

// replace puts a file in place at once, as tools do.
func replace(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func clusterFile(version, names string) string {
	text := `{"version_info": "` + version + `", "resources": [`
	for i, name := range strings.Fields(names) {
		if i > 0 {
			text += ","
		}
		text += `{"@type": "` + wellknown.ClusterType + `", "name": "` + name + `", "alt_stat_name": "` + version + `"}`
	}
	return text + "]}"
}

func fromFile(t *testing.T, path, dir string) *xds.Client {
	t.Helper()
	src := &corev3.PathConfigSource{Path: path}
	if dir != "" {
		src.WatchedDirectory = &corev3.WatchedDirectory{Path: dir}
	}
	f, err := xds.FromPath(src, wellknown.ClusterType)
	if err != nil {
		t.Fatal(err)
	}
	return run(t, xds.Options{File: f})
}

// TestFile: what is in a file is in force, and what is put in its place; what cannot be read
// changes nothing.
func TestFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cds.json")
	replace(t, path, clusterFile("1", "a b"))
	c, s := fromFile(t, path, ""), newSeen()
	watchAll(c, s)
	s.next(t, "updated [a=1 b=1] removed []")
	replace(t, path, clusterFile("2", "a c"))
	s.next(t, "updated [a=2 c=2] removed [b]")
	replace(t, path, "no JSON")
	replace(t, path, clusterFile("3", "a"))
	s.next(t, "updated [a=3] removed [c]")
	if v := c.View()[0]; v.Version != "3" || v.Error != "" {
		t.Errorf("%+v", v)
	}
}

// TestFileOfAMount: a mounted ConfigMap changes by a link in its folder.
func TestFileOfAMount(t *testing.T) {
	dir := t.TempDir()
	for _, v := range []string{"1", "2"} {
		if err := os.Mkdir(filepath.Join(dir, v), 0o700); err != nil {
			t.Fatal(err)
		}
		replace(t, filepath.Join(dir, v, "cds.yaml"), clusterFile(v, "a"))
	}
	link := func(to string) {
		if err := os.Symlink(to, filepath.Join(dir, "next")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "next"), filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	link("1")
	c, s := fromFile(t, filepath.Join(dir, "data", "cds.yaml"), dir), newSeen()
	watchAll(c, s)
	s.next(t, "updated [a=1] removed []")
	link("2")
	s.next(t, "updated [a=2] removed []")
}

// TestFileThatIsMissing is an error at once, in Envoy's words.
func TestFileThatIsMissing(t *testing.T) {
	_, err := xds.FromPath(&corev3.PathConfigSource{Path: "/nowhere/cds.json"}, wellknown.ClusterType)
	if want := "paths must refer to an existing path in the system: '/nowhere/cds.json' does not exist"; err == nil || err.Error() != want {
		t.Errorf("%v", err)
	}
}

// TestServicesByType: each type has a service of its own, for servers that are no ADS.
func TestServicesByType(t *testing.T) {
	for url, want := range map[string]string{
		wellknown.ListenerType: "envoy.service.listener.v3.ListenerDiscoveryService", wellknown.SecretType: "envoy.service.secret.v3.SecretDiscoveryService",
		wellknown.ExtensionType: "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
	} {
		if got, ok := xds.ServiceOf(url); !ok || string(got) != want {
			t.Errorf("%s: %s", url, got)
		}
	}
	if _, ok := xds.ServiceOf("x"); ok {
		t.Error("an unknown type has one")
	}
}
