package apply

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/lateen-mesh/lateen/control/config"
	"github.com/lateen-mesh/lateen/control/file"
)

// An entry is a record in the file that remembers.
type entry struct {
	identity
	record
}

// recall reads what was applied. Of a damaged file everything is applied anew and nothing
// is deleted; the file is kept beside the new one.
func recall(path string) (map[identity]record, error) {
	all := map[identity]record{}
	if path == "" {
		return all, nil
	}
	list, err := entries(path)
	if unread := (*fs.PathError)(nil); err != nil && !errors.As(err, &unread) {
		return all, os.Rename(path, path+".damaged")
	}
	for _, e := range list {
		e.Namespace = cmp.Or(e.Namespace, config.DefaultNamespace)
		all[e.identity] = e.record
	}
	return all, err
}

// entries are those of a file, none of one that is not there.
func entries(path string) ([]entry, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []entry
	return list, json.Unmarshal(text, &list)
}

// remember writes down what is applied, where that changed. The caller holds the lock.
func (a *Applier) remember() error {
	if a.o.Memory == "" {
		return nil
	}
	list := make([]entry, 0, len(a.applied))
	for id, r := range a.applied {
		list = append(list, entry{id, r})
	}
	slices.SortFunc(list, func(a, b entry) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	text, err := json.MarshalIndent(list, "", " ")
	if err != nil || bytes.Equal(text, a.written) {
		return err
	}
	part := a.o.Memory + ".part"
	if err := os.WriteFile(part, text, 0o600); err != nil {
		return err
	}
	if err := os.Rename(part, a.o.Memory); err != nil {
		return err
	}
	a.written = text
	return nil
}

// Places are where files have the objects that an Applier has applied. The zero value
// knows none. Not safe for concurrent use.
type Places struct {
	records map[string]place // by config.Key.String
	files   map[string][]config.Document
}

type place struct {
	identity
	config.Source
	twice bool // kinds of two groups have this name
}

// ReadPlaces reads the file that Options.Memory names. One that is not there, or damaged,
// knows no places.
func ReadPlaces(memory string) Places {
	p := Places{map[string]place{}, map[string][]config.Document{}}
	list, _ := entries(memory)
	for _, e := range list {
		if e.File == "" {
			continue
		}
		namespace := cmp.Or(e.Namespace, config.DefaultNamespace)
		names := []string{config.Key{Kind: config.Kind(e.Kind), Namespace: namespace, Name: e.Name}.String()}
		if namespace == config.DefaultNamespace { // or a kind without namespaces
			names = append(names, config.Key{Kind: config.Kind(e.Kind), Name: e.Name}.String())
		}
		e.Namespace = namespace
		for _, name := range names {
			_, twice := p.records[name]
			p.records[name] = place{e.identity, config.Source{File: e.File, Line: e.Line}, twice}
		}
	}
	return p
}

// Of is the place of a field of an object, as file:line, the object being named as
// config.Key.String does; "" where no file has it. The line is the field's while the file
// can be read, else that of the object.
func (p Places) Of(object, field string) string {
	at, known := p.records[object]
	if !known || at.twice {
		return ""
	}
	docs, read := p.files[at.File]
	if !read && at.File != file.Stdin {
		if text, err := readFile(at.File); err == nil {
			docs, _ = config.Documents(at.File, text)
		}
		p.files[at.File] = docs
	}
	for _, d := range docs {
		if identify(d) == at.identity {
			if at.Line = d.Line(field); field != "" && at.Line == d.Source.Line {
				at.Line = d.Line("spec." + field) // which paths within mesh kinds leave out
			}
			break
		}
	}
	return at.Source.String()
}
