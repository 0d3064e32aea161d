package container

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// folder makes a directory with files.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestVolumes(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	data := folder(t, map[string]string{"key": "value\n", "sub/deep": "deep\n"})
	inner := folder(t, map[string]string{"inner": "inner\n"})
	file := filepath.Join(inner, "inner")
	token := "/var/run/secrets/kubernetes.io/serviceaccount"
	for _, c := range []struct {
		name   string
		mounts []Mount
		script string
		want   string
	}{
		{"a directory", []Mount{{Target: "/data", Source: data}}, "cat /data/key /data/sub/deep", "value\ndeep"},
		{"a directory that is written", []Mount{{Target: "/data", Source: data}}, "echo x > /data/written && cat /data/written", "x"},
		{"read only", []Mount{{Target: "/data", Source: data, ReadOnly: true}}, "cat /data/key; echo x 2>/dev/null > /data/no || echo refused", "value\nrefused"},
		{"memory", []Mount{{Target: "/cache"}}, "echo x > /cache/y; cat /cache/y; stat -f -c %T /cache", "x\ntmpfs"},
		{"memory, read only", []Mount{{Target: "/cache", ReadOnly: true}}, "touch /cache/y 2>/dev/null || echo refused", "refused"},
		{"a file", []Mount{{Target: "/etc/app/app.conf", Source: file}}, "cat /etc/app/app.conf", "inner"},
		{"a file over a file of the machine", []Mount{{Target: "/etc/passwd", Source: file}}, "cat /etc/passwd", "inner"},
		{"a file, read only", []Mount{{Target: "/opt/a/b", Source: file, ReadOnly: true}}, "cat /opt/a/b; echo x 2>/dev/null > /opt/a/b || echo refused", "inner\nrefused"},
		{"below a directory of the machine", []Mount{{Target: "/usr/share/of-a-pod/x", Source: inner}}, "cat /usr/share/of-a-pod/x/inner; ls -d /usr/share/perl* >/dev/null && cat /bin/true | wc -c | grep -qv '^0' && echo whole", "inner\nwhole"},
		{"below a link", []Mount{{Target: token, Source: inner, ReadOnly: true}}, "cat " + token + "/inner /run/secrets/kubernetes.io/serviceaccount/inner", "inner\ninner"},
		{"below /var", []Mount{{Target: "/var/lib/of-a-pod/data", Source: inner}}, "cat /var/lib/of-a-pod/data/inner; ls -d /var/lib/dpkg", "inner\n/var/lib/dpkg"},
		{"one in another", []Mount{{Target: "/data", Source: data}, {Target: "/data/sub", Source: inner}}, "cat /data/key /data/sub/inner", "value\ninner"},
		{"one in another where there was nothing", []Mount{{Target: "/data", Source: data}, {Target: "/data/new/place", Source: inner}}, "cat /data/key /data/new/place/inner; touch /data/seen", "value\ninner"},
		{"one in another that is read only", []Mount{{Target: "/data", Source: data, ReadOnly: true}, {Target: "/data/other", Source: inner}}, "cat /data/key /data/sub/deep /data/other/inner", "value\ndeep\ninner"},
		{"one in memory", []Mount{{Target: "/cache"}, {Target: "/cache/x", Source: inner}, {Target: "/cache/y"}}, "cat /cache/x/inner; ls /cache", "inner\nx\ny"},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := script(c.script)
			config.Mounts = c.mounts
			if got, exit := outputOf(t, r, nil, config); got != c.want || exit.Code != 0 {
				t.Errorf("%q, %+v, want %q", got, exit, c.want)
			}
		})
	}
	if got := read(t, filepath.Join(data, "written")); got != "x\n" {
		t.Errorf("what a container writes in a volume is %q", got)
	}
	if _, err := os.Stat(filepath.Join(data, "seen")); err != nil {
		t.Errorf("a volume in a volume hides what is written beside it: %v", err)
	}
	for _, path := range []string{"/usr/share/of-a-pod", "/var/lib/of-a-pod", "/opt/a", filepath.Join(data, "other"), "/data", "/cache", "/etc/app"} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was made on the machine", path)
		}
	}
}

