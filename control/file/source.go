// Package file feeds a config.Store from YAML and JSON files: directories, single
// files or standard input. It watches them, so that a change is in force within a
// second, and keeps the last good state of every object whose text is broken.
package file

import "github.com/lateen-mesh/lateen/control/config"

// A FileStatus is what a Source says about one file.
type FileStatus struct {
	Path    string
	Objects int // in force from this file
	// Stale is set when some object of the file is in force in an older state,
	// because its present text is broken. Problems says why.
	Stale    bool
	Problems []config.Problem
}
