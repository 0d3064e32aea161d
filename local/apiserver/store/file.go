package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	fileName    = "objects.log"
	newFileName = "objects.log.new" // a snapshot until it is complete
	lockName    = "lock"
)

// A logFile is the write-ahead file. Only the writer uses it.
type logFile struct {
	dir  string
	file *os.File
	size int64 // what is acknowledged: bytes beyond it are of a write that failed
}

func (l *logFile) path() string { return filepath.Join(l.dir, fileName) }

// append adds records. When it fails, the file is as before.
func (l *logFile) append(records []byte) error {
	if _, err := l.file.WriteAt(records, l.size); err != nil {
		// What did get in is taken back, so that a restart does not find a write that was refused.
		// Should that fail too, the next write takes its place.
		return errors.Join(err, l.file.Truncate(l.size))
	}
	l.size += int64(len(records))
	return nil
}

// rewrite replaces the file by one that holds the state only, and is on the disk before the old
// one goes. When it fails, the old one stays.
func (l *logFile) rewrite(s *state) error {
	path := filepath.Join(l.dir, newFileName)
	file, size, err := writeSnapshot(path, s)
	if err == nil {
		err = os.Rename(path, l.path())
	}
	if err != nil {
		if file != nil {
			file.Close()
		}
		os.Remove(path)
		return fmt.Errorf("rewriting %s: %w", l.path(), err)
	}
	if l.file != nil {
		l.file.Close()
	}
	l.file, l.size = file, size
	return syncDir(l.dir)
}

// snapshotChunk is how much of a snapshot is encoded before it is written.
const snapshotChunk = 256 << 10

func writeSnapshot(path string, s *state) (*os.File, int64, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, 0, err
	}
	var size int64
	chunk := appendRecord(nil, record{kind: recordBase, version: formatVersion, item: item{rev: s.rev}})
	flush := func() bool {
		var n int
		n, err = file.Write(chunk)
		size += int64(n)
		chunk = chunk[:0]
		return err == nil
	}
	s.items.Ascend(func(it *item) bool {
		chunk = appendRecord(chunk, record{kind: recordItem, item: *it})
		return len(chunk) < snapshotChunk || flush()
	})
	if err == nil && flush() {
		err = file.Sync()
	}
	return file, size, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lockDir takes the directory for this process: the lock goes with it, however it ends.
func lockDir(dir string) (*os.File, error) {
	path := filepath.Join(dir, lockName)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		defer file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another API server%s: stop it, or choose another directory", dir, owner(file))
		}
		return nil, fmt.Errorf("locking %s: %w", path, err)
	}
	// The number is for people only, so that a full disk does not matter.
	if file.Truncate(0) == nil {
		fmt.Fprintln(file, os.Getpid())
	}
	return file, nil
}

func owner(lock *os.File) string {
	b := make([]byte, 16)
	n, _ := lock.ReadAt(b, 0)
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n]))); err == nil {
		return fmt.Sprintf(" (process %d)", pid)
	}
	return ""
}

// maxMoved bounds the damaged files that are put aside.
const maxMoved = 9

// putAside keeps a damaged file under another name, beside the one that takes its place: at no
// moment is there none. The newest of too many takes the place of the last.
func putAside(path string) (string, error) {
	var moved string
	for n := 1; n <= maxMoved; n++ {
		moved = fmt.Sprintf("%s.damaged-%d", path, n)
		if _, err := os.Lstat(moved); errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err := os.Remove(moved); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if os.Link(path, moved) == nil {
		return moved, nil
	}
	b, err := os.ReadFile(path) // some file systems have no links
	if err != nil {
		return "", err
	}
	return moved, os.WriteFile(moved, b, 0o600) //nolint:gosec // beside the file, wherever the user put that
}

// noSpace is true of the errors that go away when somebody frees space.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}