// TestVolumesAreSeenToChange replaces what a volume holds as a kubelet does, by a link, while a
// container runs; also where another volume lies in it.
func TestVolumesAreSeenToChange(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	dir := folder(t, map[string]string{"..1/key": "one\n", "..2/key": "two\n"})
	for from, to := range map[string]string{"..data": "..1", "key": "..data/key"} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	c := script("cat /config/key; echo > /ready/now; until grep -q two /config/key; do sleep 0.01; done; cat /config/key")
	ready := t.TempDir()
	c.Mounts = []Mount{
		{Target: "/config", Source: dir, ReadOnly: true}, {Target: "/config/inside"}, {Target: "/ready", Source: ready},
	}
	result := make(chan string)
	go func() {
		out, _ := outputOf(t, r, nil, c)
		result <- out
	}()
	for range 1000 {
		if _, err := os.Stat(filepath.Join(ready, "now")); err == nil {
			break
		}
		yield()
	}
	if err := os.Symlink("..2", filepath.Join(dir, "..new")); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "..new"), filepath.Join(dir, "..data")); err != nil {
		t.Fatal(err)
	}
	if got := <-result; got != "one\ntwo" {
		t.Errorf("%q", got)
	}
}

func TestFilesOfEtc(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	files := map[string]string{"resolv.conf": "nameserver 10.96.0.10\n", "hosts": "10.244.0.5 sleep-0\n", "hostname": "sleep-0\n"}
	with := func(text string) Config {
		c := script(text)
		c.Files = files
		return c
	}
	for _, c := range []struct{ name, script, want string }{
		{"they are the pod's", "cat /etc/resolv.conf /etc/hosts /etc/hostname", "nameserver 10.96.0.10\n10.244.0.5 sleep-0\nsleep-0"},
		{"they can be written", "echo x >> /etc/hosts && tail -n 1 /etc/hosts", "x"},
		{"they can be replaced", "echo y > /etc/new && mv /etc/new /etc/hosts && cat /etc/hosts", "y"},
		{"no daemon of the machine is asked for names", "grep hosts: /etc/nsswitch.conf", "hosts: files dns"},
		{"the machine's others are seen", "test -s /etc/passwd && test -d /etc/ssl && echo seen", "seen"},
		{"links of them lead where they did", "readlink -f /etc/alternatives/awk | xargs test -x && echo there", "there"},
		{"/tmp, /run and /var/tmp are empty", "ls /tmp /var/tmp; ls /run", "/tmp:\n\n/var/tmp:\nlock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, exit := outputOf(t, r, nil, with(c.script)); got != c.want || exit.Code != 0 {
				t.Errorf("%q, %+v, want %q", got, exit, c.want)
			}
		})
	}
}

// TestImages runs containers on an unpacked image: here a directory with one static program.
func TestImages(t *testing.T) {
	if outside(t) {
		return
	}
	r := newRuntime(t)
	image := filepath.Join(t.TempDir(), "with,comma:and colon")
	files := map[string]string{"etc/os-release": "ID=test\n", "usr/share/doc": "text\n"}
	if err := os.Rename(folder(t, files), image); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(image, "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	volume := folder(t, map[string]string{"key": "value\n"})
	shell := []Mount{{Target: "/lib", Source: "/usr/lib"}, {Target: "/lib64", Source: "/usr/lib64"}, {Target: "/machine", Source: "/usr/bin"}, {Target: "/no/such/place", Source: volume}}
	c := Config{
		Argv: []string{"/machine/sh", "-c", strings.Join([]string{
			"cat /etc/os-release /usr/share/doc /no/such/place/key /etc/hosts", "echo changed > /usr/share/doc",
			"rm /etc/os-release", "cat /usr/share/doc", "ls /", "pwd", "echo $$", "test -c /dev/null && echo devices",
		}, "; ")},
		Env: []string{"PATH=/machine"}, Root: image, Dir: "/app", Mounts: shell, Files: map[string]string{"hosts": "own hosts\n"},
	}
	want := "ID=test\ntext\nvalue\nown hosts\nchanged\napp\nbin\ndev\netc\nlib\nlib64\nmachine\nno\nproc\nrun\nsys\ntmp\nusr\n/app\n1\ndevices"
	if got, exit := outputOf(t, r, nil, c); got != want || exit.Code != 0 {
		t.Errorf("%q, %+v, want %q", got, exit, want)
	}
	if read(t, filepath.Join(image, "usr/share/doc")) != "text\n" || read(t, filepath.Join(image, "etc/os-release")) != "ID=test\n" {
		t.Error("a container has changed the image")
	}
	left, err := os.ReadDir(image)
	if err != nil || len(left) != 3 {
		t.Errorf("the image holds %v, %v, want bin, etc and usr", left, err)
	}
}
