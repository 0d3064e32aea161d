package file

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

// How a change is noticed: by notification, once nothing more has come for quiet,
// but no later than patience after the first; and by looking again now and then,
// for file systems that do not notify. Where notification does not work at all,
// looking is the only way and happens more often.
const (
	quiet     = 80 * time.Millisecond
	patience  = 400 * time.Millisecond
	recheck   = 10 * time.Second
	pollEvery = 500 * time.Millisecond
)

// Follow calls changed once and then whenever the file at path may hold something
// else, until ctx ends. What a link leads to counts, and that a file comes or goes.
func Follow(ctx context.Context, path string, log *slog.Logger, changed func()) {
	w := newWatch(log)
	defer w.close()
	path = filepath.Clean(path)
	var last *stamp
	for {
		t := territory{dirs: map[string]bool{}, names: map[string]bool{}}
		t.name(path)
		t.target(path)
		dirty, ok := w.next(ctx, t)
		if !ok {
			return
		}
		now := stampAt(path)
		if last == nil || !now.same(*last) || slices.Contains(dirty, path) {
			changed()
		}
		last = &now
	}
}

// stampAt is the zero stamp where there is no file.
func stampAt(path string) stamp {
	fi, err := os.Stat(path)
	if err != nil {
		return stamp{}
	}
	return stampOf(fi)
}

// A watch waits for changes in a territory.
type watch struct {
	log  *slog.Logger
	fs   *fsnotify.Watcher // nil: not to be had, look instead
	lame bool              // some directory cannot be watched
}

func newWatch(log *slog.Logger) *watch {
	w := &watch{log: log}
	fs, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("no file notification: changes are found by looking", "error", err, "every", pollEvery)
		return w
	}
	w.fs = fs
	return w
}

func (w *watch) close() {
	if w.fs != nil {
		w.fs.Close()
	}
}

// follow watches exactly the directories of t and reports whether some are new:
// what was written there before the watch began has to be looked for.
func (w *watch) follow(t territory) (fresh bool) {
	if w.fs == nil {
		return false
	}
	have := map[string]bool{}
	for _, d := range w.fs.WatchList() { // without those that were deleted
		have[d] = true
		if _, wanted := t.dirs[d]; !wanted {
			_ = w.fs.Remove(d) // fails only when it has just gone
		}
	}
	lame := false
	for d := range t.dirs {
		if have[d] {
			continue
		}
		switch err := w.fs.Add(d); {
		case err == nil:
			fresh = true
		case !errors.Is(err, fs.ErrNotExist):
			lame = true
			if !w.lame {
				w.log.Warn("directory cannot be watched: changes are found by looking", "directory", d, "error", err, "every", pollEvery)
			}
		}
	}
	w.lame = lame
	return fresh
}

// next waits for a change and returns the paths that were touched. It reports
// false when ctx has ended.
func (w *watch) next(ctx context.Context, t territory) ([]string, bool) {
	if w.follow(t) {
		return nil, ctx.Err() == nil
	}
	every := recheck
	if w.fs == nil || w.lame {
		every = pollEvery
	}
	again := time.NewTimer(every)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, false
		case <-again.C:
			return nil, true
		case e, ok := <-w.events():
			if !ok {
				return nil, false
			}
			if t.concerns(filepath.Clean(e.Name)) {
				return w.settle(ctx, e.Name)
			}
		case err := <-w.errors():
			// An overflow of the queue: what was lost is found by looking.
			w.log.Debug("file notification failed", "error", err)
			return nil, true
		}
	}
}

// settle gathers the paths of a burst of events.
func (w *watch) settle(ctx context.Context, first string) ([]string, bool) {
	touched := map[string]bool{filepath.Clean(first): true}
	calm, late := time.NewTimer(quiet), time.NewTimer(patience)
	defer calm.Stop()
	defer late.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, false
		case e, ok := <-w.events():
			if !ok {
				return nil, false
			}
			if len(touched) < maxFiles {
				touched[filepath.Clean(e.Name)] = true
			}
			calm.Reset(quiet)
			continue
		case <-calm.C:
		case <-late.C:
		}
		return slices.Sorted(maps.Keys(touched)), true
	}
}

func (w *watch) events() <-chan fsnotify.Event {
	if w.fs == nil {
		return nil
	}
	return w.fs.Events
}

func (w *watch) errors() <-chan error {
	if w.fs == nil {
		return nil
	}
	return w.fs.Errors
}
