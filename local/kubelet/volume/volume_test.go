package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/lateen-mesh/lateen/local/kubelet/env"
)

// objects are a Source whose content a test changes.
type objects struct {
	maps    map[string]map[string]string
	secrets map[string]map[string]string
	tokens  int
	refuse  error // tokens
	now     func() time.Time
}

func (o *objects) ConfigMap(_ context.Context, _, name string) (*corev1.ConfigMap, error) {
	if data, ok := o.maps[name]; ok {
		return &corev1.ConfigMap{Data: data, BinaryData: map[string][]byte{}}, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "configmaps"}, name)
}

func (o *objects) Secret(_ context.Context, _, name string) (*corev1.Secret, error) {
	data, ok := o.secrets[name]
	if !ok {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
	}
	s := &corev1.Secret{Data: map[string][]byte{}}
	for key, text := range data {
		s.Data[key] = []byte(text)
	}
	return s, nil
}

func (o *objects) Token(_ context.Context, pod *corev1.Pod, audience string, seconds int64) (string, time.Time, error) {
	if o.refuse != nil {
		return "", time.Time{}, o.refuse
	}
	o.tokens++
	return fmt.Sprintf("%s for %s %d", pod.Spec.ServiceAccountName, audience, o.tokens), o.now().Add(time.Duration(seconds) * time.Second), nil
}

func (o *objects) Claim(_ context.Context, _, name string) (*corev1.PersistentVolumeClaim, error) {
	if name != "disk" {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "persistentvolumeclaims"}, name)
	}
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{UID: "claim-uid"}}, nil
}

func newObjects() *objects {
	return &objects{now: time.Now,
		maps:    map[string]map[string]string{"settings": {"a": "1", "b": "2"}},
		secrets: map[string]map[string]string{"login": {"user": "me", "password": "secret"}}}
}

// podOf is a pod of a spec.
func podOf(t *testing.T, spec string) env.Pod {
	t.Helper()
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "ns", Labels: map[string]string{"app": "x"}}}
	if err := yaml.UnmarshalStrict([]byte(spec), &pod.Spec); err != nil {
		t.Fatal(err)
	}
	return env.Pod{Object: pod, Addresses: []string{"10.244.0.9"}, CPUs: 2, Memory: 1 << 30}
}

func dirsOf(t *testing.T) Dirs {
	t.Helper()
	dir := t.TempDir()
	return Dirs{Memory: filepath.Join(dir, "memory"), Disk: filepath.Join(dir, "disk"), Claims: filepath.Join(dir, "claims")}
}

// files is what a container sees in a directory: text by name.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	var walk func(dir, below string)
	walk = func(dir, below string) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			path, name := filepath.Join(dir, e.Name()), below+e.Name()
			if strings.HasPrefix(e.Name(), "..") {
				continue
			}
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if info.IsDir() {
				walk(path, name+"/")
				continue
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			found[name] = string(text)
		}
	}
	walk(dir, "")
	return found
}

func TestContents(t *testing.T) {
	for _, c := range []struct {
		name, volume string
		want         map[string]string
		words        string
	}{
		{"a ConfigMap", `configMap: {name: settings}`, map[string]string{"a": "1", "b": "2"}, ""},
		{"chosen keys at paths", `configMap: {name: settings, items: [{key: b, path: deep/er/x}]}`, map[string]string{"deep/er/x": "2"}, ""},
		{"a Secret", `secret: {secretName: login}`, map[string]string{"user": "me", "password": "secret"}, ""},
		{"one that is missing", `secret: {secretName: none}`, nil, `volume "v": secrets "none" not found`},
		{"one that may be missing", `configMap: {name: none, optional: true}`, map[string]string{}, ""},
		{"a key that is missing", `configMap: {name: settings, items: [{key: z, path: z}]}`, nil, `configmap "ns/settings" has no key "z"`},
		{"a key that may be missing", `configMap: {name: settings, optional: true, items: [{key: z, path: z}]}`, map[string]string{}, ""},
		{"a path that leads out", `configMap: {name: settings, items: [{key: a, path: ../a}]}`, nil, "leads out of the volume"},
		{"the pod's own", `downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, {path: cpu, resourceFieldRef: {containerName: a, resource: limits.cpu}}]}`,
			map[string]string{"labels": `app="x"`, "cpu": "2"}, ""},
		{"a projection", `projected: {sources: [{serviceAccountToken: {path: token, audience: istio-ca}}, {configMap: {name: settings, items: [{key: a, path: a}]}},
			{secret: {name: login, items: [{key: user, path: user}]}}, {downwardAPI: {items: [{path: ns, fieldRef: {fieldPath: metadata.namespace}}]}}]}`,
			map[string]string{"token": "acct for istio-ca 1", "a": "1", "user": "me", "ns": "ns"}, ""},
		{"what a cluster has only", `nfs: {server: x, path: /}`, nil, "needs a cluster"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := podOf(t, "serviceAccountName: acct\ncontainers: [{name: a, volumeMounts: [{name: v, mountPath: /v}]}]\nvolumes: [{name: v, "+c.volume+"}]")
			made, err := Make(t.Context(), pod, newObjects(), dirsOf(t))
			if c.words != "" {
				if err == nil || !strings.Contains(err.Error(), c.words) {
					t.Fatalf("%v does not say %q", err, c.words)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			mounts, err := made.Mounts(&pod.Object.Spec.Containers[0], nil)
			if err != nil || len(mounts) != 1 || !mounts[0].ReadOnly || mounts[0].Target != "/v" {
				t.Fatalf("mounts are %+v, %v", mounts, err)
			}
			if got := files(t, mounts[0].Source); !maps.Equal(got, c.want) {
				t.Errorf("files are %q, not %q", got, c.want)
			}
		})
	}
}

func TestModes(t *testing.T) {
	pod := podOf(t, `{containers: [], volumes: [{name: v, secret: {secretName: login, defaultMode: 0400, items: [{key: user, path: user}, {key: password, path: p, mode: 0444}]}}]}`)
	dirs := dirsOf(t)
	if _, err := Make(t.Context(), pod, newObjects(), dirs); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]fs.FileMode{"user": 0o400, "p": 0o444} {
		if info, err := os.Stat(filepath.Join(dirs.Memory, "v", name)); err != nil || info.Mode() != want {
			t.Errorf("%s is %v, %v, not %v", name, info.Mode(), err, want)
		}
	}
}

