package runtime

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"github.com/fsnotify/fsnotify"
)

// Limits of a directory of values.
const (
	maxFile  = 64 << 10
	maxFiles = 10_000
)

// A disk is a directory in which each file has the value of a key, "outer/inner" that of
// "outer.inner". It is read again when another one takes the place of root by a rename.
type disk struct{ root, path string }

func newDisk(c *bootstrapv3.RuntimeLayer_DiskLayer, service string) *disk {
	d := &disk{root: c.GetSymlinkRoot(), path: filepath.Join(c.GetSymlinkRoot(), c.GetSubdirectory())}
	if c.GetAppendServiceCluster() {
		d.path = filepath.Join(d.path, service)
	}
	return d
}

// load reads the directory; what cannot be read makes the layer an absent one.
func (l *layer) load() (failed bool) {
	l.values, l.absent = nil, true
	if info, err := os.Stat(l.disk.path); err != nil || !info.IsDir() {
		return false
	}
	values, err := l.disk.read()
	if err != nil {
		return true
	}
	l.values, l.absent = values, false
	return false
}

func (d *disk) read() (map[string]value, error) {
	values := map[string]value{}
	path, err := filepath.EvalSymlinks(d.path)
	if err != nil {
		return nil, err
	}
	err = filepath.WalkDir(path, func(file string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if len(values) == maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		info, err := os.Stat(file)
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		if info.Size() > maxFile {
			return fmt.Errorf("%s: larger than %d bytes", file, maxFile)
		}
		text, err := os.ReadFile(file) //nolint:gosec // who writes there writes the values
		if err != nil {
			return err
		}
		name, err := filepath.Rel(path, file)
		values[strings.ReplaceAll(name, string(filepath.Separator), ".")] = parse(withoutComments(string(text)))
		return err
	})
	return values, err
}

// withoutComments leaves lines out that begin with "#", and white space at the end.
func withoutComments(text string) string {
	var kept []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			kept = append(kept, line)
		}
	}
	return strings.TrimRight(strings.Join(kept, ""), " \t\r\n\v\f")
}

// Follow reads directories again whenever they are replaced, until ctx ends. It returns at
// once where no layer is one.
func (v *Values) Follow(ctx context.Context) error {
	roots := v.roots()
	if len(roots) == 0 {
		return nil
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("runtime directories are not watched: %w", err)
	}
	defer w.Close()
	for root := range roots {
		err = errors.Join(err, w.Add(filepath.Dir(root)))
	}
	if err != nil {
		return fmt.Errorf("runtime directories are not watched: %w", err)
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-w.Events:
			if e.Has(fsnotify.Create) && roots[filepath.Clean(e.Name)] {
				v.reload()
			}
		case <-w.Errors: // what was missed is seen at the next change
		}
	}
}

// roots are the directories whose replacement Follow waits for.
func (v *Values) roots() map[string]bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	roots := map[string]bool{}
	for _, l := range v.layers {
		if l.disk != nil {
			roots[filepath.Clean(l.disk.root)] = true
		}
	}
	return roots
}

func (v *Values) reload() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.publish()
}
