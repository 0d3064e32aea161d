package stage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks bounds how many symbolic links one path may lead through.
const maxLinks = 40

// A tree is a container's root while mounts are put into it. A place for a mount that is missing
// is made, but never in a directory that is not the container's: such a directory gives way to
// one in memory with links to what it held.
type tree struct {
	own     map[uint64]bool // devices of file systems that are the container's alone
	volumes []volume
	behind  int // directories that gave way
}

// A volume is a mount that has been made.
type volume struct {
	path     string // without links
	writable bool
}

func newTree() (*tree, error) {
	device, err := device("/")
	if err != nil {
		return nil, err
	}
	return &tree{own: map[uint64]bool{device: true}}, nil
}

func device(path string) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Dev, nil
}

// mountAll makes the mounts in their order; a later one may lie in an earlier one.
func (t *tree) mountAll(mounts []Mount, sources []int) error {
	for i, m := range mounts {
		if err := t.mount(m, sources[i]); err != nil {
			return fmt.Errorf("mount %q: %w", m.Target, err)
		}
	}
	return nil
}

func (t *tree) mount(m Mount, source int) error {
	directory := true
	if source >= 0 {
		var st unix.Stat_t
		if err := unix.Fstat(source, &st); err != nil {
			return err
		}
		directory = st.Mode&unix.S_IFMT == unix.S_IFDIR
	}
	at, err := t.place(m.Target, directory)
	if err != nil {
		return err
	}
	if source < 0 {
		err = t.memory(at, "mode=1777")
	} else {
		err = unix.Mount(fmt.Sprintf("/proc/self/fd/%d", source), at, "", unix.MS_BIND|unix.MS_REC, "")
	}
	if err == nil && m.ReadOnly {
		err = readOnly(at)
	}
	t.volumes = append(t.volumes, volume{at, !m.ReadOnly})
	return err
}

// memory mounts a file system in memory.
func (t *tree) memory(at, options string) error {
	if err := unix.Mount("tmpfs", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return err
	}
	device, err := device(at)
	t.own[device] = true
	return err
}

// readOnly changes a mount. What else the machine forbids of it stays forbidden, as a user must
// say anew.
func readOnly(at string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil {
		return err
	}
	flags := uintptr(fs.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC) // ST_ and MS_ are the same here
	return unix.Mount("", at, "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|flags, "")
}

// workDir makes the working directory when the image lacks it.
func (t *tree) workDir(dir string) error {
	if dir == "" {
		return nil
	}
	if _, err := t.place(dir, true); err != nil {
		return fmt.Errorf("working directory %q: %w", dir, err)
	}
	return nil
}

// place follows a path through the container's root, makes what is missing, and returns the
// path without links.
func (t *tree) place(path string, directory bool) (string, error) {
	at, rest, links := "/", names(path), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		next := filepath.Join(at, name)
		info, err := os.Lstat(next)
		switch {
		case errors.Is(err, os.ErrNotExist):
			if err := t.create(at, next, directory || len(rest) > 0); err != nil {
				return "", err
			}
		case err != nil:
			return "", err
		case info.Mode().Type() == os.ModeSymlink:
			if links++; links > maxLinks {
				return "", &os.PathError{Op: "open", Path: path, Err: unix.ELOOP}
			}
			to, err := os.Readlink(next)
			if err != nil {
				return "", err
			}
			rest = append(names(to), rest...)
			if next = at; filepath.IsAbs(to) {
				next = "/"
			}
		case !info.IsDir() && (len(rest) > 0 || directory):
			return "", &os.PathError{Op: "open", Path: next, Err: unix.ENOTDIR}
		case info.IsDir() && len(rest) == 0 && !directory:
			return "", &os.PathError{Op: "open", Path: next, Err: unix.EISDIR}
		}
		at = next
	}
	return at, nil
}

// names are the steps of a path. Steps upwards stay: they count once links are known.
func names(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
}

// create makes a directory or an empty file.
func (t *tree) create(dir, path string, directory bool) error {
	free, err := t.mayWrite(dir)
	if err != nil {
		return err
	}
	if !free {
		if err := t.giveWay(dir); err != nil {
			return err
		}
	}
	if directory {
		return mkdir(path)
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644) //nolint:gosec // hidden by what is mounted on it
	if err != nil {
		return err
	}
	return file.Close()
}

// mayWrite reports whether a directory is in a volume that the container may write, or its own.
func (t *tree) mayWrite(dir string) (bool, error) {
	var in volume
	for _, v := range t.volumes {
		if (dir == v.path || strings.HasPrefix(dir, v.path+"/")) && len(v.path) >= len(in.path) {
			in = v
		}
	}
	if in.path != "" {
		return in.writable, nil
	}
	device, err := device(dir)
	return t.own[device], err
}

// giveWay puts a directory in memory over one that is not the container's, with links to what
// that holds.
func (t *tree) giveWay(dir string) error {
	t.behind++
	behind := fmt.Sprintf("%s/%d", hostDir, t.behind)
	if err := bind(dir, behind); err != nil {
		return err
	}
	if err := t.memory(dir, "mode=0755"); err != nil {
		return err
	}
	t.volumes = append(t.volumes, volume{dir, true})
	return link(behind, dir)
}
