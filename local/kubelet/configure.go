package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/lateen-mesh/lateen/local/container"
	"github.com/lateen-mesh/lateen/local/kubelet/env"
	"github.com/lateen-mesh/lateen/local/kubelet/image"
	"github.com/lateen-mesh/lateen/local/kubelet/probe"
	"github.com/lateen-mesh/lateen/wellknown"
)

// unprivileged is who a container runs as that must not be root and says no more, when its
// image does not either.
const unprivileged = 1000

// configureTime bounds reading the objects that variables refer to.
const configureTime = 10 * time.Second

// configure makes the container's settings from manifest and image. Its errors are of the
// manifest, or of objects that are missing.
func (r *run) configure(img image.Image) (c container.Config, netns *os.File, err error) {
	ctx, cancel := context.WithTimeout(r.living, configureTime)
	defer cancel()
	about, netns, volumes := r.w.box.share()
	if netns == nil || volumes == nil {
		return c, nil, errors.New("the pod's network is gone")
	}
	pod := about.Object
	img, program := reachable(img)
	if err := r.environment(ctx, about, img, &c); err != nil {
		return c, nil, err
	}
	c.Argv = argv(r.spec, img, c.Env)
	if len(c.Argv) == 0 && !redirects(r.spec) {
		return c, nil, fmt.Errorf("container %s: neither image nor manifest has a command", r.spec.Name)
	}
	if c.Mounts, err = volumes.Mounts(r.spec, c.Env); err != nil {
		return c, nil, err
	}
	if err := r.addMounts(program, &c); err != nil {
		return c, nil, err
	}
	if image.IsProxy(r.spec.Image) {
		r.w.k.equip(&c)
	}
	if err := identify(pod, r.spec, img, &c); err != nil {
		return c, nil, err
	}
	c.Root, c.Dir = img.Root, firstOf(r.spec.WorkingDir, img.Dir)
	c.Hostname, c.Files = hostname(pod), files(pod, about.Addresses[0])
	c.TTY = r.spec.TTY
	if limit, ok := r.spec.Resources.Limits[corev1.ResourceMemory]; ok {
		c.Limits.MemoryBytes = limit.Value()
	}
	r.signal = stopSignal(r.spec)
	r.target = probe.Target{Address: about.Addresses[0], Container: r.spec, Dial: r.w.k.o.Mesh.DialContext, Exec: r.ask}
	return c, netns, r.openInput(&c)
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (r *run) environment(ctx context.Context, about env.Pod, img image.Image, c *container.Config) error {
	services, err := r.w.k.services.List(labels.Everything())
	if err != nil {
		return err
	}
	given := slices.Concat(img.Env, []string{"HOSTNAME=" + hostname(about.Object)}, env.Services(about.Object, services))
	if r.spec.TTY {
		given = append(given, "TERM=xterm")
	}
	c.Env, err = env.Of(ctx, about, r.spec, source{r.w.k}, given)
	return err
}

// argv is the command of the manifest, or of the image.
func argv(spec *corev1.Container, img image.Image, variables []string) []string {
	command, args := img.Entrypoint, img.Args
	if len(spec.Command) > 0 {
		command, args = env.ExpandAll(spec.Command, variables), nil
	}
	if len(spec.Args) > 0 {
		args = env.ExpandAll(spec.Args, variables)
	}
	return slices.Concat(command, args)
}

// addMounts adds what every container has: the file for its last words, and the directory of its
// program where that is not visible.
func (r *run) addMounts(program container.Mount, c *container.Config) error {
	file := r.messageFile()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		return err
	}
	//nolint:gosec // any user of the container may write it
	if err := os.Chmod(file, 0o666); err != nil {
		return err
	}
	at := firstOf(r.spec.TerminationMessagePath, corev1.TerminationMessagePathDefault)
	if !slices.ContainsFunc(c.Mounts, func(m container.Mount) bool { return m.Target == path.Clean(at) }) {
		c.Mounts = append(c.Mounts, container.Mount{Target: path.Clean(at), Source: file})
	}
	show(c, program)
	return nil
}

// programs is where containers have directories of this machine that their users may not enter.
const programs = "/run/lateen-programs"

// reachable is an image whose program its users can run, and the directory that is to be mounted for
// that, if any.
func reachable(img image.Image) (image.Image, container.Mount) {
	if img.Root != "" || len(img.Entrypoint) == 0 || !filepath.IsAbs(img.Entrypoint[0]) {
		return img, container.Mount{}
	}
	dir, name := filepath.Split(img.Entrypoint[0])
	m := visible(filepath.Clean(dir), "image")
	if m.Target == "" || m.Target == m.Source {
		return img, m
	}
	img.Entrypoint, img.Env = slices.Clone(img.Entrypoint), slices.Clone(img.Env)
	img.Entrypoint[0] = filepath.Join(m.Target, name)
	for i, v := range img.Env {
		img.Env[i] = strings.Replace(v, "PATH="+m.Source+":", "PATH="+m.Target+":", 1)
	}
	return img, m
}

