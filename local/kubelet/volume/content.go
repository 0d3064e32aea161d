package volume

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/lateen-mesh/lateen/local/kubelet/env"
)

// A file is one of a content.
type file struct {
	text []byte
	mode fs.FileMode
}

// A token is one that was issued.
type token struct {
	text  string
	renew time.Time // after four fifths of its life
}

// defaultTokenLife is that of a token whose manifest names none.
const defaultTokenLife = 3600

// A gathering collects the files of one volume.
type gathering struct {
	*volume
	pod    env.Pod
	source Source
	now    time.Time
	next   time.Time // when a token is due
	files  map[string]file
}

// refresh gathers the contents and writes them, if they differ from those that are there.
func (o *volume) refresh(ctx context.Context, pod env.Pod, source Source, now time.Time) (next time.Time, err error) {
	g := &gathering{volume: o, pod: pod, source: source, now: now, files: map[string]file{}}
	switch s := o.spec; {
	case s.ConfigMap != nil:
		err = g.configMap(ctx, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, mode(s.ConfigMap.DefaultMode))
	case s.Secret != nil:
		err = g.secret(ctx, s.Secret.SecretName, s.Secret.Items, s.Secret.Optional, mode(s.Secret.DefaultMode))
	case s.DownwardAPI != nil:
		err = g.downward(s.DownwardAPI.Items, mode(s.DownwardAPI.DefaultMode))
	case s.Projected != nil:
		err = g.projected(ctx, s.Projected)
	}
	if err != nil {
		return g.next, err
	}
	return g.next, o.write(g.files)
}

// mode is a manifest's, or the default.
func mode(m *int32) fs.FileMode {
	if m == nil {
		return 0o644
	}
	return fs.FileMode(*m) & 0o777
}

func (g *gathering) put(name string, text []byte, m fs.FileMode, own *int32) error {
	if own != nil {
		m = mode(own)
	}
	name = strings.TrimPrefix(name, "/")
	if !filepath.IsLocal(name) || strings.HasPrefix(name, "..") {
		return fmt.Errorf("path %q leads out of the volume", name)
	}
	g.files[path.Clean(name)] = file{text, m}
	return nil
}

func (g *gathering) configMap(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool, m fs.FileMode) error {
	object, err := g.source.ConfigMap(ctx, g.pod.Object.Namespace, name)
	if err != nil {
		return unless(optional, err)
	}
	all := map[string][]byte{}
	for key, text := range object.Data {
		all[key] = []byte(text)
	}
	maps.Copy(all, object.BinaryData)
	return g.keys("configmap", name, all, items, optional, m)
}

func (g *gathering) secret(ctx context.Context, name string, items []corev1.KeyToPath, optional *bool, m fs.FileMode) error {
	object, err := g.source.Secret(ctx, g.pod.Object.Namespace, name)
	if err != nil {
		return unless(optional, err)
	}
	return g.keys("secret", name, object.Data, items, optional, m)
}

