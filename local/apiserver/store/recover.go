package store

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// A Problem is damage that Open found in the file and mended.
type Problem struct {
	File   string // the file that was damaged
	Moved  string // where a copy of it is; "" when only its unfinished last record was cut off
	Offset int64  // of the first byte that could not be read
	Lost   int64  // bytes that could not be read
	Kept   int    // objects that are there now
}

// String says it in a sentence.
func (p Problem) String() string {
	if p.Moved == "" {
		return fmt.Sprintf("%s: the last write was not finished (%d bytes from byte %d) and is dropped; %d objects are kept",
			p.File, p.Lost, p.Offset, p.Kept)
	}
	return fmt.Sprintf("%s: %d bytes are damaged, the first at byte %d: the file is kept as %s; %d objects could be read",
		p.File, p.Lost, p.Offset, p.Moved, p.Kept)
}

// maxFile bounds what Open reads. The store itself keeps its file far smaller.
const maxFile = 2 << 30

// revisionGap is what the revision grows by when the end of the file may be lost: clients may know
// revisions of writes that are gone, and none of them may come again.
const revisionGap = 4096

// load reads the file of a directory into an empty state and leaves it ready for writes.
func load(dir string, s *state) (*logFile, []Problem, error) {
	l := &logFile{dir: dir}
	if err := os.Remove(filepath.Join(dir, newFileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, err
	}
	b, err := readFile(l.path())
	if errors.Is(err, fs.ErrNotExist) {
		return l, nil, l.rewrite(s)
	}
	if err != nil {
		return nil, nil, err
	}
	damage, err := replay(b, s, time.Now())
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", l.path(), err)
	}
	if len(damage) == 0 && len(b) > 0 {
		l.size = int64(len(b))
		l.file, err = os.OpenFile(l.path(), os.O_RDWR, 0)
		return l, nil, err
	}
	problems, err := l.mend(int64(len(b)), damage, s)
	return l, problems, err
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes, more than this program ever writes: move it away", path, info.Size())
	}
	return os.ReadFile(path)
}

// replay applies the records of a file to an empty state. An error says that the file is of
// another version.
func replay(b []byte, s *state, now time.Time) ([]damagedSpan, error) {
	first := true
	return scan(b, func(r record) error {
		isFirst := first
		first = false
		if r.item.rev > maxRev/2 {
			return errDamaged // nobody writes so much: there would be no room for what comes
		}
		switch r.kind {
		case recordBase:
			if r.version != formatVersion {
				return fmt.Errorf("the file has format %d, this program reads %d: use the newer program, or move the file away", r.version, formatVersion)
			}
			if !isFirst {
				return errDamaged
			}
			s.rev = r.item.rev
			s.window.forget(s.rev)
		case recordItem:
			s.put(r.item.own(now))
			if r.item.rev > s.rev { // the base is lost
				s.rev = r.item.rev
				s.window.forget(s.rev)
			}
		default:
			return s.redo(r, now)
		}
		return nil
	})
}

// redo applies a put or a deletion. What it was preceded by may be lost.
func (s *state) redo(r record, now time.Time) error {
	if r.item.rev <= s.rev {
		return errDamaged
	}
	e := event{rev: r.item.rev, prev: s.get(r.item.key)}
	switch {
	case r.kind == recordPut:
		e.item = r.item.own(now)
	case e.prev == nil:
		s.rev = e.rev
		s.window.forget(s.rev)
		return nil
	}
	s.apply(e)
	return nil
}

// own is the item with a value of its own. The clock may have been set since it was written: it
// does not live longer than it was to live at all.
func (it item) own(now time.Time) *item {
	it.value = bytes.Clone(it.value)
	if it.ttl > 0 {
		left := min(it.expires.Sub(now), seconds(it.ttl))
		it.expires = now.Add(max(left, 0))
	}
	return &it
}

// seconds is a time to live, bounded by what a duration can hold.
func seconds(ttl uint64) time.Duration {
	const century = 100 * 365 * 24 * 3600
	return time.Duration(min(ttl, century)) * time.Second
}

// mend makes a sound file of what was read. A file whose last write was not finished is cut there;
// any other damage has the file put aside.
func (l *logFile) mend(size int64, damage []damagedSpan, s *state) ([]Problem, error) {
	s.rev += revisionGap
	s.window.forget(s.rev)
	if len(damage) == 0 { // an empty file: not even the base was written
		return nil, l.rewrite(s)
	}
	p := Problem{File: l.path(), Offset: damage[0].offset, Kept: s.items.Len()}
	for _, d := range damage {
		p.Lost += d.length
	}
	var err error
	if damage[0].torn && damage[0].offset > 0 {
		l.size = size - p.Lost
		if l.file, err = os.OpenFile(l.path(), os.O_RDWR, 0); err == nil {
			err = l.file.Truncate(l.size)
		}
		return []Problem{p}, err
	}
	if !damage[0].torn {
		if p.Moved, err = putAside(l.path()); err != nil {
			return nil, fmt.Errorf("putting %s aside: %w", l.path(), err)
		}
	}
	return []Problem{p}, l.rewrite(s)
}