// visible is how a directory of this machine is to be mounted so that every user of a container
// can use it; the zero Mount where nothing is to be done.
func visible(dir, name string) container.Mount {
	switch {
	case hidden(dir + "/"):
		return container.Mount{Target: dir, Source: dir, ReadOnly: true}
	case closed(dir):
		return container.Mount{Target: filepath.Join(programs, name), Source: dir, ReadOnly: true}
	}
	return container.Mount{}
}

// closed reports whether other users may not enter a directory, or one above it. Those of an ordinary
// user's containers are himself.
func closed(dir string) bool {
	for ; os.Geteuid() == 0 && dir != "/" && dir != "."; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&0o001 == 0 {
			return true
		}
	}
	return false
}

// show mounts a directory within volumes that lie over it.
func show(c *container.Config, m container.Mount) {
	if m.Target == "" {
		return
	}
	at := 0
	for i, other := range c.Mounts {
		if other.Target == m.Target {
			return
		}
		if other.Target == "/" || strings.HasPrefix(m.Target, other.Target+"/") {
			at = i + 1
		}
	}
	c.Mounts = slices.Insert(c.Mounts, at, m)
}

// proxyProgram is the variable that tells an agent which proxy to run.
const proxyProgram = "LATEEN_PROXY"

// equip gives a container with the mesh's proxy what proxies have on this machine.
func (k *Kubelet) equip(c *container.Config) {
	taken := func(m container.Mount) bool { return m.Target == wellknown.SocketDirectory }
	if k.o.Sockets != "" && !slices.ContainsFunc(c.Mounts, taken) {
		c.Mounts = append(c.Mounts, container.Mount{Target: wellknown.SocketDirectory, Source: k.o.Sockets, ReadOnly: true})
	}
	if k.o.Proxy == "" {
		return
	}
	dir, name := filepath.Split(k.o.Proxy)
	m := visible(filepath.Clean(dir), "proxy")
	show(c, m)
	c.Env = append(c.Env, proxyProgram+"="+filepath.Join(firstOf(m.Target, dir), name))
}

// hidden reports whether a path of this machine is one that containers have of their own.
func hidden(program string) bool {
	return strings.HasPrefix(program, "/tmp/") || strings.HasPrefix(program, "/run/") || strings.HasPrefix(program, "/dev/")
}

// identify sets user, groups and rights by the security contexts.
func identify(pod *corev1.Pod, spec *corev1.Container, img image.Image, c *container.Config) error {
	all := pod.Spec.SecurityContext
	if all == nil {
		all = &corev1.PodSecurityContext{}
	}
	own := spec.SecurityContext
	if own == nil {
		own = &corev1.SecurityContext{}
	}
	uid, gid := either(own.RunAsUser, all.RunAsUser), either(own.RunAsGroup, all.RunAsGroup)
	mustNot := own.RunAsNonRoot
	if mustNot == nil {
		mustNot = all.RunAsNonRoot
	}
	c.UID, c.GID = max(img.UID, 0), max(img.GID, 0)
	switch {
	case uid != nil:
		c.UID = int(*uid)
	case mustNot != nil && *mustNot && c.UID == 0 && img.Root == "":
		c.UID, c.GID = unprivileged, unprivileged
	}
	if gid != nil {
		c.GID = int(*gid)
	}
	if mustNot != nil && *mustNot && c.UID == 0 {
		return fmt.Errorf("container has runAsNonRoot and image will run as root (pod: %q, container: %s)", pod.Namespace+"/"+pod.Name, spec.Name)
	}
	if all.FSGroup != nil {
		c.Groups = append(c.Groups, int(*all.FSGroup))
	}
	for _, g := range all.SupplementalGroups {
		c.Groups = append(c.Groups, int(g))
	}
	c.NetAdmin = netAdmin(own) || spec.Name == proxyName
	return nil
}

// proxyName is the container of a sidecar. It marks its packets here, as it has no user of its
// own where only one is to be had.
const proxyName = "istio-proxy"

func either(own, all *int64) *int64 {
	if own != nil {
		return own
	}
	return all
}

func netAdmin(s *corev1.SecurityContext) bool {
	if s.Privileged != nil && *s.Privileged {
		return true
	}
	return s.Capabilities != nil && slices.ContainsFunc(s.Capabilities.Add, func(c corev1.Capability) bool {
		return c == "NET_ADMIN" || c == "NET_RAW" || c == "ALL"
	})
}

// stopSignal is the one that the manifest names, or SIGTERM.
func stopSignal(spec *corev1.Container) syscall.Signal {
	if l := spec.Lifecycle; l != nil && l.StopSignal != nil {
		if s := unix.SignalNum(string(*l.StopSignal)); s != 0 {
			return s
		}
	}
	return syscall.SIGTERM
}

// openInput gives the container a standard input that stays open, if it wants one.
func (r *run) openInput(c *container.Config) error {
	if !r.spec.Stdin {
		return nil
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	c.Stdin, r.input = read, write
	return nil
}
