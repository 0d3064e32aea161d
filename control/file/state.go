package file

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/lateen-mesh/lateen/control/config"
)

// A stateDir keeps the last good objects of each file for the next start, one
// state file per configuration file. All methods do nothing without a path.
type stateDir struct{ path string }

// saved is the content of a state file.
type saved struct {
	Path    string
	Objects []savedObject
}

type savedObject struct {
	File   string
	Line   int
	Object json.RawMessage
}

func (d *stateDir) open() error {
	if d.path == "" {
		return nil
	}
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	return nil
}

// file is the state file of a configuration file: by hash, because paths hold
// characters that names cannot.
func (d *stateDir) file(path string) string {
	if abs, err := filepath.Abs(path); err == nil && path != Stdin {
		path = abs
	}
	sum := sha256.Sum256([]byte(path))
	return filepath.Join(d.path, hex.EncodeToString(sum[:16])+stateSuffix)
}

const stateSuffix = ".objects.json"

// write saves the good objects of a file. A failure is logged: it matters at the
// next start only.
func (d *stateDir) write(f *fileState, log *slog.Logger) {
	if d.path == "" {
		return
	}
	s := saved{Path: f.path}
	for _, o := range f.good {
		text, err := config.Encode(o)
		if err != nil {
			log.Warn("last good state cannot be saved", "object", o.Key, "error", err)
			continue
		}
		s.Objects = append(s.Objects, savedObject{o.Source.File, o.Source.Line, text})
	}
	text, err := json.Marshal(s)
	if err == nil {
		err = Replace(d.file(f.path), text)
	}
	if err != nil {
		log.Warn("last good state cannot be saved", "file", f.path, "error", err)
	}
}

// Replace writes a file of mode 0600 so that a crash leaves either the old or the new one.
func Replace(path string, text []byte) error {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
		return nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name())
	_, err = tmp.Write(text)
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}

// read gives the saved objects of a file. What cannot be read any more is left
// out: the configuration file itself is still there.
func (d *stateDir) read(path, namespace string, log *slog.Logger) []*config.Config {
	if d.path == "" {
		return nil
	}
	name := d.file(path)
	fi, err := os.Stat(name)
	if err != nil {
		return nil
	}
	if fi.Size() > 4*maxFile {
		log.Warn("saved state is too large and not used", "file", path)
		return nil
	}
	text, err := os.ReadFile(name)
	var s saved
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("saved state cannot be read", "file", path, "error", err)
		}
		return nil
	}
	var objects []*config.Config
	for _, so := range s.Objects {
		decoded, _ := config.DecodeIn(namespace, so.File, so.Object)
		for _, o := range decoded {
			o.Source = config.Source{File: so.File, Line: so.Line}
			objects = append(objects, o)
		}
	}
	return objects
}

func (d *stateDir) remove(path string) {
	if d.path != "" {
		_ = os.Remove(d.file(path)) // the next start removes it if this fails
	}
}

// prune removes the state of files that were deleted while nothing was running.
func (d *stateDir) prune(files map[string]*fileState) {
	if d.path == "" {
		return
	}
	used := map[string]bool{}
	for path := range files {
		used[d.file(path)] = true
	}
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return
	}
	for _, e := range entries {
		name := filepath.Join(d.path, e.Name())
		if stale := strings.HasSuffix(e.Name(), stateSuffix) && !used[name]; stale || strings.HasPrefix(e.Name(), ".new-") {
			_ = os.Remove(name)
		}
	}
}
