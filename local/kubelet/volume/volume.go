// Package volume makes the volumes of pods as directories.
//
// What holds secrets or the words of the API (secret, configMap, downwardAPI,
// projected, and emptyDir of medium Memory) is in a directory that is to be memory;
// the rest is on disk. Contents change as a whole: files are links through ..data,
// which one rename turns to the new ones. Claims are directories that outlive pods.
package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/lateen-mesh/lateen/local/container"
	"github.com/lateen-mesh/lateen/local/kubelet/env"
)

// A Source has what volumes are made of.
type Source interface {
	env.Source
	// Token asks for a token of the pod's service account.
	Token(ctx context.Context, pod *corev1.Pod, audience string, seconds int64) (token string, expires time.Time, err error)
	Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
}

// Dirs are where volumes are.
type Dirs struct {
	Memory string // of this pod, in memory
	Disk   string // of this pod
	Claims string // of all persistent volume claims
}

// Volumes are a pod's. Refresh and Remove are for one goroutine at a time; Mounts may be
// called beside them.
type Volumes struct {
	dirs   Dirs
	source Source
	all    map[string]*volume
}

// A volume is one of them.
type volume struct {
	spec     corev1.Volume
	path     string
	readOnly bool
	content  bool // its files are written by this package
	group    int64
	tokens   map[string]token // by path
}

// Make makes a pod's volumes with their first contents. Its error names the volume
// and what is missing; Make may be called again then.
func Make(ctx context.Context, pod env.Pod, source Source, dirs Dirs) (*Volumes, error) {
	v := &Volumes{dirs: dirs, source: source, all: map[string]*volume{}}
	for _, spec := range pod.Object.Spec.Volumes {
		one, err := v.make(ctx, pod, spec)
		if err != nil {
			return nil, fmt.Errorf("volume %q: %w", spec.Name, err)
		}
		v.all[spec.Name] = one
	}
	if err := v.nest(pod.Object); err != nil {
		return nil, err
	}
	return v, nil
}

func (v *Volumes) make(ctx context.Context, pod env.Pod, spec corev1.Volume) (*volume, error) {
	one := &volume{spec: spec, group: -1, tokens: map[string]token{}}
	if s := pod.Object.Spec.SecurityContext; s != nil && s.FSGroup != nil {
		one.group = *s.FSGroup
	}
	memory, disk := filepath.Join(v.dirs.Memory, spec.Name), filepath.Join(v.dirs.Disk, spec.Name)
	switch {
	case spec.ConfigMap != nil, spec.Secret != nil, spec.DownwardAPI != nil, spec.Projected != nil:
		one.path, one.readOnly, one.content = memory, true, true
		//nolint:gosec // users of the pod other than root read it; the directory above is the owner's only
		if err := os.MkdirAll(one.path, 0o755); err != nil {
			return nil, err
		}
		_, err := one.refresh(ctx, pod, v.source, time.Now())
		return one, err
	case spec.EmptyDir != nil && spec.EmptyDir.Medium == corev1.StorageMediumMemory:
		one.path = memory
		return one, one.open()
	case spec.EmptyDir != nil, spec.Ephemeral != nil:
		one.path = disk
		return one, one.open()
	case spec.PersistentVolumeClaim != nil:
		claim, err := v.source.Claim(ctx, pod.Object.Namespace, spec.PersistentVolumeClaim.ClaimName)
		if err != nil {
			return nil, err
		}
		one.path, one.readOnly = filepath.Join(v.dirs.Claims, string(claim.UID)), spec.PersistentVolumeClaim.ReadOnly
		return one, one.open()
	case spec.HostPath != nil:
		one.path = spec.HostPath.Path
		return one, hostPath(spec.HostPath)
	}
	return nil, errors.New("its kind needs a cluster; here are configMap, secret, projected, downwardAPI, emptyDir, hostPath and persistentVolumeClaim")
}

// open makes a directory that every user may write, or the pod's group.
func (o *volume) open() error {
	if err := os.MkdirAll(o.path, 0o700); err != nil {
		return err
	}
	//nolint:gosec // an emptyDir is for every user of the pod; the directory above is the owner's only
	if err := os.Chmod(o.path, 0o777); err != nil {
		return err
	}
	if o.group >= 0 && os.Geteuid() == 0 && os.Chown(o.path, -1, int(o.group)) == nil {
		return os.Chmod(o.path, 0o777|os.ModeSetgid)
	}
	return nil
}

// hostPath checks that a path of this machine is what the manifest says it is. One of no type is made
// a directory when nothing is there.
func hostPath(h *corev1.HostPathVolumeSource) error {
	kind := corev1.HostPathUnset
	if h.Type != nil {
		kind = *h.Type
	}
	switch kind {
	case corev1.HostPathUnset:
		if _, err := os.Stat(h.Path); err == nil {
			return nil
		}
		fallthrough
	case corev1.HostPathDirectoryOrCreate:
		if err := os.MkdirAll(h.Path, 0o755); err != nil { //nolint:gosec // the mode that the API says
			return fmt.Errorf("hostPath: %w", err)
		}
	case corev1.HostPathFileOrCreate:
		f, err := os.OpenFile(h.Path, os.O_CREATE|os.O_RDONLY, 0o644) //nolint:gosec // the mode that the API says
		if err != nil {
			return fmt.Errorf("hostPath: %w", err)
		}
		_ = f.Close()
	}
	info, err := os.Stat(h.Path)
	if err != nil {
		return fmt.Errorf("hostPath: %w", err)
	}
	fits := map[corev1.HostPathType]bool{
		corev1.HostPathUnset: true, corev1.HostPathDirectory: info.IsDir(), corev1.HostPathDirectoryOrCreate: info.IsDir(),
		corev1.HostPathFile: info.Mode().IsRegular(), corev1.HostPathFileOrCreate: info.Mode().IsRegular(),
		corev1.HostPathSocket:  info.Mode()&os.ModeSocket != 0,
		corev1.HostPathCharDev: info.Mode()&os.ModeCharDevice != 0, corev1.HostPathBlockDev: info.Mode()&os.ModeDevice != 0 && info.Mode()&os.ModeCharDevice == 0,
	}
	if !fits[kind] {
		return fmt.Errorf("hostPath type check failed: %s is not a %s", h.Path, kind)
	}
	return nil
}

