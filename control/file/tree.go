package file

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
)

// A Tree is a set of paths, each a file, a directory or "-" for standard input.
type Tree struct {
	Paths  []string
	Hidden string // a directory that is left out although it may lie within a path
	Log    *slog.Logger
}

// Files finds all files, in order of the paths, within a directory by name, and says
// which of the paths are not there and which directories cannot be read. Standard input
// is Stdin.
func (t Tree) Files() (files []string, gone map[string]error) {
	gone = map[string]error{}
	l := lister{seen: map[string]bool{}, dirs: visits{}, gone: gone, hidden: t.Hidden}
	for _, p := range t.Paths {
		if p == "-" {
			l.add(Stdin)
			continue
		}
		p = filepath.Clean(p)
		fi, err := os.Stat(p)
		if err != nil {
			gone[p] = err
			continue
		}
		if fi.IsDir() {
			l.walk(p)
		} else {
			l.add(p)
		}
	}
	if len(l.files) > maxFiles {
		l.files = l.files[:maxFiles]
		t.Log.Error("too many configuration files: the rest is not read", "limit", maxFiles, "first_left_out", l.files[maxFiles-1])
	}
	return l.files, gone
}

type lister struct {
	files  []string
	seen   map[string]bool
	dirs   visits
	gone   map[string]error
	hidden string // the state directory, in case it lies within a path
}

// visits are the directories that were read, by the path without links: links may lead
// in circles, and several ways to one directory.
type visits map[string]bool

// first reports whether a directory was not visited before; the error is that of
// looking for it.
func (v visits) first(dir string) (bool, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false, err
	}
	if abs, err := filepath.Abs(real); err == nil {
		real = abs
	}
	if v[real] || len(v) > maxFiles {
		return false, nil
	}
	v[real] = true
	return true, nil
}

func (l *lister) add(path string) {
	if !l.seen[path] && len(l.files) <= maxFiles {
		l.seen[path] = true
		l.files = append(l.files, path)
	}
}

// walk follows links to directories, which WalkDir does not. A directory that cannot be
// read stands among the files, where the reason is shown, and what is known to be in it
// stays.
func (l *lister) walk(dir string) {
	first, err := l.dirs.first(dir)
	var entries []os.DirEntry
	if first {
		entries, err = os.ReadDir(dir)
	}
	if paths, found, problem := kustomization(dir, entries); found {
		if problem != nil {
			l.gone[dir] = problem
		}
		l.resources(dir, paths)
		return
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // else it has just gone
		l.gone[dir] = err
		l.add(dir)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".") || sameDir(path, l.hidden) {
			continue
		}
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			fi, err := os.Stat(path)
			if err != nil {
				continue // a dangling link: the file is gone
			}
			isDir = fi.IsDir()
		}
		switch {
		case isDir:
			l.walk(path)
		case isConfig(e.Name()):
			l.add(path)
		}
	}
}

func sameDir(a, b string) bool {
	if b == "" || filepath.Base(a) != filepath.Base(b) {
		return false
	}
	fa, errA := os.Stat(a)
	fb, errB := os.Stat(b)
	return errA == nil && errB == nil && os.SameFile(fa, fb)
}

func isConfig(name string) bool {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// A territory is what has to be watched for a set of paths.
type territory struct {
	dirs  map[string]bool // true: every change in it counts; false: those of names only
	names map[string]bool
}

// concerns reports whether a change of path may change what is read.
func (t territory) concerns(path string) bool {
	return t.dirs[filepath.Dir(path)] || t.dirs[path] || t.names[path]
}

// territory covers the directories that are listed, those of named files, and
// those that links lead to. The parent of each path is watched for the path's own
// sake: it may be replaced as a whole.
func (t Tree) territory(files []string) territory {
	all := territory{dirs: map[string]bool{}, names: map[string]bool{}}
	visited := visits{}
	for _, p := range t.Paths {
		if p == "-" {
			continue
		}
		p = filepath.Clean(p)
		all.name(p)
		watchTree(p, all.dirs, visited)
	}
	for _, path := range files {
		if path != Stdin {
			all.name(path) // a kustomization may lead out of the directory
			all.target(path)
		}
	}
	return all
}

// Watch calls changed with the paths that were touched whenever the tree may have
// changed, until ctx ends. An empty list means: look at everything.
func (t Tree) Watch(ctx context.Context, changed func(touched []string)) {
	w := newWatch(t.Log)
	defer w.close()
	for {
		files, _ := t.Files()
		touched, ok := w.next(ctx, t.territory(files))
		if !ok {
			return
		}
		changed(touched)
	}
}

// name covers a path for its own sake: it may be replaced, or swapped by the links
// beside it where it is a link.
func (t territory) name(path string) {
	fi, err := os.Lstat(path)
	linked := err == nil && fi.Mode()&fs.ModeSymlink != 0
	t.dirs[filepath.Dir(path)] = t.dirs[filepath.Dir(path)] || linked
	t.names[path] = true
}

// target covers the file that a link leads to.
func (t territory) target(path string) {
	if real, err := filepath.EvalSymlinks(path); err == nil && real != path {
		t.dirs[filepath.Dir(real)] = true
	}
}

func watchTree(dir string, dirs map[string]bool, visited visits) {
	fi, err := os.Stat(dir)
	if err != nil || !fi.IsDir() {
		return
	}
	if first, err := visited.first(dir); err != nil || !first {
		return
	}
	dirs[dir] = true
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && (e.IsDir() || e.Type()&fs.ModeSymlink != 0) {
			watchTree(filepath.Join(dir, e.Name()), dirs, visited)
		}
	}
}
