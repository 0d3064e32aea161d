package image

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// The limits of one image.
const (
	maxEntries = 1 << 20
	maxBytes   = 8 << 30
	maxLinks   = 40 // symbolic links on the way to one file
)

// Whiteouts: what a layer says of the ones below.
const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

// A tree is a root file system that layers are unpacked into. No entry leaves it,
// whatever its name and links say: absolute links mean the tree's own root.
type tree struct {
	root    *os.Root
	entries int
	bytes   int64
	own     bool            // files get their owners: this process is root
	fresh   map[string]bool // what the current layer has made
}

func openTree(dir string) (*tree, error) {
	root, err := os.OpenRoot(dir)
	return &tree{root: root, own: os.Geteuid() == 0}, err
}

func (t *tree) close() { _ = t.root.Close() }

// unpack adds a layer.
func (t *tree) unpack(ctx context.Context, layer io.Reader) error {
	t.fresh = map[string]bool{}
	all := tar.NewReader(layer)
	for ctx.Err() == nil {
		h, err := all.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if t.entries++; t.entries > maxEntries {
			return fmt.Errorf("the image has more than %d files", maxEntries)
		}
		if err := t.add(h, all); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
	return ctx.Err()
}

// add does what one entry says.
func (t *tree) add(h *tar.Header, text io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name == "" {
		return nil // the root itself
	}
	dir, err := t.follow(path.Dir(name), maxLinks)
	if err != nil {
		return err
	}
	base := path.Base(name)
	if hidden, ok := strings.CutPrefix(base, whiteout); ok {
		return t.hide(dir, base, hidden)
	}
	if err := t.root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	to := path.Join(dir, base)
	if err := t.clear(to, h.Typeflag == tar.TypeDir); err != nil {
		return err
	}
	t.fresh[to] = true
	if err := t.make(h, to, text); err != nil {
		return err
	}
	if t.own && h.Typeflag != tar.TypeLink {
		_ = t.root.Lchown(to, h.Uid, h.Gid) // an owner who does not exist here stays root
	}
	return nil
}

// make makes one file. Devices and pipes are left out: the container has its own /dev.
func (t *tree) make(h *tar.Header, to string, text io.Reader) error {
	mode := fs.FileMode(h.Mode) & (0o777 | fs.ModeSticky)
	switch h.Typeflag {
	case tar.TypeDir:
		if err := t.root.MkdirAll(to, 0o755); err != nil {
			return err
		}
		return t.root.Chmod(to, mode|0o700)
	case tar.TypeReg:
		return t.file(to, mode, text)
	case tar.TypeSymlink:
		return t.root.Symlink(h.Linkname, to)
	case tar.TypeLink:
		target := strings.TrimPrefix(path.Clean("/"+h.Linkname), "/")
		dir, err := t.follow(path.Dir(target), maxLinks)
		if err != nil {
			return err
		}
		return t.root.Link(path.Join(dir, path.Base(target)), to)
	}
	return nil
}

func (t *tree) file(to string, mode fs.FileMode, text io.Reader) error {
	f, err := t.root.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(f, io.LimitReader(text, maxBytes-t.bytes+1))
	if t.bytes += n; err == nil && t.bytes > maxBytes {
		err = fmt.Errorf("the image is larger than %d bytes", int64(maxBytes))
	}
	if err == nil {
		err = f.Chmod(mode)
	}
	return errors.Join(err, f.Close())
}

// clear removes what a new entry replaces; a directory that stays one keeps its content.
func (t *tree) clear(to string, directory bool) error {
	info, err := t.root.Lstat(to)
	if errors.Is(err, fs.ErrNotExist) || err == nil && directory && info.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	return t.root.RemoveAll(to)
}

// hide removes what lower layers have: one file, or all of a directory.
func (t *tree) hide(dir, base, hidden string) error {
	if base != opaque {
		if strings.HasPrefix(base, whiteout+whiteout) || hidden == "" || hidden == "." || hidden == ".." {
			return nil // words of a file system's own
		}
		return t.root.RemoveAll(path.Join(dir, hidden))
	}
	in, err := t.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	entries, err := in.ReadDir(-1)
	_ = in.Close()
	for _, e := range entries {
		if below := path.Join(dir, e.Name()); !t.fresh[below] {
			err = errors.Join(err, t.root.RemoveAll(below))
		}
	}
	return err
}

// follow is a directory's path without symbolic links, as a process whose root is the tree
// would walk it. What is missing is taken as a directory.
func (t *tree) follow(dir string, links int) (string, error) {
	at := "."
	parts := strings.Split(dir, "/")
	for len(parts) > 0 {
		part := parts[0]
		parts = parts[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = path.Dir(at)
			continue
		}
		next := path.Join(at, part)
		info, err := t.root.Lstat(next)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if err != nil || info.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links--; links < 0 {
			return "", errors.New("too many symbolic links")
		}
		target, err := t.root.Readlink(next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			at = "."
		}
		parts = append(strings.Split(target, "/"), parts...)
	}
	return at, nil
}