// Mounts are those of a container, outer ones first. The variables are the container's,
// for subPathExpr.
func (v *Volumes) Mounts(c *corev1.Container, variables []string) ([]container.Mount, error) {
	var mounts []container.Mount
	for _, m := range c.VolumeMounts {
		one := v.all[m.Name]
		if one == nil {
			return nil, fmt.Errorf("container %s: there is no volume %q", c.Name, m.Name)
		}
		source, err := one.below(m, variables)
		if err != nil {
			return nil, fmt.Errorf("container %s: volume %q: %w", c.Name, m.Name, err)
		}
		mounts = append(mounts, container.Mount{Target: path.Clean("/" + m.MountPath), Source: source, ReadOnly: one.readOnly || m.ReadOnly})
	}
	slices.SortStableFunc(mounts, func(a, b container.Mount) int { return strings.Compare(a.Target, b.Target) })
	return mounts, nil
}

// below is the path that a mount shows: the volume or something in it, made when missing.
func (o *volume) below(m corev1.VolumeMount, variables []string) (string, error) {
	sub := m.SubPath
	if m.SubPathExpr != "" {
		sub = env.ExpandAll([]string{m.SubPathExpr}, variables)[0]
	}
	if sub == "" {
		return o.path, nil
	}
	root, err := os.OpenRoot(o.path)
	if err != nil {
		return "", err
	}
	defer root.Close()
	if _, err = root.Stat(sub); errors.Is(err, os.ErrNotExist) {
		err = root.MkdirAll(sub, 0o777)
	}
	if err != nil {
		return "", fmt.Errorf("subPath: %w", err)
	}
	return filepath.Join(o.path, sub), nil
}

// nest makes the mount points of volumes that are mounted inside others.
func (v *Volumes) nest(pod *corev1.Pod) error {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, outer := range c.VolumeMounts {
			one := v.all[outer.Name]
			if one == nil || outer.SubPath != "" || outer.SubPathExpr != "" || one.spec.HostPath != nil {
				continue
			}
			for _, inner := range c.VolumeMounts {
				below, ok := strings.CutPrefix(path.Clean("/"+inner.MountPath), strings.TrimSuffix(path.Clean("/"+outer.MountPath), "/")+"/")
				if !ok || inner.Name == outer.Name {
					continue
				}
				if err := v.point(one, below, inner); err != nil {
					return fmt.Errorf("volume %q: mount point %s: %w", outer.Name, below, err)
				}
			}
		}
	}
	return nil
}

// point makes one mount point: a file for a file, else a directory.
func (v *Volumes) point(outer *volume, below string, inner corev1.VolumeMount) error {
	root, err := os.OpenRoot(outer.path)
	if err != nil {
		return err
	}
	defer root.Close()
	if _, err := root.Stat(below); err == nil {
		return nil
	}
	file := false
	if one := v.all[inner.Name]; one != nil {
		info, err := os.Stat(filepath.Join(one.path, inner.SubPath))
		file = err == nil && !info.IsDir()
	}
	if !file {
		return root.MkdirAll(below, 0o755)
	}
	if err := root.MkdirAll(path.Dir(below), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(below, os.O_CREATE|os.O_RDONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

// Refresh writes contents that changed, tokens that grow old among them. A volume
// whose objects are missing keeps what it has, and is in the error. The time is when a
// token is to be renewed; zero: none.
func (v *Volumes) Refresh(ctx context.Context, pod env.Pod, now time.Time) (next time.Time, err error) {
	for _, spec := range pod.Object.Spec.Volumes {
		one := v.all[spec.Name]
		if one == nil || !one.content {
			continue
		}
		due, failed := one.refresh(ctx, pod, v.source, now)
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("volume %q: %w", spec.Name, failed))
		}
		if !due.IsZero() && (next.IsZero() || due.Before(next)) {
			next = due
		}
	}
	return next, err
}

// Refers reports whether a pod's volumes are made of an object of this kind ("ConfigMap",
// "Secret") and name, in the pod's namespace.
func Refers(pod *corev1.Pod, kind, name string) bool {
	for _, spec := range pod.Spec.Volumes {
		sources := []corev1.VolumeProjection{}
		if spec.Projected != nil {
			sources = spec.Projected.Sources
		}
		switch {
		case kind == "ConfigMap" && spec.ConfigMap != nil && spec.ConfigMap.Name == name,
			kind == "Secret" && spec.Secret != nil && spec.Secret.SecretName == name:
			return true
		}
		for _, s := range sources {
			if kind == "ConfigMap" && s.ConfigMap != nil && s.ConfigMap.Name == name || kind == "Secret" && s.Secret != nil && s.Secret.Name == name {
				return true
			}
		}
	}
	return false
}

// Remove removes the pod's volumes; claims and paths of this machine stay.
func (v *Volumes) Remove() error { return Remove(v.dirs) }

// Remove removes what is left of a pod's volumes.
func Remove(dirs Dirs) error {
	return errors.Join(os.RemoveAll(dirs.Memory), os.RemoveAll(dirs.Disk))
}