func unless(optional *bool, err error) error {
	if optional != nil && *optional && apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// keys puts all of an object's, or the chosen ones.
func (g *gathering) keys(kind, name string, all map[string][]byte, items []corev1.KeyToPath, optional *bool, m fs.FileMode) error {
	if len(items) == 0 {
		for key, text := range all {
			if err := g.put(key, text, m, nil); err != nil {
				return err
			}
		}
		return nil
	}
	for _, item := range items {
		text, ok := all[item.Key]
		if !ok && (optional == nil || !*optional) {
			return fmt.Errorf("%s %q has no key %q", kind, g.pod.Object.Namespace+"/"+name, item.Key)
		}
		if !ok {
			continue
		}
		if err := g.put(item.Path, text, m, item.Mode); err != nil {
			return err
		}
	}
	return nil
}

func (g *gathering) downward(items []corev1.DownwardAPIVolumeFile, m fs.FileMode) error {
	for _, item := range items {
		var text string
		var err error
		if item.FieldRef != nil {
			text, err = g.pod.Field(item.FieldRef.FieldPath)
		} else if item.ResourceFieldRef != nil {
			text, err = g.pod.Resource(item.ResourceFieldRef.ContainerName, item.ResourceFieldRef)
		}
		if err != nil {
			return err
		}
		if err := g.put(item.Path, []byte(text), m, item.Mode); err != nil {
			return err
		}
	}
	return nil
}

func (g *gathering) projected(ctx context.Context, p *corev1.ProjectedVolumeSource) error {
	m := mode(p.DefaultMode)
	for _, s := range p.Sources {
		var err error
		switch {
		case s.ConfigMap != nil:
			err = g.configMap(ctx, s.ConfigMap.Name, s.ConfigMap.Items, s.ConfigMap.Optional, m)
		case s.Secret != nil:
			err = g.secret(ctx, s.Secret.Name, s.Secret.Items, s.Secret.Optional, m)
		case s.DownwardAPI != nil:
			err = g.downward(s.DownwardAPI.Items, m)
		case s.ServiceAccountToken != nil:
			err = g.token(ctx, s.ServiceAccountToken, m)
		default:
			err = fmt.Errorf("a source of its projection is not supported here: use configMap, secret, downwardAPI or serviceAccountToken")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// token puts a token, renewed when four fifths of its life are over. One that cannot be
// renewed stays as it is and is tried again in a minute.
func (g *gathering) token(ctx context.Context, p *corev1.ServiceAccountTokenProjection, m fs.FileMode) error {
	have, ok := g.tokens[p.Path]
	if !ok || !g.now.Before(have.renew) {
		life := int64(defaultTokenLife)
		if p.ExpirationSeconds != nil {
			life = *p.ExpirationSeconds
		}
		text, expires, err := g.source.Token(ctx, g.pod.Object, p.Audience, life)
		switch {
		case err == nil:
			have = token{text, g.now.Add(max(expires.Sub(g.now)*4/5, time.Second))}
		case ok:
			have.renew = g.now.Add(time.Minute)
		default:
			return fmt.Errorf("token of service account %q: %w", g.pod.Object.Spec.ServiceAccountName, err)
		}
		g.tokens[p.Path] = have
	}
	if g.next.IsZero() || have.renew.Before(g.next) {
		g.next = have.renew
	}
	return g.put(p.Path, []byte(have.text), m, nil)
}

// The names by which contents are swapped, as users of volumes know them.
const (
	current = "..data"
	coming  = "..data_tmp"
)

// write makes the files the volume's contents, all at once.
func (o *volume) write(files map[string]file) error {
	before, _ := os.Readlink(filepath.Join(o.path, current))
	if before != "" && o.same(filepath.Join(o.path, before), files) {
		return nil
	}
	dir, err := os.MkdirTemp(o.path, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	if err != nil {
		return err
	}
	if err := o.fill(dir, files); err != nil {
		_ = os.RemoveAll(dir)
		return err
	}
	_ = os.Remove(filepath.Join(o.path, coming)) // of a write that was cut short
	if err := os.Symlink(filepath.Base(dir), filepath.Join(o.path, coming)); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(o.path, coming), filepath.Join(o.path, current)); err != nil {
		return err
	}
	if err := o.link(files); err != nil {
		return err
	}
	if before != "" {
		return os.RemoveAll(filepath.Join(o.path, before))
	}
	return nil
}

// same reports whether a directory holds just these files.
func (o *volume) same(dir string, files map[string]file) bool {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return false
	}
	defer root.Close()
	found := 0
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := root.ReadFile(name)
		if f, ok := files[name]; err != nil || !ok || !bytes.Equal(text, f.text) {
			return fs.SkipAll
		}
		found++
		return nil
	})
	return err == nil && found == len(files)
}

func (o *volume) fill(dir string, files map[string]file) error {
	//nolint:gosec // users of the pod other than root read it; the directory above is the owner's only
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	for name, f := range files {
		to := filepath.Join(dir, name)
		//nolint:gosec // as above
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		m := f.mode
		if o.group >= 0 {
			m |= 0o440
		}
		if err := os.WriteFile(to, f.text, 0o600); err != nil {
			return err
		}
		if o.group >= 0 && os.Geteuid() == 0 {
			_ = os.Chown(to, -1, int(o.group)) // a group that is not mapped cannot own anything here
		}
		if err := os.Chmod(to, m); err != nil {
			return err
		}
	}
	return nil
}

// link leads the names of the files through ..data, and removes those that are gone.
func (o *volume) link(files map[string]file) error {
	wanted := map[string]bool{}
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		wanted[first] = true
	}
	entries, err := os.ReadDir(o.path)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSymlink == 0 || e.Name() == current {
			continue // a mount point of a volume inside this one, or a content
		}
		if !wanted[e.Name()] {
			_ = os.Remove(filepath.Join(o.path, e.Name()))
		}
		delete(wanted, e.Name())
	}
	for name := range wanted {
		to := filepath.Join(o.path, name)
		if info, err := os.Lstat(to); err == nil && info.IsDir() {
			continue // a volume is mounted there
		}
		if err := os.Symlink(filepath.Join(current, name), to); err != nil {
			return err
		}
	}
	return nil
}
