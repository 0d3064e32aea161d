// Package file feeds a config.Store from YAML and JSON files: directories, single
// files or standard input ("-").
//
// A Source reads all its paths (Load), then watches them (Run). Each look at the
// disk is one transaction on the Store: whatever changed since the last look
// becomes one generation. Only files that changed are parsed again.
//
// Faults stay where they are. A file, or one object of it, that cannot be used
// leaves the last good state of its objects in force, across restarts too when a
// state directory is given; Status shows such a file as stale. An object that two
// files define belongs to the first file in path order; the other file gets a
// Problem. A file that is deleted takes its objects with it; but where a path
// itself has gone, as when a disk is not mounted, or a directory cannot be read,
// everything from it stays.
//
// In directories all *.yaml, *.yml and *.json files count, at any depth, except
// those whose name or folder begins with a dot. That is how ConfigMap mounts are
// read: their dotted folders are hidden, the links into them are followed, and a
// swap of the link is one change. Of a directory with a kustomization.yaml its resources count,
// as with kubectl -k; one that changes them is refused.
package file

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/lateen-mesh/lateen/control/config"
)

// Options say what a Source reads.
type Options struct {
	// Paths are files, directories and "-", in order of precedence.
	Paths []string
	// Namespace is that of objects which name none; "" is config.DefaultNamespace.
	Namespace string
	// State is a directory, created with mode 0700, in which the last good objects
	// are kept for the next start. It holds Secrets. "" keeps nothing.
	State string
	// Stdin is what "-" means. It is read once, by Load.
	Stdin io.Reader
	// Log gets one line per problem when it appears; nil is slog.Default.
	Log *slog.Logger
}

// A Status is what a Source says about one file.
type Status struct {
	Path    string
	Objects int // in force from this file
	// Stale is set when some object of the file is in force in an older state
	// because its present text is broken. Problems says why.
	Stale    bool
	Problems []config.Problem // errors and warnings
}

// A Source keeps the objects of a set of files in a Store.
type Source struct {
	store   *config.Store
	options Options
	log     *slog.Logger
	state   *stateDir

	mu     sync.Mutex // one look at a time
	files  map[string]*fileState
	stdin  []byte
	owned  map[config.Key]*config.Config // in force in the store from this source
	taken  map[config.Problem]bool       // told beside what is wrong with each file itself
	status []Status
}

// New returns a Source that feeds store. Nothing is read yet.
func New(store *config.Store, o Options) *Source {
	o.Namespace = cmp.Or(o.Namespace, config.DefaultNamespace)
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Source{store: store, options: o, log: o.Log, state: &stateDir{path: o.State},
		files: map[string]*fileState{}, owned: map[config.Key]*config.Config{}}
}

// Load reads everything for the first time. It fails when a path does not exist,
// standard input cannot be read or the state directory cannot be made; what is
// wrong inside files is in Status.
func (s *Source) Load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.state.open(); err != nil {
		return err
	}
	if slices.Contains(s.options.Paths, "-") {
		if s.options.Stdin == nil {
			return fmt.Errorf("path -: no standard input")
		}
		text, err := io.ReadAll(io.LimitReader(s.options.Stdin, maxFile+1))
		if err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		s.stdin = text
	}
	found, gone := s.tree().Files()
	for _, p := range s.options.Paths {
		if err := gone[filepath.Clean(p)]; err != nil {
			return err
		}
	}
	s.look(found, gone, nil)
	if len(gone) == 0 { // else files are missing whose state is still wanted
		s.state.prune(s.files)
	}
	return nil
}

// Run follows changes until ctx ends, which is no error. Load comes first.
func (s *Source) Run(ctx context.Context) error {
	w := newWatch(s.log)
	defer w.close()
	for {
		dirty, ok := w.next(ctx, s.territory())
		if !ok {
			return nil
		}
		s.Refresh(dirty...)
	}
}

func (s *Source) tree() Tree {
	return Tree{Paths: s.options.Paths, Hidden: s.state.path, Log: s.log}
}

func (s *Source) territory() territory {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tree().territory(slices.Collect(maps.Keys(s.files)))
}

// Refresh looks at the disk now and returns the set in force afterwards. Files
// named in changed are read again even if they look the same.
func (s *Source) Refresh(changed ...string) *config.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	found, gone := s.tree().Files()
	return s.look(found, gone, changed)
}

// Status describes every file, in path order.
func (s *Source) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.status)
}

// look reads what changed among the files found and brings the store up to date
// in one transaction. Files of a path that has gone stay as they were.
func (s *Source) look(found []string, gone map[string]error, changed []string) *config.Set {
	present, forced := map[string]bool{}, map[string]bool{}
	for _, path := range changed {
		forced[path] = true
	}
	var order []*fileState
	for _, path := range found {
		f := s.files[path]
		if f == nil {
			f = &fileState{path: path, good: s.state.read(path, s.options.Namespace, s.log)}
		}
		anew := f.read(s.text(path), forced[path])
		if errors.Is(f.failure, fs.ErrNotExist) {
			continue // deleted since it was listed
		}
		if anew {
			f.parse(s.options.Namespace)
			s.announce(f)
			s.state.write(f, s.log)
		}
		s.files[path], present[path] = f, true
		order = append(order, f)
	}
	for _, path := range slices.Sorted(maps.Keys(s.files)) {
		f := s.files[path]
		if present[path] {
			continue
		}
		if why := within(path, gone); why != nil && len(f.good)+len(f.guard) > 0 {
			if f.once {
				f.lose(why)
				s.announce(f)
			}
			order = append(order, f)
			continue
		}
		delete(s.files, path)
		s.state.remove(path)
	}
	return s.apply(order)
}

