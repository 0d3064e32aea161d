package file

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/lateen-mesh/lateen/control/config"
)

// Bounds of what is read.
const (
	maxFile  = 64 << 20 // bytes of one file
	maxFiles = 10000    // of one source, and of its directories
)

// Stdin is how standard input is called in messages.
const Stdin = "stdin"

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
	guard []*config.Config // for broken policies that were never good
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
	if f.once && !forced && f.failure == nil && f.path != Stdin {
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
	var objects, guards []*config.Config
	switch {
	case f.failure != nil:
		f.problems = []config.Problem{{Source: config.Source{File: f.path, Line: 1}, Message: "cannot be read: " + f.failure.Error()}}
	case len(f.text) > maxFile:
		f.problems = []config.Problem{{Source: config.Source{File: f.path, Line: 1}, Message: fmt.Sprintf("is larger than %d MiB", maxFile>>20)}}
	default:
		objects, guards, f.problems = config.DecodeGuarded(namespace, f.path, f.text)
	}
	f.text = nil
	before := map[config.Key]*config.Config{}
	for _, o := range f.good {
		before[o.Key] = o
	}
	f.fresh = nil
	written := map[config.Key]bool{}
	for _, o := range objects {
		if old := before[o.Key]; old != nil && old.Equal(o) {
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
	for _, o := range f.guard {
		if unclear && !written[o.Key] && !slices.ContainsFunc(guards, func(g *config.Config) bool { return g.Key == o.Key }) {
			guards = append(guards, o)
		}
	}
	f.guard = guards
	f.good = slices.Concat(f.fresh, f.kept)
}

// lose keeps all objects of a file whose whole path or directory cannot be read.
func (f *fileState) lose(why error) {
	f.once, f.fresh, f.kept = false, nil, f.good // guards stay, too
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
