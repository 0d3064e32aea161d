package file

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/lateen-mesh/lateen/control/config"
)

// Bounds of what is read.
const (
	maxFile  = 64 << 20 // bytes of one file
	maxFiles = 10000    // of one source, and of its directories
)

// stdinName is how standard input is called in messages.
const stdinName = "stdin"

// A fileState is what is known of one file.
type fileState struct {
	path     string
	stamp    stamp
	sum      [sha256.Size]byte
	once     bool // read at least once
	text     []byte
	failure  error
	problems []config.Problem

	good  []*config.Config // last good state of every object of the file
	fresh []*config.Config // good objects of the present text
	kept  []*config.Config // of good: those whose present text is broken
}

// A stamp tells whether a file may have changed without reading it.
type stamp struct {
	size int64
	time time.Time
	id   os.FileInfo // compared by os.SameFile
}

func (s stamp) same(o stamp) bool {
	return s.size == o.size && s.time.Equal(o.time) && (s.id == nil) == (o.id == nil) && (s.id == nil || os.SameFile(s.id, o.id))
}

// read reads the file again if it may have changed, or in any case when forced,
// and reports whether its text did.
func (f *fileState) read(from func() ([]byte, stamp, error), forced bool) bool {
	if f.once && !forced && f.failure == nil && f.path != stdinName {
		if fi, err := os.Stat(f.path); err == nil && f.stamp.same(stampOf(fi)) {
			return false
		}
	}
	text, st, err := from()
	sum := sha256.Sum256(text)
	changed := !f.once || sum != f.sum || (err == nil) != (f.failure == nil)
	f.once, f.stamp, f.sum, f.failure = true, st, sum, err
	if changed {
		f.text = text
	}
	return changed
}

func stampOf(fi os.FileInfo) stamp {
	return stamp{size: fi.Size(), time: fi.ModTime(), id: fi}
}

func readFile(path string) ([]byte, stamp, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would hold up everything else
	if err != nil {
		return nil, stamp{}, err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return nil, stamp{}, err
	}
	if !fi.Mode().IsRegular() {
		return nil, stampOf(fi), errors.New("is not a regular file")
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	return text, stampOf(fi), err
}

// parse decodes the text and decides what of the last good state stays.
func (f *fileState) parse(namespace string) {
	var objects []*config.Config
	switch {
	case f.failure != nil:
		f.problems = []config.Problem{{Source: config.Source{File: f.path, Line: 1}, Message: "cannot be read: " + f.failure.Error()}}
	case len(f.text) > maxFile:
		f.problems = []config.Problem{{Source: config.Source{File: f.path, Line: 1}, Message: fmt.Sprintf("is larger than %d MiB", maxFile>>20)}}
	default:
		objects, f.problems = config.DecodeIn(namespace, f.path, f.text)
	}
	f.text = nil
	before := map[config.Key]*config.Config{}
	for _, o := range f.good {
		before[o.Key] = o
	}
	f.fresh = nil
	written := map[config.Key]bool{}
	for _, o := range objects {
		if old := before[o.Key]; old != nil && equal(old, o) {
			o = old // the store sees no change
		}
		f.fresh = append(f.fresh, o)
		written[o.Key] = true
	}
	broken, unclear := brokenObjects(f.problems)
	f.kept = nil
	for _, o := range f.good {
		if !written[o.Key] && (unclear || broken[o.Key]) {
			f.kept = append(f.kept, o)
		}
	}
	f.good = slices.Concat(f.fresh, f.kept)
}

// lose keeps all objects of a file whose whole path or directory cannot be read.
func (f *fileState) lose(why error) {
	f.once, f.fresh, f.kept = false, nil, f.good
	f.problems = []config.Problem{{Source: config.Source{File: f.path, Line: 1}, Message: fmt.Sprintf("the configuration path cannot be read: %v", why)}}
}

// brokenObjects are the objects that some error is about. unclear means that an
// error does not say which object it spoils: it may be any.
func brokenObjects(problems []config.Problem) (broken map[config.Key]bool, unclear bool) {
	broken = map[config.Key]bool{}
	for _, p := range problems {
		if p.Severity != config.Error {
			continue
		}
		broken[p.Object] = true
		if p.Object.Name == "" || !slices.Contains(config.Kinds(), p.Object.Kind) || p.Field == "apiVersion" {
			unclear = true
		}
	}
	return broken, unclear
}

func equal(a, b *config.Config) bool {
	if a.Source != b.Source || a.APIVersion != b.APIVersion || !a.CreationTime.Equal(b.CreationTime) ||
		!equality.Semantic.DeepEqual(a.Labels, b.Labels) || !equality.Semantic.DeepEqual(a.Annotations, b.Annotations) {
		return false
	}
	pa, isProto := a.Spec.(proto.Message)
	pb, both := b.Spec.(proto.Message)
	if isProto && both {
		return proto.Equal(pa, pb)
	}
	return equality.Semantic.DeepEqual(a.Spec, b.Spec)
}

// list finds all files, in order of the paths, within a directory by name, and says
// which of the paths are not there and which directories cannot be read.
func (s *Source) list() (files []string, gone map[string]error) {
	gone = map[string]error{}
	l := lister{seen: map[string]bool{}, dirs: visits{}, gone: gone, hidden: s.state.path}
	for _, p := range s.options.Paths {
		if p == "-" {
			l.add(stdinName)
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
		s.log.Error("too many configuration files: the rest is not read", "limit", maxFiles, "first_left_out", l.files[maxFiles-1])
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
func (s *Source) territory() territory {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := territory{dirs: map[string]bool{}, names: map[string]bool{}}
	visited := visits{}
	for _, p := range s.options.Paths {
		if p == "-" {
			continue
		}
		p = filepath.Clean(p)
		t.name(p)
		watchTree(p, t.dirs, visited)
	}
	for path := range s.files {
		if path != stdinName {
			t.target(path)
		}
	}
	return t
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