// within returns why the path that a file is in has gone, nil where it has not.
func within(file string, gone map[string]error) error {
	for path, why := range gone {
		if file == path || strings.HasPrefix(file, path+string(filepath.Separator)) {
			return why
		}
	}
	return nil
}

// text gives the function that reads a path.
func (s *Source) text(path string) func() ([]byte, stamp, error) {
	if path == Stdin {
		return func() ([]byte, stamp, error) { return s.stdin, stamp{size: int64(len(s.stdin))}, nil }
	}
	return func() ([]byte, stamp, error) { return readFile(path) }
}

// maxLines and maxProblems bound what is logged and shown of one file.
const maxLines, maxProblems = 100, 1000

// announce logs what is wrong with a file that was just read.
func (s *Source) announce(f *fileState) {
	for i, p := range f.problems {
		if i == maxLines {
			s.log.Error("more is wrong with the file", "file", f.path, "problems", len(f.problems), "logged", maxLines)
			return
		}
		level, attrs := slog.LevelError, []any{}
		if p.Severity == config.Warning {
			level = slog.LevelWarn
		}
		if p.Hint != "" {
			attrs = append(attrs, "hint", p.Hint)
		}
		s.log.Log(context.Background(), level, p.Error(), attrs...)
	}
}

// apply decides which file owns each object and moves the store.
func (s *Source) apply(files []*fileState) *config.Set {
	next := map[config.Key]*config.Config{}
	owner := map[config.Key]*fileState{}
	extra := map[*fileState][]config.Problem{} // what is wrong beside their texts
	for _, f := range files {                  // what is written now goes before what is kept
		for _, o := range f.fresh {
			if first, taken := next[o.Key]; taken {
				extra[f] = append(extra[f], config.Problem{Source: o.Source, Object: o.Key,
					Message: fmt.Sprintf("already defined in %s: that one is used", first.Source)})
				continue
			}
			next[o.Key], owner[o.Key] = o, f
		}
	}
	for _, f := range files {
		for _, o := range f.kept {
			if _, taken := next[o.Key]; !taken {
				next[o.Key], owner[o.Key] = o, f
			}
		}
	}
	for _, f := range files {
		for _, o := range f.guard {
			if _, taken := next[o.Key]; !taken {
				if old := s.owned[o.Key]; old != nil && old.Equal(o) {
					o = old // the store sees no change
				}
				next[o.Key] = o
				extra[f] = append(extra[f], o.Guarded())
			}
		}
	}
	s.announceExtra(extra)
	s.report(files, owner, extra)
	return s.transact(next)
}

// announceExtra logs, once, which objects other files have already, and what comes of broken policies.
func (s *Source) announceExtra(extra map[*fileState][]config.Problem) {
	taken := map[config.Problem]bool{}
	for _, list := range extra {
		for _, p := range list {
			if taken[p] = true; !s.taken[p] {
				s.log.Error(p.Error())
			}
		}
	}
	s.taken = taken
}

// report makes the status of all files.
func (s *Source) report(files []*fileState, owner map[config.Key]*fileState, extra map[*fileState][]config.Problem) {
	status := make([]Status, len(files))
	for i, f := range files {
		st := Status{Path: f.path, Problems: bounded(f.path, slices.Concat(f.problems, extra[f]))}
		for _, o := range f.fresh {
			if owner[o.Key] == f {
				st.Objects++
			}
		}
		for _, o := range f.kept {
			if owner[o.Key] == f {
				st.Objects++
				st.Stale = true
			}
		}
		status[i] = st
	}
	s.status = status
}

// bounded cuts a long list of problems, errors first, and says so.
func bounded(path string, problems []config.Problem) []config.Problem {
	if len(problems) <= maxProblems {
		return problems
	}
	sorted := slices.SortedStableFunc(slices.Values(problems), func(a, b config.Problem) int { return cmp.Compare(a.Severity, b.Severity) })
	return append(sorted[:maxProblems], config.Problem{Source: config.Source{File: path, Line: 1}, Severity: config.Warning,
		Message: fmt.Sprintf("has %d problems, %d are shown", len(problems), maxProblems)})
}

// transact applies the difference to what this source had in force.
func (s *Source) transact(next map[config.Key]*config.Config) *config.Set {
	var upserts []*config.Config
	var deletes []config.Key
	for k, o := range next {
		if s.owned[k] != o {
			upserts = append(upserts, o)
		}
	}
	for k := range s.owned {
		if next[k] == nil {
			deletes = append(deletes, k)
		}
	}
	s.owned = next
	return s.store.Apply(upserts, deletes)
}
