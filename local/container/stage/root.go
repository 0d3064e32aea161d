package stage

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Directories of the container's root that are not its own.
const (
	oldRoot = "/.old"  // the machine's, until the root is made
	hostDir = "/.host" // directories of the machine behind those that show them by links
)

// staging is where the root is put together: a directory that is there on every machine, and is
// seen again once the root is left.
const staging = "/tmp"

// makeRoot gives the container a root file system: the machine's, but for what a pod has of its
// own, or that of an image. The order matters: what mounts show is found in the machine's root,
// where they go is found in the container's, whose links must not lead out of it.
func makeRoot(c *Config) error {
	if err := unix.Sethostname([]byte(c.Hostname)); c.Hostname != "" && err != nil {
		return fmt.Errorf("set the host name %q: %w", c.Hostname, err)
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	sources, err := openSources(c.Mounts)
	if err != nil {
		return err
	}
	if err := enterRoot(c); err != nil {
		return err
	}
	t, err := newTree()
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return t.base(c) },
		t.kernel,
		func() error { return ownFiles(c) },
		func() error { return t.mountAll(c.Mounts, sources) },
		func() error { return protectKernel(c) },
		func() error { return t.workDir(c.Dir) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := unix.Unmount(oldRoot, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the machine's root: %w", err)
	}
	return os.Remove(oldRoot)
}

// openSources finds what mounts show, while paths still mean the machine's.
func openSources(mounts []Mount) ([]int, error) {
	sources := make([]int, len(mounts))
	for i, m := range mounts {
		sources[i] = -1
		if m.Source == "" {
			continue
		}
		fd, err := unix.Open(m.Source, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("mount %q: open %q: %w", m.Target, m.Source, err)
		}
		sources[i] = fd
	}
	return sources, nil
}

// enterRoot changes to a root that is empty, or an image with a layer of memory above it, and
// holds the machine's at oldRoot.
func enterRoot(c *Config) error {
	image := -1
	if c.Root != "" {
		fd, err := unix.Open(c.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("image %q: %w", c.Root, err)
		}
		image = fd
	}
	if err := unix.Mount("tmpfs", staging, "tmpfs", unix.MS_NODEV|unix.MS_NOSUID, "mode=0755"); err != nil {
		return fmt.Errorf("mount the root: %w", err)
	}
	root := staging
	if image >= 0 {
		root = filepath.Join(staging, "root")
		if err := overlay(image, root, c.Nested); err != nil {
			return fmt.Errorf("image %q: %w", c.Root, err)
		}
	}
	if err := os.Mkdir(root+oldRoot, 0o700); err != nil {
		return err
	}
	if err := unix.PivotRoot(root, root+oldRoot); err != nil {
		return fmt.Errorf("change the root: %w", err)
	}
	return unix.Chdir("/")
}

// overlay mounts an image below a layer that takes what is written and goes with the container.
func overlay(image int, root string, nested bool) error {
	for _, dir := range []string{root, staging + "/upper", staging + "/work"} {
		if err := mkdir(dir); err != nil {
			return err
		}
	}
	// The image is named as the working directory: its path may hold the options' separators.
	if err := unix.Fchdir(image); err != nil {
		return err
	}
	options := "lowerdir=.,upperdir=" + staging + "/upper,workdir=" + staging + "/work"
	if nested {
		options += ",userxattr"
	}
	if err := unix.Mount("overlay", root, "overlay", unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount an overlay: %w", err)
	}
	return nil
}

// base fills the root: nothing but what each container has of its own for an image, else the
// machine's directories.
func (t *tree) base(c *Config) error {
	if c.Root == "" {
		return t.hostBase()
	}
	for _, dir := range []string{"/dev", "/proc", "/sys", "/tmp", "/run", "/etc", hostDir} {
		if err := mkdir(dir); err != nil {
			return err
		}
	}
	return os.Chmod("/tmp", 0o777|os.ModeSticky)
}

// own are top-level directories that a container has for itself.
var own = [...]string{"dev", "proc", "sys", "tmp", "run", "etc", "var"}

func (t *tree) hostBase() error {
	entries, err := os.ReadDir(oldRoot)
	if err != nil {
		return err
	}
	if err := mkdir(hostDir); err != nil {
		return err
	}
	for _, entry := range entries {
		if name := entry.Name(); !slices.Contains(own[:], name) && "/"+name != oldRoot && "/"+name != hostDir {
			if err := showTop(entry); err != nil {
				return err
			}
		}
	}
	for _, dir := range []string{"/dev", "/proc", "/sys", "/tmp", "/run", "/etc", "/var", "/run/lock", "/var/tmp"} {
		if err := mkdir(dir); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/tmp", "/var/tmp", "/run/lock"} {
		if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/etc", "/var"} {
		if err := bind(oldRoot+dir, hostDir+dir); err != nil {
			return err
		}
		if err := link(hostDir+dir, dir); err != nil {
			return err
		}
	}
	return nil
}

// showTop puts a top-level directory or link of the machine's root into this one, and a link to
// it into hostDir, where relative links from /etc and /var lead.
func showTop(entry os.DirEntry) error {
	path := "/" + entry.Name()
	switch {
	case entry.Type() == os.ModeSymlink:
		to, err := os.Readlink(oldRoot + path)
		if err != nil {
			return err
		}
		if err := os.Symlink(to, path); err != nil {
			return err
		}
	case entry.IsDir():
		if err := bind(oldRoot+path, path); err != nil {
			return err
		}
	default:
		return nil
	}
	return os.Symlink(path, hostDir+path)
}

// mkdir makes a directory that everybody may read, where there is none.
func mkdir(path string) error {
	return os.MkdirAll(path, 0o755) //nolint:gosec // the root is that of all users of the container
}

// bind shows a directory with all that is mounted in it at a new one. (A user may not show it
// without.)
func bind(from, to string) error {
	if err := mkdir(to); err != nil {
		return err
	}
	if err := unix.Mount(from, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount %q: %w", to, err)
	}
	return nil
}

// link fills a directory with links to the entries of another, which is what it was. What is
// there already stays. Links that lead upwards are copied; all others lead through the other
// directory, so that what is changed behind them is seen.
func link(from, dir string) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, os.ErrPermission) {
		return nil // a directory of another user: its place is all that is seen of it
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		to := filepath.Join(from, entry.Name())
		if entry.Type() == os.ModeSymlink {
			was, err := os.Readlink(to)
			if err != nil {
				return err
			}
			if strings.HasPrefix(was, "../") || filepath.IsAbs(was) {
				to = was
			}
		}
		if err := os.Symlink(to, filepath.Join(dir, entry.Name())); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// kernel mounts what the kernel shows of this container's processes, links and devices.
func (t *tree) kernel() error {
	const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := bind(oldRoot+"/dev", "/dev"); err != nil {
		return err
	}
	if _, err := os.Stat("/dev/shm"); err == nil {
		if err := t.memory("/dev/shm", "mode=1777"); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", safe, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	// A user namespace below the one that owns the network gets no /sys of its own.
	if err := unix.Mount("sysfs", "/sys", "sysfs", safe|unix.MS_RDONLY, ""); err != nil {
		return bind(oldRoot+"/sys", "/sys")
	}
	return nil
}

// protectKernel keeps a root that is the machine's from changing its settings by accident.
func protectKernel(c *Config) error {
	if c.NetAdmin || c.Nested {
		return nil
	}
	if err := unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("mount /proc/sys: %w", err)
	}
	return readOnly("/proc/sys")
}

// ownFiles writes a container's files of /etc.
func ownFiles(c *Config) error {
	files := map[string]string{}
	if c.Root == "" {
		files["nsswitch.conf"] = nameSources
	}
	maps.Copy(files, c.Files)
	for name, text := range files {
		path := "/etc/" + name
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil { //nolint:gosec // files of /etc are for everybody
			return err
		}
	}
	return nil
}

// nameSources is a container's /etc/nsswitch.conf on the machine's root: daemons of the machine
// would answer past the mesh.
const nameSources = `passwd: files
group: files
shadow: files
hosts: files dns
networks: files
protocols: files
services: files
`