func TestContentsChangeAtOnce(t *testing.T) {
	source, dirs := newObjects(), dirsOf(t)
	pod := podOf(t, `{containers: [], volumes: [{name: v, configMap: {name: settings}}, {name: labels, downwardAPI: {items: [{path: l, fieldRef: {fieldPath: metadata.labels}}]}}]}`)
	made, err := Make(t.Context(), pod, source, dirs)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(dirs.Memory, "v")
	before, err := os.Readlink(filepath.Join(dir, "..data"))
	if err != nil {
		t.Fatal(err)
	}
	refresh := func() {
		t.Helper()
		if _, err := made.Refresh(t.Context(), pod, time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	if after, _ := os.Readlink(filepath.Join(dir, "..data")); after != before {
		t.Errorf("contents that are the same were written again: %s, %s", before, after)
	}
	source.maps["settings"] = map[string]string{"b": "3", "c": "4"}
	pod.Object.Labels["new"] = "yes"
	refresh()
	if got := files(t, dir); !maps.Equal(got, map[string]string{"b": "3", "c": "4"}) {
		t.Errorf("files are %q", got)
	}
	if got := files(t, filepath.Join(dirs.Memory, "labels")); !strings.Contains(got["l"], `new="yes"`) {
		t.Errorf("labels are %q", got)
	}
	if names, err := filepath.Glob(filepath.Join(dir, "..2*")); err != nil || len(names) != 1 {
		t.Errorf("old contents are left: %q, %v", names, err)
	}
	delete(source.maps, "settings")
	if _, err := made.Refresh(t.Context(), pod, time.Now()); err == nil {
		t.Error("a ConfigMap that is gone is no error")
	}
	if got := files(t, dir); got["b"] != "3" {
		t.Errorf("a ConfigMap that is gone took the files along: %q", got)
	}
}

func TestTokensAreRenewedInTime(t *testing.T) {
	now := time.Now()
	source, dirs := newObjects(), dirsOf(t)
	source.now = func() time.Time { return now }
	pod := podOf(t, `{containers: [], volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t, expirationSeconds: 1000}}]}}]}`)
	made, err := Make(t.Context(), pod, source, dirs)
	if err != nil {
		t.Fatal(err)
	}
	text := func() string { return files(t, filepath.Join(dirs.Memory, "v"))["t"] }
	next, err := made.Refresh(t.Context(), pod, now)
	if left := next.Sub(now); err != nil || left < 799*time.Second || left > 801*time.Second || !strings.HasSuffix(text(), "1") {
		t.Fatalf("the token %q is renewed in %s, %v", text(), left, err)
	}
	source.refuse = errors.New("away")
	now = next
	if next, err = made.Refresh(t.Context(), pod, now); err != nil || next.Sub(now) != time.Minute || !strings.HasSuffix(text(), "1") {
		t.Fatalf("a token that cannot be renewed: %q, next in %s, %v", text(), next.Sub(now), err)
	}
	source.refuse = nil
	now = next
	if _, err = made.Refresh(t.Context(), pod, now); err != nil || !strings.HasSuffix(text(), "2") {
		t.Fatalf("the token is %q, %v", text(), err)
	}
}

func TestDirectories(t *testing.T) {
	dirs := dirsOf(t)
	here := t.TempDir()
	pod := podOf(t, `
containers:
- name: a
  volumeMounts:
  - {name: disk, mountPath: /disk}
  - {name: memory, mountPath: /memory}
  - {name: claim, mountPath: /claim, readOnly: true}
  - {name: host, mountPath: /host}
  - {name: disk, mountPath: /sub, subPath: some/where}
  - {name: disk, mountPath: /expr, subPathExpr: "$(POD)/x"}
  - {name: settings, mountPath: /file, subPath: a}
  - {name: settings, mountPath: /settings}
  - {name: memory, mountPath: /settings/nested}
volumes:
- {name: disk, emptyDir: {}}
- {name: memory, emptyDir: {medium: Memory}}
- {name: claim, persistentVolumeClaim: {claimName: disk}}
- {name: host, hostPath: {path: `+here+`/new, type: DirectoryOrCreate}}
- {name: settings, configMap: {name: settings}}
`)
	made, err := Make(t.Context(), pod, newObjects(), dirs)
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := made.Mounts(&pod.Object.Spec.Containers[0], []string{"POD=p"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range mounts {
		relative := strings.NewReplacer(dirs.Memory, "MEMORY", dirs.Disk, "DISK", dirs.Claims, "CLAIMS", here, "HERE").Replace(m.Source)
		got = append(got, fmt.Sprintf("%s=%s,%t", m.Target, relative, m.ReadOnly))
		if _, err := os.Stat(m.Source); err != nil {
			t.Error(err)
		}
	}
	want := []string{"/claim=CLAIMS/claim-uid,true", "/disk=DISK/disk,false", "/expr=DISK/disk/p/x,false", "/file=MEMORY/settings/a,true",
		"/host=HERE/new,false", "/memory=MEMORY/memory,false", "/settings=MEMORY/settings,true", "/settings/nested=MEMORY/memory,false", "/sub=DISK/disk/some/where,false"}
	if !slices.Equal(got, want) {
		t.Errorf("mounts are\n%s\nnot\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if info, err := os.Stat(filepath.Join(dirs.Memory, "settings", "nested")); err != nil || !info.IsDir() {
		t.Errorf("the mount point inside another volume: %v", err)
	}
	if err := made.Remove(); err != nil {
		t.Fatal(err)
	}
	for dir, stays := range map[string]bool{dirs.Memory: false, dirs.Disk: false, filepath.Join(dirs.Claims, "claim-uid"): true, filepath.Join(here, "new"): true} {
		if _, err := os.Stat(dir); (err == nil) != stays {
			t.Errorf("%s: %v, stays %t", dir, err, stays)
		}
	}
}

func TestSubPathStaysInside(t *testing.T) {
	pod := podOf(t, `{containers: [{name: a, volumeMounts: [{name: v, mountPath: /v, subPath: link/x}]}], volumes: [{name: v, emptyDir: {}}]}`)
	dirs := dirsOf(t)
	made, err := Make(t.Context(), pod, newObjects(), dirs)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(t.TempDir(), filepath.Join(dirs.Disk, "v", "link")); err != nil {
		t.Fatal(err)
	}
	if mounts, err := made.Mounts(&pod.Object.Spec.Containers[0], nil); err == nil {
		t.Errorf("a link led a subPath out of its volume: %+v", mounts)
	}
}

func TestHostPathTypes(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		path, kind, words string
	}{
		{filepath.Join(dir, "some", "where"), "", ""},
		{"/dev/null/x", "", "not a directory"},
		{dir, "Directory", ""},
		{file, "Directory", "is not a Directory"},
		{file, "File", ""},
		{dir, "File", "is not a File"},
		{filepath.Join(dir, "made"), "FileOrCreate", ""},
		{filepath.Join(dir, "none"), "File", "no such file"},
		{"/dev/null", "CharDevice", ""},
		{file, "Socket", "is not a Socket"},
	} {
		kind := corev1.HostPathType(c.kind)
		err := hostPath(&corev1.HostPathVolumeSource{Path: c.path, Type: &kind})
		if c.words == "" && err != nil || c.words != "" && (err == nil || !strings.Contains(err.Error(), c.words)) {
			t.Errorf("%s as %q: %v, want %q", c.path, c.kind, err, c.words)
		}
	}
}

func TestRefers(t *testing.T) {
	pod := podOf(t, `{containers: [], volumes: [{name: a, configMap: {name: m}}, {name: b, projected: {sources: [{secret: {name: s}}]}}]}`).Object
	for _, c := range []struct {
		kind, name string
		want       bool
	}{{"ConfigMap", "m", true}, {"Secret", "s", true}, {"Secret", "m", false}, {"ConfigMap", "s", false}} {
		if got := Refers(pod, c.kind, c.name); got != c.want {
			t.Errorf("%s %s: %t", c.kind, c.name, got)
		}
	}
}
