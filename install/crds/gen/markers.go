package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// markers are the lines that begin with "+" in the comment before a message or a
// field, without the "+", by the element's full name in protobuf.
type markers map[string][]string

// with returns what follows prefix in the markers of an element that have it.
func (m markers) with(element, prefix string) []string {
	var found []string
	for _, line := range m[element] {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			found = append(found, rest)
		}
	}
	return found
}

// readMarkers reads every .proto file below dir.
func readMarkers(dir string) (markers, error) {
	all, files := markers{}, os.DirFS(dir)
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".proto" {
			return err
		}
		f, err := files.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := all.read(f); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		return nil
	})
	return all, err
}

// block matches what opens a scope, field what declares one.
var (
	packageLine = regexp.MustCompile(`^package\s+([\w.]+);`)
	block       = regexp.MustCompile(`^(message|enum|oneof|service)\s+(\w+)\s*\{`)
	field       = regexp.MustCompile(`^(?:repeated\s+|optional\s+)?(?:map\s*<[^>]*>|[\w.]+)\s+(\w+)\s*=\s*\d+`)
)

// read takes one .proto file, laid out as the formatter of that project does: one
// element a line. A comment belongs to the element on the next line that is code.
func (m markers) read(r io.Reader) error {
	var scope []string // package and messages; "" for a block that is no message
	var pending []string
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if comment, ok := strings.CutPrefix(line, "//"); ok {
			if mark, ok := strings.CutPrefix(strings.TrimSpace(comment), "+"); ok {
				pending = append(pending, mark)
			}
			continue
		}
		code, _, _ := strings.Cut(line, "//")
		opened := strings.Count(code, "{") - strings.Count(code, "}")
		if found := packageLine.FindStringSubmatch(code); found != nil {
			scope = []string{found[1]}
		} else if found := block.FindStringSubmatch(code); found != nil {
			scope = append(scope, "")
			opened--
			if found[1] == "message" {
				scope[len(scope)-1] = found[2]
				m.add(pending, scope...)
			}
		} else if found := field.FindStringSubmatch(code); found != nil {
			m.add(pending, append(slices.Clone(scope), found[1])...)
		}
		pending, scope = nil, shift(scope, opened)
	}
	return lines.Err()
}

// add files marks under the full name that path makes.
func (m markers) add(marks []string, path ...string) {
	if len(marks) > 0 {
		m[strings.Join(slices.DeleteFunc(slices.Clone(path), func(s string) bool { return s == "" }), ".")] = marks
	}
}

// shift opens n nameless scopes, or closes -n.
func shift(scope []string, n int) []string {
	for ; n > 0; n-- {
		scope = append(scope, "")
	}
	return scope[:max(0, len(scope)+n)]
}
