// Package logs keeps what containers print, in the files and the format of a kubelet:
// one line each, "TIME STREAM F TEXT", or P for a part of a line that goes on.
//
//	DIR/0.log      the first run of the container
//	DIR/1.log.1    a full file of its second run, the oldest
//	DIR/1.log.2
//	DIR/1.log      what is being written
//
// Lines of any length and with any bytes are taken; a part is at most 16 KiB.
package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// The limits of a Log that names none.
const (
	DefaultMaxBytes = 10 << 20
	DefaultMaxFiles = 5
)

// maxPart is the longest text of one line of a file.
const maxPart = 16 << 10

// maxLine is the longest line of a file: time, stream and tag besides the text.
const maxLine = maxPart + 100

// Limits bound what is kept of one run.
type Limits struct {
	MaxBytes int64 // of one file
	MaxFiles int   // the one being written among them; at least 2
}

// A Log is what one run of a container prints. Safe for concurrent use.
type Log struct {
	path   string
	limits Limits

	mu      sync.Mutex
	file    *os.File
	size    int64
	number  int           // how many full files came before this one
	changed chan struct{} // closed when something is written, and replaced
	closed  bool
	failed  error // the first of a full disk; writing is tried again
}

// Path is the file of a run in a container's directory.
func Path(dir string, run int32) string {
	return filepath.Join(dir, strconv.Itoa(int(run))+".log")
}

// Create begins the log of a run, in place of one that is there.
func Create(path string, limits Limits) (*Log, error) {
	if limits.MaxBytes <= 0 {
		limits.MaxBytes = DefaultMaxBytes
	}
	if limits.MaxFiles < 2 {
		limits.MaxFiles = DefaultMaxFiles
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := Remove(path); err != nil {
		return nil, err
	}
	l := &Log{path: path, limits: limits, changed: make(chan struct{})}
	return l, l.open()
}

func (l *Log) open() error {
	file, err := os.OpenFile(l.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	l.file, l.size = file, 0
	return nil
}

// Remove removes all files of a run's log.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	full, globErr := filepath.Glob(path + ".*")
	for _, name := range full {
		err = errors.Join(err, os.Remove(name))
	}
	return errors.Join(err, globErr)
}

// Close ends the log; followers get to its end.
func (l *Log) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	l.closed = true
	close(l.changed)
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// put adds one line of a file.
func (l *Log) put(stream string, text []byte, full bool) {
	tag := "P"
	if full {
		tag = "F"
	}
	line := make([]byte, 0, len(text)+64)
	line = time.Now().UTC().AppendFormat(line, timeFormat)
	line = fmt.Appendf(line, " %s %s ", stream, tag)
	line = append(append(line, text...), '\n')
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.size > 0 && l.size+int64(len(line)) > l.limits.MaxBytes || l.file == nil {
		l.failed = l.rotate()
	}
	if l.file == nil {
		return
	}
	n, err := l.file.Write(line)
	l.size += int64(n)
	if err != nil {
		l.failed = err
	}
	close(l.changed)
	l.changed = make(chan struct{})
}

// rotate puts the file beside and begins the next. On an error the container's output is lost until
// there is room, and the container goes on.
func (l *Log) rotate() error {
	if l.file != nil {
		_ = l.file.Close()
		l.file = nil
		if err := os.Rename(l.path, full(l.path, l.number+1)); err != nil {
			return err
		}
		l.number++
		_ = os.Remove(full(l.path, l.number-l.limits.MaxFiles+1))
	}
	return l.open()
}

// full is the name of a full file.
func full(path string, number int) string { return path + "." + strconv.Itoa(number) }

// numbers lists the full files of a run, in their order.
func numbers(path string) []int {
	names, _ := filepath.Glob(path + ".*")
	var all []int
	for _, name := range names {
		if n, err := strconv.Atoi(strings.TrimPrefix(name, path+".")); err == nil && n > 0 {
			all = append(all, n)
		}
	}
	return all
}

// timeFormat is RFC 3339 with all nine digits.
const timeFormat = "2006-01-02T15:04:05.000000000Z07:00"

// Copy takes one stream ("stdout", "stderr") of the container until it ends. What has
// no end of line yet is kept for a while in memory, at most one part.
func (l *Log) Copy(stream string, from io.Reader) error {
	part := make([]byte, 0, maxPart)
	chunk := make([]byte, 32<<10)
	for {
		n, err := from.Read(chunk)
		for rest := chunk[:n]; len(rest) > 0; {
			end := bytes.IndexByte(rest, '\n')
			room := maxPart - len(part)
			switch {
			case end >= 0 && end <= room:
				l.put(stream, append(part, rest[:end]...), true)
				part, rest = part[:0], rest[end+1:]
			case len(rest) > room:
				l.put(stream, append(part, rest[:room]...), false)
				part, rest = part[:0], rest[room:]
			default:
				part, rest = append(part, rest...), nil
			}
		}
		if err != nil {
			if len(part) > 0 {
				l.put(stream, part, false)
			}
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return err
		}
	}
}
