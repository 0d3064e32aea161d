// Package accesslog writes one line for each finished stream or connection.
//
// Build compiles the access_log list of a listener or connection manager into
// Loggers. A Logger formats into the buffer of its file; Files owns the open files,
// each with one goroutine that writes the buffer out at 64 KiB or after a second.
package accesslog

import (
	"errors"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"

	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

// A Logger writes the records of one access_log entry. It is safe for concurrent use.
type Logger interface {
	// LogHTTP records a finished HTTP stream.
	LogHTTP(s *http.Stream)
	// LogTCP records a finished connection.
	LogTCP(info *streaminfo.Info)
	// Flush writes what is buffered to the file.
	Flush()
	// Close gives up the file; the Logger is not used after it.
	Close()
}

// Env is what loggers may use of the proxy around them.
type Env struct {
	Files *Files
}

// Files owns the open log files of a proxy, one sink for each path however many
// loggers write to it. It is safe for concurrent use.
type Files struct{}

// NewFiles returns a set without open files; its stats are "access_log_file.…" in scope.
func NewFiles(scope *stats.Scope) *Files { return &Files{} }

// Reopen opens every file anew by its path, after an outside program moved it away.
func (f *Files) Reopen() error { return nil }

// Close writes out and closes all files.
func (f *Files) Close() {}

// Build compiles access logs. A file that cannot be opened is an error that names it.
func Build(logs []*accesslogv3.AccessLog, env Env) ([]Logger, error) {
	return nil, errors.New("not built yet")
}
