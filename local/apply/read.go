package apply

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
)

// maxFile bounds one file, in bytes.
const maxFile = 16 << 20

// An identity names an object whatever version it is written in. The namespace of one that
// names none is the default one, also of kinds that have no namespaces.
type identity struct{ Group, Kind, Namespace, Name string }

// A record is what is remembered of an applied object.
type record struct {
	Version string `json:"version"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Hash    string `json:"hash"` // of the object as it was written
}

// wanted is what the files say now.
type wanted struct {
	docs     []config.Document
	unclear  map[string]bool // files that could not be read whole: nothing of them is deleted
	problems []config.Problem
	files    int
}

// read looks at all files. One that cannot be read keeps its last text.
func (a *Applier) read() wanted {
	w := wanted{unclear: map[string]bool{}}
	a.once = map[identity]bool{}
	if a.o.Own != nil {
		for _, o := range a.o.Own() {
			w.docs = append(w.docs, o.Document)
			a.once[identify(o.Document)] = o.Once
		}
	}
	found, gone := a.o.Tree.Files()
	for path, err := range gone {
		w.problems = append(w.problems, config.Problem{Source: config.Source{File: path}, Message: err.Error(),
			Hint: "objects from there stay as they are"})
	}
	texts := map[string][]byte{}
	for _, path := range found {
		text, err := a.text(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue // deleted since it was listed
		}
		if err != nil {
			w.problems = append(w.problems, config.Problem{Source: config.Source{File: path}, Message: err.Error()})
			text, w.unclear[path] = a.files[path], true
		}
		texts[path] = text
		docs, problems := config.Documents(path, text)
		w.unclear[path] = w.unclear[path] || len(problems) > 0
		w.docs, w.problems = append(w.docs, docs...), append(w.problems, problems...)
	}
	for path := range gone {
		for known := range a.files {
			if known == path || strings.HasPrefix(known, path+"/") {
				texts[known], w.unclear[known] = a.files[known], true
			}
		}
		w.unclear[path] = true
	}
	a.files, w.files = texts, len(found)
	return w
}

func (a *Applier) text(path string) ([]byte, error) {
	if path == file.Stdin {
		return a.o.Stdin, nil
	}
	return readFile(path)
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(text) > maxFile {
		err = fmt.Errorf("file is larger than %d MiB", maxFile>>20)
	}
	return text, err
}

// work is what a pass has to do.
type work struct {
	apply  []config.Document
	keep   []config.Document // applied, and not changed since
	remove map[identity]record
}

// compare finds what differs from what was applied. Of two documents with the same
// object the first counts.
func (a *Applier) compare(want wanted) work {
	a.mu.Lock()
	defer a.mu.Unlock()
	todo, present := work{remove: map[identity]record{}}, map[identity]bool{}
	for _, d := range want.docs {
		id := identify(d)
		if present[id] {
			continue
		}
		present[id] = true
		r, done := a.applied[id]
		if !done || r.Hash != hash(d) && !a.once[id] {
			todo.apply = append(todo.apply, d)
			continue
		}
		todo.keep = append(todo.keep, d)
		if r.File != d.Source.File || r.Line != d.Source.Line {
			r.File, r.Line = d.Source.File, d.Source.Line
			a.applied[id] = r
		}
	}
	for id, r := range a.applied {
		if !present[id] && !want.unclear[r.File] && !want.within(r.File) {
			todo.remove[id] = r
		}
	}
	return todo
}

// within reports whether a file belongs to a path that has gone as a whole.
func (w wanted) within(name string) bool {
	for path, unclear := range w.unclear {
		if unclear && strings.HasPrefix(name, path+"/") {
			return true
		}
	}
	return false
}

func identify(d config.Document) identity {
	group := ""
	if gv, err := schema.ParseGroupVersion(d.APIVersion); err == nil {
		group = gv.Group
	}
	return identity{group, string(d.Object.Kind), cmp.Or(d.Object.Namespace, config.DefaultNamespace), d.Object.Name}
}

func hash(d config.Document) string {
	sum := sha256.Sum256(append([]byte(d.APIVersion+"\n"), d.JSON...))
	return hex.EncodeToString(sum[:16])
}
