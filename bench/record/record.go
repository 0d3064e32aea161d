// Package record keeps the results of benchmarks in one file of Markdown: each
// benchmark owns the section below its heading.
package record

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
)

// Write replaces the section with a heading ("# What …"), or adds it at the end. The
// text follows the heading.
func Write(path, heading string, text []byte) error {
	old, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	section := append([]byte(heading+"\n\n"), bytes.TrimSpace(text)...)
	section = append(section, '\n')
	return os.WriteFile(path, splice(old, heading, section), 0o644) //nolint:gosec // a record for everybody
}

func splice(old []byte, heading string, section []byte) []byte {
	line := []byte(heading + "\n")
	start := bytes.Index(old, line)
	if start > 0 && old[start-1] != '\n' {
		start = -1
	}
	if start < 0 {
		if len(old) == 0 {
			return section
		}
		return append(append(bytes.TrimSpace(old), "\n\n"...), section...)
	}
	rest := old[start+len(line):]
	end := bytes.Index(rest, []byte("\n# "))
	if end < 0 {
		return append(bytes.Clone(old[:start]), section...)
	}
	out := append(bytes.Clone(old[:start]), section...)
	return append(append(out, '\n'), rest[end+1:]...)
}
